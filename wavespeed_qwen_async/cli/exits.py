"""Exit codes: what a script may rely on. The one table of them; ``--help`` and docs/cli.md show it."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["MEANINGS", "Exit", "exit_of", "table"]


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SETUP = 3
    SERVER = 4
    DISK = 5
    MONEY = 6
    UNKNOWN = 7
    WAITING = 8
    DEFECT = 70
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "all went well",
    Exit.FAILED: "jobs failed, or the server refused; all others are done",
    Exit.USAGE: "bad usage or input: an option, a job, a source image; nothing was sent",
    Exit.SETUP: "set-up: no API key, a wrong key, a base URL that is none, a missing part",
    Exit.SERVER: "the server can't be reached, or keeps failing or refusing",
    Exit.DISK: "disk: full, or a file or the journal that can't be read or written",
    Exit.MONEY: "the budget is used up, or the account's credits are",
    Exit.UNKNOWN: "jobs are left of which nobody knows whether they were accepted",
    Exit.WAITING: "not finished in time; it goes on and can be fetched by its id",
    Exit.DEFECT: "a defect of this program",
    Exit.INTERRUPTED: "interrupted by Ctrl+C or SIGTERM; what is paid can still be fetched",
}


def table() -> str:
    """The table as lines of text."""
    return "\n".join(f"{code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())


def exit_of(error: BaseException) -> Exit:
    """The exit code that an error stands for."""
    from wavespeed_qwen_async import errors  # noqa: PLC0415 - --help needs none of it
    from wavespeed_qwen_async.bulk.journal import JournalError  # noqa: PLC0415

    kinds: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Exit], ...] = (
        (errors.InvalidJobError, Exit.USAGE),
        (JournalError, Exit.DISK),
        ((errors.ConfigurationError, errors.AuthenticationError, errors.PermissionDeniedError), Exit.SETUP),
        ((errors.BudgetError, errors.InsufficientCreditsError), Exit.MONEY),
        (errors.SubmissionUnknown, Exit.UNKNOWN),
        (errors.ResultTimeout, Exit.WAITING),
        (errors.PredictionError, Exit.FAILED),
        (
            (
                errors.NotSentError,
                errors.LostAnswerError,
                errors.InvalidResponseError,
                errors.ServerError,
                errors.RateLimitError,
                errors.LimitsBrokenError,
            ),
            Exit.SERVER,
        ),
        (errors.BadRequestError, Exit.FAILED),
        (OSError, Exit.DISK),
    )
    if isinstance(error, errors.MediaError):  # its cause tells a full disk from a host that is down
        return Exit.DISK if isinstance(error.__cause__, OSError) else Exit.SERVER
    return next((code for kind, code in kinds if isinstance(error, kind)), Exit.DEFECT)
