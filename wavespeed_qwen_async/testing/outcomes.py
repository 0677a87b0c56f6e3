"""Tell an emulator what happens next, and ask it what was sent: thin words over its `faults` and its `ledger`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wavespeed_qwen_async.emulator import Emulator
    from wavespeed_qwen_async.emulator.ledger import Accepted

    Outcome = int | str | tuple[str, Mapping[str, Any]]

__all__ = ["assert_sent", "next_outcomes", "sent"]

Kind = Literal["generate", "edit"]

_IN_PATH: Final[dict[Kind | None, str]] = {None: "", "generate": "/text-to-image", "edit": "/edit"}
_HTTP_ERRORS: Final = range(400, 600)
_LOWEST_TASK_CODE: Final = 1000


def next_outcomes(emulator: Emulator, *outcomes: Outcome, to: Kind | None = None) -> None:
    """Tell how the next submits end, one outcome each; those after them succeed again.

    ::

        next_outcomes(emulator, "ok", 1200, to="edit")  # the next edit works, the one after it fails with 1200
        next_outcomes(emulator, 429, "drop_after")  # refused once; then accepted, but the answer is lost

    Args:
        emulator: The emulator to tell.
        outcomes: `"ok"`; an HTTP error (400 to 599) that refuses the submit; a task code (1000 and up) with which an
            accepted one fails; or one of the emulator's faults, by name or by name and options.
        to: Count generations only, or edits only.

    Raises:
        ValueError: An outcome is none of these.
    """
    __tracebackhide__ = True  # pytest then shows the test's own line
    emulator.faults.script("submit", *map(_step, outcomes), match=_IN_PATH[to])


def sent(emulator: Emulator, *, to: Kind | None = None) -> list[Accepted]:
    """Return the accepted submits in order: `inputs` is the body as it was sent; `model`, `time`, `status` and more."""
    return [each for each in emulator.ledger.accepted if _IN_PATH[to] in each.model]


def assert_sent(emulator: Emulator, *, to: Kind | None = None, times: int = 1, **inputs: object) -> list[Accepted]:
    """Assert that exactly so many accepted submits had these inputs, whatever their others were, and return them.

    ::

        assert_sent(emulator, to="edit", prompt="make it snow")
        assert_sent(emulator, times=0)  # nothing was accepted, so nothing was billed

    Raises:
        AssertionError: It was another number; the message lists what was sent.
    """
    __tracebackhide__ = True  # pytest then shows the test's own line
    candidates = sent(emulator, to=to)
    matching = [each for each in candidates if _has(each.inputs, inputs)]
    if len(matching) != times:
        listing = "\n  ".join(f"{each.model} {each.inputs}" for each in candidates) or "(nothing)"
        raise AssertionError(f"expected {times} with {inputs}, found {len(matching)} among\n  {listing}")
    return matching


def _step(outcome: Outcome) -> str | tuple[str, Mapping[str, Any]]:
    __tracebackhide__ = True
    if not isinstance(outcome, int):
        return outcome
    if outcome in _HTTP_ERRORS:
        return "status", {"status": outcome}
    if outcome < _LOWEST_TASK_CODE:
        raise ValueError(f"{outcome} is neither an HTTP error (400 to 599) nor a task code (1000 and up)")
    return "fail", {"code": outcome}


def _has(inputs: Mapping[str, object], expected: Mapping[str, object]) -> bool:
    return all(name in inputs and inputs[name] == value for name, value in expected.items())
