"""Where a batch's jobs come from: files of jobs, a folder of images, or whatever can be iterated.

A source gives lines. What stands in a line is looked at only when it is needed: to resume behind a million saved
images, a million lines are read and compared, and none of them is parsed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wavespeed_qwen_async._inputs import is_url
from wavespeed_qwen_async._media.files import Workers
from wavespeed_qwen_async.errors import ConfigurationError, InvalidJobError
from wavespeed_qwen_async.models import Job, as_job

from ._digests import digest_of, mark_of, marks_of
from ._formats import IMAGES, READERS, Block, value_of

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from ._formats import Raw

__all__ = ["JobSource", "SourceChunk", "SourceLine", "read_source"]

_CHUNK = 2000  # at most a block of the journal, see _store
_CHUNK_OF_ITERABLE = 16  # a generator should not be pulled far ahead of what is sent
_SHOWN = 100


class SourceLine:
    """One line of a source: something that should be a job. Blocking to look at: for a thread.

    Attributes:
        line: Its number in the file, from 1; None where the source has no lines.
        mark: What stands there, as bytes to compare; of a value without a text, what it means.
    """

    __slots__ = ("_digest", "_job", "_raw", "_source", "line", "mark")

    def __init__(self, source: _Options, raw: Raw, mark: bytes | None = None) -> None:
        self._source = source
        self._raw = raw
        self._job: Job | InvalidJobError | None = None
        self._digest: bytes | None = None
        self.line: int | None = raw.line
        self.mark: bytes = self.digest() if mark is None else mark

    def job(self) -> Job:
        """The job that the line means.

        Raises:
            InvalidJobError: it means none; the message names the line.
        """
        if self._job is None:
            try:
                self._job = self._source.job(self._raw)
            except InvalidJobError as error:
                where = "" if self.line is None else f"line {self.line}: "
                self._job = InvalidJobError(f"{where}{error.message}", field=error.field)
        if isinstance(self._job, InvalidJobError):
            raise self._job from None
        return self._job

    def digest(self) -> bytes:
        """What the job is, however it is written; of a line that means none, what stands there."""
        if self._digest is None:
            try:
                self._digest = digest_of(self.job())
            except InvalidJobError:
                text = self._raw.text
                value = repr(self._raw.value).encode("utf-8", "replace") if text is None else text
                self._digest = mark_of(value, self._source.salt)
        return self._digest


class SourceChunk:
    """Some lines of a source, looked at one by one only where that is needed."""

    __slots__ = ("_block", "_lines", "_marks", "_source")

    def __init__(self, source: _Options, block: Block) -> None:
        self._source = source
        self._block = block
        self._marks: list[bytes] | None = None
        self._lines: list[SourceLine] | None = None  # of values, which had to be understood to get their marks

    def __len__(self) -> int:
        return len(self._block.lines)

    def __iter__(self) -> Iterator[SourceLine]:
        return (self.line(place) for place in range(len(self)))

    def first(self, count: int) -> SourceChunk:
        """The first so many of them."""
        return self if count >= len(self) else SourceChunk(self._source, self._block.first(max(0, count)))

    @property
    def digest(self) -> bytes:
        """The same for the same lines, quicker to make than the marks are."""
        texts = self._block.texts
        if texts is None:
            return mark_of(b"".join(self.marks), b"")
        return mark_of(b"\n".join(texts), self._source.salt)

    @property
    def marks(self) -> list[bytes]:
        """The mark of each line."""
        if self._marks is None:
            texts = self._block.texts
            if texts is not None:
                self._marks = marks_of(texts, self._source.salt)
            else:
                self._lines = [SourceLine(self._source, self._block.raw(place)) for place in range(len(self))]
                self._marks = [line.mark for line in self._lines]
        return self._marks

    def line(self, place: int) -> SourceLine:
        """One of them."""
        mark = self.marks[place]
        return SourceLine(self._source, self._block.raw(place), mark) if self._lines is None else self._lines[place]


class JobSource(Protocol):
    """Gives the lines of a source, from the first on, each time that it is asked."""

    name: str

    def chunks(self) -> AsyncGenerator[SourceChunk, None]:
        """The lines, some at a time, read lazily."""

    async def count(self) -> int | None:
        """How many lines there are, where that can be told beforehand."""

    async def keep(self) -> None:
        """Make sure that it can be read more than once."""

    async def close(self) -> None:
        """Let go of threads."""


def read_source(
    source: str | os.PathLike[str] | Iterable[Job | Mapping[str, Any]] | AsyncIterable[Job | Mapping[str, Any]],
    *,
    prompt: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> JobSource:
    """A source of jobs.

    Args:
        source: A ``.jsonl``, ``.csv``, ``.yaml`` or ``.txt`` file (a prompt a line); a folder of images, with
            ``prompt``; or an iterable or async iterable of jobs or mappings.
        prompt: What to do with each image of a folder; for files, the prompt of lines that have none.
        defaults: Parameters of every job that does not say otherwise.

    Raises:
        ConfigurationError: there is no such file, or nothing is known of its kind.
    """
    options = _Options({**(defaults or {}), **({} if prompt is None else {"prompt": prompt})})
    if isinstance(source, (str, Path)) or hasattr(source, "__fspath__"):
        return FileSource(Path(source), options)  # type: ignore[arg-type]  # it has a path
    if isinstance(source, AsyncIterable):
        return _AsyncSource(source, options)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, Mapping)):
        return _IterableSource(source, options)
    raise ConfigurationError(f"source = {type(source).__name__}: give a file, a folder, or an iterable of jobs")


class _Options:
    """What a source makes jobs with."""

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self.defaults: dict[str, Any] = dict(defaults)
        self.salt: bytes = json.dumps(self.defaults, sort_keys=True, default=repr).encode() if self.defaults else b""
        self.folder: Path | None = None
        self.parse: Callable[[Raw], Any] = value_of

    def job(self, raw: Raw) -> Job:
        value = self.parse(raw)
        if isinstance(value, Job):
            return value
        if not isinstance(value, Mapping):
            shown = repr(value)
            raise InvalidJobError(f"a job is a mapping of parameters, not {shown[:_SHOWN]}")
        given = {str(name): item for name, item in value.items() if item is not None}
        return as_job(self._resolved({**self.defaults, **given}))

    def _resolved(self, given: dict[str, Any]) -> dict[str, Any]:
        """Paths of images are seen from the file that names them; where there is none, from the working folder."""
        if self.folder is not None:
            if "image" in given:
                given["image"] = self._path(given["image"])
            if isinstance(given.get("images"), (list, tuple)):
                given["images"] = [self._path(item) for item in given["images"]]
        return given

    def _path(self, image: Any) -> Any:
        if not isinstance(image, str) or is_url(image) or not image.strip() or "\0" in image or self.folder is None:
            return image
        beside = self.folder / image
        return beside if beside.exists() else image


class FileSource:
    """A file or a folder, read in a thread."""

    def __init__(self, path: Path, options: _Options) -> None:
        self.name: str = str(path)
        self._path = path
        self._options = options
        self._workers = Workers(1)
        self._state: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"<source {self.name}>"

    async def chunks(self) -> AsyncGenerator[SourceChunk, None]:
        blocks = await self._workers.run(self._blocks)
        try:
            while chunk := await self._workers.run(self._next, blocks):
                yield chunk
        finally:
            await self._workers.run(blocks.close)

    async def count(self) -> int | None:
        return await self._workers.run(self._count)

    async def keep(self) -> None:
        pass

    async def check(self) -> None:
        """Raise ConfigurationError if the file is no more what it was when its reading began."""
        await self._workers.run(self._check_unchanged)

    async def check_apart(self, folder: Path) -> None:
        """Raise ConfigurationError if ``folder``, where the images go, is the one that they are made of."""
        if await self._workers.run(self._is, folder):
            raise ConfigurationError(
                f"{self.name}: the images would be put among their sources, and the next run would edit and pay them "
                "as well: choose another folder. Nothing was sent"
            )

    def _is(self, folder: Path) -> bool:
        try:
            return self._path.samefile(folder)
        except OSError:  # one of them is not there
            return False

    async def close(self) -> None:
        self._workers.close()

    def _kind(self) -> str:
        self._options.folder = self._path.parent
        if self._path.is_dir():
            if "prompt" not in self._options.defaults:
                raise ConfigurationError(f"{self.name} is a folder of images: say what to do with each by prompt=")
            return "folder"
        if not self._path.exists():
            raise ConfigurationError(f"{self.name}: no such file or folder")
        kind = self._path.suffix.lower()
        if kind not in READERS:
            known = ", ".join(sorted(kind for kind in READERS if kind != "folder"))
            raise ConfigurationError(f"{self.name}: give a file of kind {known}, or a folder of images ({IMAGES})")
        self._options.parse = READERS[kind].parse
        return kind

    def _blocks(self) -> Generator[Block, None, None]:
        self._state = self._looks()
        return READERS[self._kind()].blocks(self._path, _CHUNK)

    def _next(self, blocks: Iterator[Block]) -> SourceChunk | None:
        self._check_unchanged()
        try:
            block = next(blocks, None)
            return None if block is None else SourceChunk(self._options, block)
        except OSError as error:
            raise ConfigurationError(f"{self.name}: can't be read: {error.strerror or error}") from error
        except UnicodeDecodeError:
            raise ConfigurationError(f"{self.name}: is not UTF-8 text") from None

    def _looks(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_size, status.st_mtime_ns) if self._path.is_file() else (status.st_ino,)

    def _check_unchanged(self) -> None:
        if self._looks() != self._state:
            raise ConfigurationError(
                f"{self.name} was changed while it was read: no more is sent, what is paid is collected. Start again: "
                "lines are known by their content, so only new ones are paid"
            )

    def _count(self) -> int | None:
        try:
            return READERS[self._kind()].size(self._path)
        except OSError:
            return None


def _chunk_of(options: _Options, values: list[Any]) -> SourceChunk:
    return SourceChunk(options, Block([None] * len(values), values=values))


class _IterableSource:
    """Anything that can be iterated; it is, in the event loop, as it may belong there."""

    name = "the given jobs"

    def __init__(self, jobs: Iterable[Any], options: _Options) -> None:
        self._jobs = jobs
        self._options = options

    async def chunks(self) -> AsyncGenerator[SourceChunk, None]:
        jobs = iter(self._jobs)
        while values := list(islice(jobs, _CHUNK_OF_ITERABLE)):
            yield _chunk_of(self._options, values)
            await asyncio.sleep(0)

    async def count(self) -> int | None:
        try:
            return len(self._jobs)  # type: ignore[arg-type]  # where it has one
        except TypeError:
            return None

    async def keep(self) -> None:
        if iter(self._jobs) is self._jobs:
            self._jobs = list(self._jobs)

    async def close(self) -> None:
        pass


class _AsyncSource:
    """Anything that can be iterated asynchronously, one at a time: the next may take its time."""

    name = "the given jobs"

    def __init__(self, jobs: AsyncIterable[Any], options: _Options) -> None:
        self._jobs = jobs
        self._options = options
        self._kept: list[Any] | None = None

    async def chunks(self) -> AsyncGenerator[SourceChunk, None]:
        if self._kept is not None:
            for value in self._kept:
                yield _chunk_of(self._options, [value])
            return
        jobs = aiter(self._jobs)
        try:
            async for value in jobs:
                yield _chunk_of(self._options, [value])
        finally:
            if hasattr(jobs, "aclose"):
                await jobs.aclose()

    async def count(self) -> int | None:
        return None if self._kept is None else len(self._kept)

    async def keep(self) -> None:
        if self._kept is None:
            self._kept = [value async for value in self._jobs]

    async def close(self) -> None:
        pass
