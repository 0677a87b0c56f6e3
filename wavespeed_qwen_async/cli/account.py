"""What the account has and did: ``status``, ``history``, ``delete``, ``price``, ``balance``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .exits import Exit
from .output import clean, money
from .strangers import Strangers, strangers_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wavespeed_qwen_async import Job, Prediction

    from .running import Run

__all__ = ["register"]

_MAX_DELETED = 100  # ids in one request: lists are asked for in such portions, so deletions may be, too
_EXAMPLE_URL = "https://example.com/source.png"  # a price is asked for without a picture; nothing fetches this

Wait = Annotated[bool, typer.Option("--wait", help="Wait until each has ended.")]
Limit = Annotated[int, typer.Option("--limit", "-n", help="How many at most.", min=1, metavar="N")]
Status = Annotated[
    str | None, typer.Option(help="Only those: created, processing, completed, failed ...", metavar="STATUS")
]
Model = Annotated[str | None, typer.Option(help="Only those of this model, as edit-lora.", metavar="NAME")]
Since = Annotated[
    float | None, typer.Option(help="Only those of the last hours (the API keeps 7 days).", min=0.0, metavar="HOURS")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
PriceModel = Annotated[str, typer.Option("--model", help="Any model of generate or edit.", metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    options.command(app, example="wavespeed-qwen status 0a5d2f346baa9455e3e70682c2094cac --wait")(status)
    options.command(app, example="wavespeed-qwen history --status failed --since 24")(history)
    options.command(app, example="wavespeed-qwen delete 0a5d2f346baa9455e3e70682c2094cac --yes")(delete)
    options.command(app, example="wavespeed-qwen price --model edit-lora --count 1000")(price)
    options.command(app, example="wavespeed-qwen balance --emulator")(balance)


async def status(
    run: Run,
    *,
    ids: options.Ids,
    wait: Wait = False,
    timeout: options.Timeout = None,
) -> int:
    """Tell how predictions stand."""
    from wavespeed_qwen_async import PredictionFailed, WaveSpeedError  # noqa: PLC0415 - --help needs none of it

    code = Exit.OK
    for prediction_id in ids:
        try:
            if wait:
                try:
                    await run.session.result(prediction_id, timeout=timeout)
                except PredictionFailed:
                    code = Exit.FAILED
            _tell(run, await run.session.prediction(prediction_id))
        except WaveSpeedError as error:
            code = run.output.failed(error, about=prediction_id)
    return code


async def history(
    run: Run,
    *,
    limit: Limit = 20,
    status: Status = None,
    model: Model = None,
    since: Since = None,
    strangers: Strangers = None,
) -> int:
    """List the account's predictions, newest first."""
    found: AsyncGenerator[Prediction, None]
    if strangers is None:
        found = run.session.predictions(
            status=status,
            model=None if model is None else _model_id(model),
            created_after=None if since is None else datetime.now(UTC) - timedelta(hours=since),
        )
    elif (status, model, since) == (None, None, None):
        found = strangers_of(run, strangers)
    else:
        from wavespeed_qwen_async import InvalidJobError  # noqa: PLC0415 - --help needs none of it

        raise InvalidJobError("--strangers lists all there are: leave out --status, --model and --since")
    count = 0
    async for prediction in found:
        _tell(run, prediction)
        count += 1
        if count == limit:
            break
    await found.aclose()
    if not count:
        run.output.note("no predictions")
    return Exit.OK


async def delete(
    run: Run,
    *,
    ids: options.Ids,
    yes: Yes = False,
) -> int:
    """Remove records of predictions, and with them the way to their images. Stops and refunds nothing."""
    if not yes and not _agreed(f"Remove {len(ids)} predictions?"):
        run.output.note("nothing removed: pass --yes, or answer y on a terminal")
        return Exit.USAGE
    rest, removed = iter(ids), 0
    while portion := list(islice(rest, _MAX_DELETED)):
        removed += await run.session.delete(*portion)
    run.output.line(f"{removed} of {len(ids)} removed")
    run.output.event("deleted", count=removed, asked=len(ids))
    return Exit.OK if removed == len(ids) else Exit.FAILED


async def price(
    run: Run,
    *,
    model: PriceModel = "text-to-image-lora",
    size: options.Size = None,
    count: options.Count = 1,
) -> int:
    """Tell what images cost."""
    answer = await run.session.price(_some_job(model, size))
    source = "as the API says" if answer.source == "api" else "per the API's pages; the API itself gives no price"
    for_all = f", {money(answer.amount * count)} for {count}" if count > 1 else ""
    run.output.line(f"{money(answer.amount)} an image{for_all} ({answer.currency}, {source})")
    run.output.event(
        "price",
        model=_model_id(model),
        amount=answer.amount,
        full_amount=answer.full_amount,
        currency=answer.currency,
        source=answer.source,
        count=count,
        total=round(answer.amount * count, 6),
    )
    return Exit.OK


async def balance(run: Run) -> int:
    """Tell the account's balance."""
    amount = await run.session.balance()
    run.output.line(money(amount))
    run.output.event("balance", amount=amount, currency="USD")
    return Exit.OK


def _tell(run: Run, prediction: Prediction) -> None:
    made = prediction.created_at
    when = "?" if made is None else made.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    inputs = prediction.inputs or {}
    words = [prediction.id, f"{prediction.status:<10}", when, prediction.model.rpartition("/")[2]]
    if prediction.error:
        words.append(f"error: {clean(prediction.error)}")
    elif prediction.raw_outputs:
        words += [clean(output.url or "(base64)") for output in prediction.outputs]
    if inputs.get("prompt"):
        words.append(f'"{_short(clean(str(inputs["prompt"])))}"')
    run.output.line("  ".join(words))
    run.output.event("prediction", **_data(prediction))


def _data(prediction: Prediction) -> dict[str, Any]:
    return {
        "id": prediction.id,
        "status": prediction.status,
        "model": prediction.model,
        "created_at": prediction.created_at,
        "outputs": [output.url for output in prediction.outputs if output.url],
        "nsfw": list(prediction.has_nsfw_contents),
        "error": prediction.error,
        "code": prediction.code,
        "inputs": prediction.inputs,
    }


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _model_id(model: str) -> str:
    from wavespeed_qwen_async.models import MODEL_PREFIX  # noqa: PLC0415 - --help needs none of it

    return MODEL_PREFIX + model.removeprefix(MODEL_PREFIX)


def _some_job(model: str, size: str | None) -> Job:
    from wavespeed_qwen_async.models import as_job, takes_several  # noqa: PLC0415 - --help needs none of it

    job: dict[str, Any] = {"model": model, "prompt": "a price"}
    if size is not None:
        job["size"] = size
    short = _model_id(model).rpartition("/")[2]
    if takes_several(short):
        job["images"] = [_EXAMPLE_URL]
    elif short.startswith("edit"):
        job["image"] = _EXAMPLE_URL
    return as_job(job)


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(question)
