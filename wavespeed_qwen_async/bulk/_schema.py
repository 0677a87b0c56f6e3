"""The journal's tables, as the numbered migrations that make them, and the opening of the file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from wavespeed_qwen_async.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["APPLICATION_ID", "MIGRATIONS", "JournalError", "connect", "explained"]

APPLICATION_ID = 0x57515741  # "WQWA": tells a journal from any other SQLite file
_BUSY_SECONDS = 5.0

MIGRATIONS: tuple[str, ...] = (
    # 1: narrow rows for what every resume reads through, the rest apart. `mark` is the line as it stands in the
    # source, `digest` the job that it means; `position` is null where the source no longer has the line.
    """
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        position INTEGER,
        line INTEGER,
        mark BLOB NOT NULL,
        digest BLOB NOT NULL,
        state INTEGER NOT NULL DEFAULT 0,
        price INTEGER NOT NULL DEFAULT 0,
        refund INTEGER NOT NULL DEFAULT 0
    );
    CREATE UNIQUE INDEX jobs_position ON jobs (position);
    CREATE INDEX jobs_digest ON jobs (digest, position);
    CREATE INDEX jobs_state ON jobs (state, position, price, refund);
    CREATE TABLE details (
        row INTEGER PRIMARY KEY,
        model TEXT,
        inputs TEXT,
        sent_at REAL,
        prediction_id TEXT,
        path TEXT,
        kind TEXT,
        error TEXT,
        billed TEXT,
        transient INTEGER,
        seconds REAL,
        lines INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE held (prediction_id TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE files (name TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE uploads (key TEXT PRIMARY KEY, url TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE blocks (start INTEGER PRIMARY KEY, count INTEGER NOT NULL, digest BLOB NOT NULL);
    CREATE TABLE sends (at REAL, row INTEGER, PRIMARY KEY (at, row)) WITHOUT ROWID;
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    """,
    # 2: whose jobs these are, and the few of which there is more than one line in the results, without reading all.
    """
    CREATE TABLE api (one INTEGER PRIMARY KEY CHECK (one = 1), address TEXT NOT NULL);
    CREATE INDEX details_lines ON details (row) WHERE lines > 1;
    """,
    # 3: what jobs cost that were sent again though nothing tells that their earlier submit was free.
    """
    CREATE TABLE given_up (row INTEGER PRIMARY KEY, price INTEGER NOT NULL);
    """,
)
"""Migration n brings a journal from version n - 1 to n. Never change one that was released: add the next."""


class JournalError(ConfigurationError):
    """The journal can't be used or written: nothing is sent from here on, and nothing that was paid is lost."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal, making or migrating it; the file is the owner's alone.

    Raises:
        JournalError: it is damaged, no journal, of a newer version, or can't be written.
    """
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise explained(error, path) from error
    try:
        _prepare(database, path)
    except (OSError, sqlite3.Error) as error:
        database.close()
        raise explained(error, path) from error
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise JournalError(f"{path} is no journal of a batch: choose another folder")
    if version > len(MIGRATIONS):
        raise JournalError(
            f"{path} is a journal of version {version}, and this release knows up to {len(MIGRATIONS)}: "
            "update wavespeed-qwen-async. Nothing was sent"
        )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA cache_size = -8000")
    database.execute("PRAGMA journal_size_limit = 16777216")
    for number in range(version, len(MIGRATIONS)):
        script = f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA application_id = {APPLICATION_ID};"
        database.executescript(f"{script} PRAGMA user_version = {number + 1}; COMMIT;")


def explained(error: Exception, path: Path) -> JournalError:
    """One line that says what is wrong with the journal and what to do."""
    text = str(error).lower()
    if isinstance(error, OSError):
        return JournalError(f"can't write {path}: {error.strerror or error}")
    if "malformed" in text or "not a database" in text or "corrupt" in text:
        return JournalError(
            f"{path} is damaged ({error}). Nothing was sent. The images are untouched; restore the file from a "
            "copy, or move it away and begin anew: what only it knew to be paid is then found by 'history'"
        )
    if "full" in text:
        return JournalError(f"no room on the disk for {path}: free some and start again, nothing that is paid is lost")
    if "readonly" in text or "unable to open" in text:
        return JournalError(f"can't write {path}: the file or its folder is read-only")
    return JournalError(f"the journal {path} can't be written ({error}): nothing more was sent; start again to resume")
