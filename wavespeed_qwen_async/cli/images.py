"""``generate`` and ``edit``: one image, or a few of the same."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from . import options
from .exits import Exit
from .threads import aside

if TYPE_CHECKING:
    import typer

    from wavespeed_qwen_async import Job, Outcome, WaveSpeedError

    from .running import Run
    from .targets import Target

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    options.command(app, example='wavespeed-qwen generate "a red fox, ink wash" -o fox.jpg --emulator')(generate)
    options.command(app, example='wavespeed-qwen edit fox.jpg "make it snow" -o snow.jpg --emulator')(edit)


async def generate(
    run: Run,
    *,
    prompt: options.Prompt,
    out: options.Out = None,
    count: options.Count = 1,
    size: options.Size = None,
    lora: options.Loras = None,
    seed: options.Seed = None,
    output_format: options.OutputFormat = None,
    model: options.GenerateModel = None,
    sync: options.Sync = False,
    base64: options.Base64 = False,
    timeout: options.Timeout = None,
    overwrite: options.Overwrite = False,
) -> int:
    """Make an image from a text."""
    from wavespeed_qwen_async import TextToImage  # noqa: PLC0415 - heavy, and --help needs none of it

    given = {"prompt": prompt, "size": size, "loras": lora, "model": model}
    return await _make(
        run,
        TextToImage,
        given | _flags(sync=sync, base64=base64),
        out=out,
        count=count,
        seed=seed,
        output_format=output_format,
        timeout=timeout,
        overwrite=overwrite,
    )


async def edit(
    run: Run,
    *,
    image: options.Source,
    prompt: options.Prompt,
    also: options.Also = None,
    out: options.Out = None,
    count: options.Count = 1,
    size: options.Size = None,
    lora: options.Loras = None,
    seed: options.Seed = None,
    output_format: options.OutputFormat = None,
    model: options.EditModel = None,
    sync: options.Sync = False,
    base64: options.Base64 = False,
    timeout: options.Timeout = None,
    overwrite: options.Overwrite = False,
) -> int:
    """Change an image by a text."""
    from wavespeed_qwen_async import Edit  # noqa: PLC0415 - heavy, and --help needs none of it
    from wavespeed_qwen_async._options import sources_of  # noqa: PLC0415

    given = {"prompt": prompt, "size": size, "loras": lora, "model": model}
    return await _make(
        run,
        Edit,
        given | sources_of([image, *(also or [])], model) | _flags(sync=sync, base64=base64),
        out=out,
        count=count,
        seed=seed,
        output_format=output_format,
        timeout=timeout,
        overwrite=overwrite,
    )


def _flags(*, sync: bool, base64: bool) -> dict[str, Any]:
    """What was not asked for is left out of the job."""
    return {"enable_sync_mode": sync or None, "enable_base64_output": base64 or None}


async def _make(
    run: Run,
    kind: type[Job],
    given: dict[str, Any],
    *,
    out: options.Out,
    count: int,
    seed: int | None,
    output_format: options.OutputFormat,
    timeout: float | None,
    overwrite: bool,
) -> int:
    from wavespeed_qwen_async._options import made  # noqa: PLC0415 - heavy, and --help needs none of it

    from .targets import Target, format_of  # noqa: PLC0415

    given["output_format"] = await aside(format_of, out, output_format)
    jobs = [made(kind, **given, seed=seed if seed is None or seed < 0 else seed + place) for place in range(count)]
    target = await aside(Target, out, count=count, overwrite=overwrite)
    await aside(target.check)
    return await _Making(run, target).all_of(jobs, timeout)


class _Making:
    """A few images on their way."""

    def __init__(self, run: Run, target: Target) -> None:
        self._run = run
        self._target = target
        self._code = Exit.OK
        self._last: WaveSpeedError | None = None

    async def all_of(self, jobs: list[Job], timeout: float | None) -> Exit:
        """Make and save them; returns the exit code of the last failure."""
        from wavespeed_qwen_async import WaveSpeedError  # noqa: PLC0415 - heavy, and --help needs none of it

        from .progress import waiting  # noqa: PLC0415

        what = "waiting for an image" if len(jobs) == 1 else f"waiting for {len(jobs)} images"
        try:
            stream: Any = self._run.session.stream(jobs, ordered=True, timeout=timeout)
            async with waiting(self._run.output, what), aclosing(stream) as outcomes:
                async for outcome in outcomes:
                    await self._landed(outcome)
        except WaveSpeedError as error:  # the stream repeats at its end the error that ended it
            if error is not self._last:
                raise
        return self._code

    async def _landed(self, outcome: Outcome) -> None:
        from wavespeed_qwen_async import WaveSpeedError  # noqa: PLC0415 - see above

        try:
            await self._save(outcome)
        except WaveSpeedError as error:
            self._last = error
            self._code = self._run.output.failed(error)

    async def _save(self, outcome: Outcome) -> None:
        from .targets import name_of  # noqa: PLC0415 - see above

        prediction = outcome.unwrap()
        assert outcome.job is not None  # noqa: S101 - what has a prediction was a job
        path = await aside(self._target.path, outcome.index, name_of(outcome.job))
        await prediction.save(path)
        seed = outcome.job.seed
        self._run.output.line(f"{path}  seed {seed}, {outcome.seconds:.1f} s, prediction {prediction.id}")
        self._run.output.event(
            "image",
            path=str(path),
            prediction_id=prediction.id,
            model=outcome.job.model_id,
            seed=seed,
            seconds=round(outcome.seconds, 3),
            nsfw=prediction.outputs[0].nsfw,
        )
