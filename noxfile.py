"""What CI runs, and anybody else can: `nox` for all of it, `nox -s tests` for one session, `nox -l` for the list."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = [
    "lint",
    "types",
    "tests",
    "slow",
    "docs",
    "vendor",
]
# By name: `coverage` and `ray` are slow, the figures of `bench` need a machine of their own, `later` later Pythons.

SOURCES = ("wavespeed_qwen_async", "tests", "benchmarks", "examples", "noxfile.py")


@nox.session
def lint(session: nox.Session) -> None:
    session.install("ruff>=0.9")
    session.run("ruff", "check", *SOURCES)
    session.run("ruff", "format", "--check", *SOURCES)


@nox.session
def types(session: nox.Session) -> None:
    session.install(".[dev]")
    session.run("mypy", "--strict", "wavespeed_qwen_async")
    session.run("mypy", "--strict", "tests/typing")
    session.run("pyright", "tests/typing")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "wavespeed_qwen_async")


@nox.session
def tests(session: nox.Session) -> None:
    """The default tests on the built wheel."""
    _on_the_wheel(session)
    session.run("pytest", *session.posargs)


@nox.session(python=["3.12", "3.13"])
def later(session: nox.Session) -> None:
    """The same on later Pythons, those that are installed."""
    _on_the_wheel(session)
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The same with branch coverage, in one process: children of the tests run as a user's would, untraced."""
    _on_the_wheel(session)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "--numprocesses", "0", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=95")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, and the code, links, figures and help texts in the documentation."""
    _on_the_wheel(session)
    session.install(".[docs]", "wavespeed==2.0.5")  # the SDK that docs/migrate.md starts from
    session.env["DOCS_SITE"] = "site"
    session.run("mkdocs", "build", "--strict", "--site-dir", session.env["DOCS_SITE"])
    session.run("pytest", "-m", "not live", "tests/docs", "tests/cli/test_cli_docs.py")


@nox.session
def slow(session: nox.Session) -> None:
    """The chaos, soak and browser tests, on the built wheel too; those of the documentation run with it."""
    _on_the_wheel(session)
    # They wait for their own children most of the time, and the longest is the first of them.
    where = session.posargs or ["tests", "--ignore", "tests/docs"]
    how = ["-m", "slow", "--numprocesses", "3", "--dist", "load", "--timeout", "900", "--durations", "10"]
    session.run("pytest", *how, *where)


@nox.session
def ray(session: nox.Session) -> None:
    """On a real Ray cluster of three nodes on this machine: some ten minutes, and 200 MB of packages."""
    _on_the_wheel(session, "dev,ray")
    session.run(
        "pytest", "-m", "not live", "--numprocesses", "1", "--timeout", "900", *(session.posargs or ["tests/on_ray"])
    )


@nox.session
def vendor(session: nox.Session) -> None:
    """The vendor's own published clients, unmodified, against the emulator; those for Node.js where npm is."""
    session.install(".[emulator]", "wavespeed==2.0.5")
    script = ["python", "tests/contract/vendor_clients.py"]
    if shutil.which("npm"):
        folder = str(Path(session.create_tmp()).resolve())
        session.run(
            "npm", "install", "--silent", "--prefix", folder, "wavespeed@0.3.2", "@wavespeed/cli@0.2.2", external=True
        )
        script += ["--node", folder, "--require"]
    session.run(*script)


@nox.session
def bench(session: nox.Session) -> None:
    """The quick set of benchmarks."""
    session.install(".[bench]")
    session.run("python", "-m", "benchmarks", *session.posargs)


def _on_the_wheel(session: nox.Session, extras: str = "dev") -> None:
    session.install(f".[{extras}]")
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # each worker would rewrite the assertions of pytest's plugins anew
    session.env["PYTHONSAFEPATH"] = "1"  # the checkout is not on the path: what is imported is what was installed
