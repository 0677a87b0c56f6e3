"""What a batch tells: its plan, what becomes of each job, and how it ended."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .exits import Exit
from .output import clean, error_data, money, why

if TYPE_CHECKING:
    from pathlib import Path

    from wavespeed_qwen_async.bulk import Batch, BatchOutcome, BatchPlan, BatchSummary

    from .progress import View
    from .running import Run

__all__ = ["Report", "tell_plan"]

_NAMED = 100  # jobs up to which each saved file is named on a terminal, above the picture
_LIKE_IT = 5  # failures of a kind that are shown on a terminal; the picture and the end tell how many there were
_SHOWN_INVALID = 5


class Report:
    """Follows a batch and tells what becomes of it.

    Args:
        run: The command's run.
        batch: The batch, not yet running.
        out: Its folder.
    """

    def __init__(self, run: Run, batch: Batch, out: Path) -> None:
        self._run = run
        self._output = run.output
        self._batch = batch
        self._out = out
        self._ended = 0

    async def follow(self) -> int:
        """Run it to its end, or as far as it goes; returns the exit code."""
        from wavespeed_qwen_async import WaveSpeedError  # noqa: PLC0415 - heavy, and --help needs none of it

        error = None
        self._run.on_interrupt = self._drain
        self._run.left = "interrupted: what is paid is in the journal, the same command collects it"
        self._output.journaled = True
        try:
            await self._watch()
        except WaveSpeedError as fatal:
            error = fatal
        summary = self._batch.summary()
        if error is None or summary.total:
            _tell_summary(self._run, summary, self._out)
        code = _exit_of(summary) if error is None else self._output.failed(error)
        self._run.on_interrupt = None
        return code

    @property
    def to_be_shown(self) -> int:
        """How many jobs there are to look at; 0 where the user wants to leave."""
        return 0 if self._run.interrupted else self._batch.summary().total

    async def _watch(self) -> None:
        from .progress import View, showing  # noqa: PLC0415 - see above

        view = View(self._batch.progress, self._run.session.limits.snapshot)
        async with showing(self._output, view), aclosing(self._batch.run()) as outcomes:
            async for outcome in outcomes:
                view.recent.note(outcome)
                self._tell(outcome, view)

    def _drain(self) -> None:
        in_flight = self._run.session.limits.snapshot().in_flight
        self._output.note(f"stopping: {in_flight} in flight are collected first; once more leaves at once")
        self._output.event("draining", in_flight=in_flight)
        self._batch.drain()

    def _tell(self, outcome: BatchOutcome, view: View) -> None:
        self._ended += 1
        self._output.event("outcome", **_data(outcome))
        on_terminal = sys.stdout.isatty()
        progress = self._batch.progress()
        total = "?" if progress.total is None else progress.total
        head = f"[{self._ended + progress.skipped}/{total}]"
        if outcome.error is None:
            if not on_terminal or (progress.total is not None and progress.total <= _NAMED):
                took = "collected" if outcome.resumed else f"{outcome.seconds:.1f} s"
                self._output.line(f"{head}  {took}  {money(outcome.price)}  {outcome.path}", whole=False)
        elif not on_terminal or view.recent.errors[type(outcome.error).__name__][0] <= _LIKE_IT:
            place = f"line {outcome.line}" if outcome.line is not None else f"job {outcome.index + 1}"
            text = why(outcome.error)
            self._output.line(f"{head}  failed: {text if text.startswith(place) else f'{place}: {text}'}")


def _data(outcome: BatchOutcome) -> dict[str, Any]:
    job, prediction = outcome.job, outcome.prediction
    return {
        "index": outcome.index,
        "line": outcome.line,
        "ok": outcome.ok,
        "path": None if outcome.path is None else str(outcome.path),
        "prediction_id": None if prediction is None else prediction.id,
        "model": None if job is None else job.model_id,
        "seed": None if job is None else job.seed,
        "price": outcome.price,
        "seconds": round(outcome.seconds, 3),
        "resumed": outcome.resumed,
        "error": None if outcome.error is None else error_data(outcome.error),
    }


def _tell_summary(run: Run, summary: BatchSummary, out: Path) -> None:
    from shlex import quote  # noqa: PLC0415 - --help needs it not

    line = run.output.line
    line(
        f"{summary.saved} {'image' if summary.saved == 1 else 'images'} saved in {out}, {summary.failed} failed, "
        f"cost {money(summary.cost)}, time {summary.seconds:.1f} s"
    )
    if summary.skipped:
        line(f"  {summary.skipped} were there before; the folder cost {money(summary.cost_total)} in all")
    for kind, count, example in summary.errors:
        line(f"  {count} x {kind}: {clean(example)}")
    if summary.failed:
        line("  --retry-failed sends those again that were not billed or may pass; results.jsonl has them all")
    if summary.refunded:
        line(f"  {money(summary.refunded)} of failed tasks comes back within 3 hours")
    if summary.unknown:
        line(f"  {summary.unknown} were perhaps accepted: --resubmit-unknown sends them again and may pay twice")
    if summary.strangers:
        line(f"  {summary.strangers} predictions of this time belong to none of these jobs")
        for command, does in (("history", "lists them"), ("download", "saves their images")):
            line(f"    wavespeed-qwen {command} --strangers {quote(str(out))}  {does}")
    if summary.open:
        line(f"  {summary.open} are not at their end: the same command goes on with them")
    if summary.stopped in _STOPPED:
        line(f"  {_STOPPED[summary.stopped]}")
    run.output.event("summary", **{name: getattr(summary, name) for name in summary.__slots__})


_STOPPED = {
    "budget": "the budget is used up: a larger --budget goes on",
    "credits": "the account's credits are used up: top up the account, then the same command goes on",
}


def _exit_of(summary: BatchSummary) -> Exit:
    if summary.stopped == "drained":
        return Exit.INTERRUPTED
    if summary.stopped is not None:
        return Exit.MONEY
    if summary.unknown:
        return Exit.UNKNOWN
    return Exit.FAILED if summary.failed else Exit.OK


def tell_plan(run: Run, plan: BatchPlan) -> int:
    """Tell what a batch would do and cost; returns the exit code."""
    line = run.output.line
    jobs = "1 job" if plan.total == 1 else f"{plan.total} jobs"
    line(f"{jobs}: {plan.new} to be sent, {plan.resumable} to be collected, {plan.saved} saved before")
    left = {"failed": plan.failed, "unknown": plan.unknown, "invalid": plan.invalid_count, "removed": plan.removed}
    for name, count in left.items():
        if count:
            line(f"  {count} {name}")
    for number, text in plan.invalid[:_SHOWN_INVALID]:
        line(f"  invalid: {clean(text if number is None or text.startswith('line') else f'line {number}: {text}')}")
    if plan.changed_count:
        line(f"  {plan.changed_count} stand where another job stood: new ones, to be paid")
    for price in plan.prices:
        source = "" if price.source == "api" else ", per the API's pages"
        line(f"  {price.count} x {money(price.each)}  {price.model}{source}")
    balance = "" if plan.balance is None else f", balance {money(plan.balance)}"
    line(f"cost {money(plan.cost)}{balance}, time about {plan.seconds:.0f} s")
    if plan.budget is not None:
        line(f"  the budget of {money(plan.budget)} covers {plan.affordable} of the {plan.new} new ones")
    for note in plan.notes:
        line(f"  note: {clean(note)}")
    data = {name: getattr(plan, name) for name in plan.__slots__}
    data["prices"] = [{name: getattr(price, name) for name in price.__slots__} for price in plan.prices]
    run.output.event("plan", **data)
    return Exit.USAGE if plan.invalid_count else Exit.OK
