"""``batch``: a file of jobs, durable: stopped anywhere, the same command goes on where it stopped."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .exits import Exit
from .output import clean, error_data, money, why

if TYPE_CHECKING:
    from wavespeed_qwen_async.bulk import Batch, BatchOutcome, BatchPlan, BatchSummary

    from .running import Run

__all__ = ["register"]

_NAMED = 100  # jobs up to which each saved file is named on a terminal, above the bar
_LIKE_IT = 5  # failures of a kind that are shown on a terminal; the end tells how many there were
_SHOWN_INVALID = 5

Source = Annotated[
    Path,
    typer.Argument(help="JSONL, CSV, YAML or text (a prompt a line); or a folder of images.", metavar="SOURCE"),
]
OutFolder = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for images, results.jsonl and the journal.", metavar="FOLDER")
]
SharedPrompt = Annotated[
    str | None, typer.Option("--prompt", help="For jobs that have none, as a folder's images.", metavar="PROMPT")
]
Budget = Annotated[float | None, typer.Option(help="Dollars that this folder may cost.", metavar="USD")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Send failed jobs again: unbilled ones, and what may pass.")
]
ResubmitUnknown = Annotated[
    bool, typer.Option("--resubmit-unknown", help="Send jobs again that were perhaps accepted: may pay twice.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Send nothing unless every line is a valid job.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell count, price and time; send no job.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N jobs.", min=1, metavar="N")]
Names = Annotated[str | None, typer.Option(help="Pattern of file names, see docs/cli.md.", metavar="PATTERN")]
NoProvenance = Annotated[
    bool, typer.Option("--no-provenance", help="Don't write prompt and parameters into the images.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    options.command(app, example="wavespeed-qwen batch examples/prompts.jsonl --emulator --out out")(batch)


async def batch(
    run: Run,
    *,
    source: Source,
    out: OutFolder = Path("out"),
    budget: Budget = None,
    dry_run: DryRun = False,
    limit: Limit = None,
    retry_failed: RetryFailed = False,
    resubmit_unknown: ResubmitUnknown = False,
    strict: Strict = False,
    prompt: SharedPrompt = None,
    names: Names = None,
    no_provenance: NoProvenance = False,
    timeout: options.Timeout = None,
) -> int:
    """Make every image of a file; run it again to go on where it stopped."""
    from wavespeed_qwen_async import ConfigurationError, InvalidJobError  # noqa: PLC0415 - --help needs none of it
    from wavespeed_qwen_async.bulk import Batch, read_source  # noqa: PLC0415
    from wavespeed_qwen_async.names import DEFAULT_TEMPLATE  # noqa: PLC0415

    await asyncio.to_thread(_check, source, out, dry_run=dry_run)
    try:
        batch = Batch(
            read_source(source, prompt=prompt),
            out,
            run.session,
            budget=budget,
            retry_failed=retry_failed,
            resubmit_unknown=resubmit_unknown,
            strict=strict,
            limit=limit,
            provenance=not no_provenance,
            timeout=timeout,
            names=DEFAULT_TEMPLATE if names is None else names,
        )
    except ConfigurationError as error:  # an option of this command, so bad usage
        raise InvalidJobError(error.message) from None
    if dry_run:
        return _tell_plan(run, await batch.plan())
    return await _Report(run, batch, out).follow()


def _check(source: Path, out: Path, *, dry_run: bool) -> None:
    """See before anything is sent what is certain to go wrong."""
    from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - heavy, and --help needs none of it
    from wavespeed_qwen_async.bulk._formats import READERS  # noqa: PLC0415

    from .targets import check_room  # noqa: PLC0415

    if not source.exists():
        raise InvalidJobError(f"{source}: no such file or folder")
    if not source.is_dir() and source.suffix.lower() not in READERS:
        known = ", ".join(kind for kind in READERS if kind.startswith("."))
        raise InvalidJobError(f"{source}: give a file that ends in {known}, or a folder of images")
    if not dry_run:
        check_room(out)


class _Report:
    """Follows a batch and tells what becomes of it."""

    def __init__(self, run: Run, batch: Batch, out: Path) -> None:
        self._run = run
        self._output = run.output
        self._batch = batch
        self._out = out
        self._ended = 0
        self._kinds: dict[str, int] = {}

    async def follow(self) -> int:
        """Run it to its end, or as far as it goes; returns the exit code."""
        from wavespeed_qwen_async import WaveSpeedError  # noqa: PLC0415 - heavy, and --help needs none of it

        from .progress import showing  # noqa: PLC0415

        run, error = self._run, None
        run.on_interrupt = self._drain
        run.left = "interrupted: what is paid is in the journal, the same command collects it"
        run.output.journaled = True
        try:
            async with (
                showing(run.output, self._batch.progress, run.session.limits.snapshot),
                aclosing(self._batch.run()) as outcomes,
            ):
                async for outcome in outcomes:
                    self._tell(outcome)
        except WaveSpeedError as fatal:
            error = fatal
        summary = self._batch.summary()
        if error is None or summary.total:
            _tell_summary(run, summary, self._out)
        return run.output.failed(error) if error is not None else _exit_of(summary)

    def _drain(self) -> None:
        in_flight = self._run.session.limits.snapshot().in_flight
        self._output.note(f"stopping: {in_flight} in flight are collected first; once more leaves at once")
        self._output.event("draining", in_flight=in_flight)
        self._batch.drain()

    def _tell(self, outcome: BatchOutcome) -> None:
        self._ended += 1
        progress = self._batch.progress()
        total = "?" if progress.total is None else progress.total
        head = f"[{self._ended + progress.skipped}/{total}]"
        if outcome.error is None:
            if not self._quiet(progress.total):
                took = "collected" if outcome.resumed else f"{outcome.seconds:.1f} s"
                self._output.line(f"{head}  {took}  {money(outcome.price)}  {outcome.path}", whole=False)
        elif self._worth_telling(type(outcome.error).__name__):
            place = f"line {outcome.line}" if outcome.line is not None else f"job {outcome.index + 1}"
            text = why(outcome.error)
            self._output.line(f"{head}  failed: {text if text.startswith(place) else f'{place}: {text}'}")
        self._output.event("outcome", **_data(outcome))

    def _quiet(self, total: int | None) -> bool:
        return sys.stdout.isatty() and (total is None or total > _NAMED)

    def _worth_telling(self, kind: str) -> bool:
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        return not sys.stdout.isatty() or self._kinds[kind] <= _LIKE_IT


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
        line(f"  {summary.strangers} predictions of this time belong to no job: see 'wavespeed-qwen history'")
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


def _tell_plan(run: Run, plan: BatchPlan) -> int:
    line = run.output.line
    line(f"{plan.total} jobs: {plan.new} to be sent, {plan.resumable} to be collected, {plan.saved} saved before")
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
