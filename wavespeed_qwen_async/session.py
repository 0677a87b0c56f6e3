"""``QwenImageSession``: submit and await, one job or a million."""

from __future__ import annotations

import functools
import logging
import os
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from . import _account, _options
from ._api import Api
from ._engine import Engine
from ._options import as_timeout, checked_on_unknown, checked_wait, chosen_limits, made, seconds, sources_of
from ._origin import DEFAULT_BASE_URL
from ._stream import Flow
from ._tasks import Tasks
from ._transport import Transport
from .errors import ConfigurationError, SessionClosedError
from .media import Media
from .models import Edit, TextToImage, as_job
from .predictions import Output, Prediction
from .provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import TracebackType
    from typing import Any, BinaryIO, Self

    import aiohttp
    from PIL.Image import Image as PILImage

    from ._answers import Price
    from ._inputs import ImageSource, LoraLike, SizeLike
    from ._options import WaitMode
    from ._retry import Retry
    from ._transport import Timeout
    from .limits import AccountTier, Limiter
    from .models import EditModel, Job, OutputFormat, TextToImageModel
    from .observer import Observer
    from .predictions import Outcome
    from .webhooks import WebhookReceiver

__all__ = ["QwenImageSession"]

_logger = logging.getLogger(__name__)

_CLOSING_GRACE = 10.0  # seconds for submits under way to tell the ids of what they paid


class QwenImageSession:
    """An account's access to the Qwen-Image models: jobs in, finished predictions out.

    Use it with ``async with``, once for the whole life of an application::

        async with QwenImageSession(tier="silver") as session:
            image = await session.generate("a red fox, ink wash")
            await image.save("fox.jpg")

    Args:
        api_key: The account's key; default: ``WAVESPEED_API_KEY``. Goes to the API's origin only.
        base_url: Where the API is, may carry a path; default: ``WAVESPEED_BASE_URL``, else https://api.wavespeed.ai.
        tier: ``"bronze"``, ``"silver"``, ``"gold"`` or ``"ultra"``: what the account may do. Not given, silver
            is assumed and corrected by the server's refusals.
        limits: A :class:`Limits` instead of a tier, which several sessions may share, or another ``Limiter``.
        max_per_minute: Submits a minute, in place of the tier's figure.
        max_in_flight: Predictions at once, in place of the tier's figure.
        timeout: Seconds from an accepted submit until its result, or a :class:`Timeout` with each of its parts.
        retry: How long to keep trying what may be tried again, a :class:`Retry`.
        wait: How results are awaited. ``"auto"``: many by the list of predictions, few one by one; ``"poll"``: one by
            one; ``"sync"``: each submit is held until its image is there; ``"webhook"``: pushed to ``webhooks``.
        webhooks: A :class:`~wavespeed_qwen_async.webhooks.WebhookReceiver` mounted in your web application.
        client_session: An ``aiohttp.ClientSession`` of yours to send with; it is not closed here.
        proxy: URL of an HTTP proxy; default: HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
        on_unknown: What happens when a submit's answer is lost. ``"reconcile"``: it is looked for in the account's
            list of predictions, adopted if it is there, and sent again only if it is shown that it never arrived;
            this can take minutes, and ends as ``SubmissionUnknown`` if nothing is certain. ``"raise"``: that at once.
        nsfw: Flagged images: ``"keep"`` them as any other; ``"skip"``: saving one raises ContentFlaggedError, nothing
            is fetched; ``"fail"``: the job itself ends with ContentFlaggedError.
        media: Further options of :class:`~wavespeed_qwen_async.media.Media`: ``fit``, ``autorotate``, ``check_urls``,
            ``embed=False`` to leave saved images without their making.
        observer: An :class:`~wavespeed_qwen_async.observer.Observer`, told of each job and of each of its submits.
        rng: Draws seeds and waits; pass a seeded ``random.Random`` to make a run repeat.

    Raises:
        ConfigurationError: no key, a base URL that is none, an option out of range.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        tier: AccountTier | str | None = None,
        limits: Limiter | None = None,
        max_per_minute: int | None = None,
        max_in_flight: int | None = None,
        timeout: float | timedelta | Timeout | None = None,
        retry: Retry | None = None,
        wait: WaitMode = "auto",
        webhooks: WebhookReceiver | None = None,
        client_session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        on_unknown: Literal["reconcile", "raise"] = "reconcile",
        nsfw: Literal["keep", "skip", "fail"] = "keep",
        media: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._state: Literal["new", "open", "closed"] = "new"
        self._tasks = Tasks()
        rng = rng or random.Random()  # noqa: S311 - seeds of images, not of secrets
        transport = Transport(
            api_key=os.environ.get("WAVESPEED_API_KEY", "") if api_key is None else api_key,
            base_url=base_url or os.environ.get("WAVESPEED_BASE_URL") or DEFAULT_BASE_URL,
            timeout=as_timeout(timeout),
            proxy=proxy,
            client_session=client_session,
        )
        self._limits = chosen_limits(limits, tier, max_per_minute, max_in_flight)
        self._api = Api(transport, self._limits, retry=_options.checked_retry(retry), rng=rng)
        self._media = Media(self._api, self._tasks, nsfw=nsfw, **_options.checked_media(media))
        self._engine = Engine(
            self._api,
            self._media,
            self._tasks,
            fetcher=self,
            wait=checked_wait(wait, webhooks),
            webhooks=webhooks,
            rng=rng,
            reconcile=checked_on_unknown(on_unknown),
            observer=observer,
        )

    def __repr__(self) -> str:
        return f"<QwenImageSession {self._state} {self._api.transport.base_url} api_key='***' {self._limits!r}>"

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise SessionClosedError(f"the session is {self._state}: make a new one")
        await self._engine.open()
        self._state = "open"
        if self._limits.assumed:
            _logger.info("no tier given: starting with silver's limits and learning; set tier= to yours")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End everything: submits under way get a moment to tell the ids of what they paid, then nothing is left."""
        state, self._state = self._state, "closed"
        if state == "open":
            try:
                await self._engine.close(_CLOSING_GRACE)
            finally:
                await self._tasks.close()

    @property
    def limits(self) -> Limiter:
        """The account's limits as they stand; ``limits.snapshot()`` for progress bars and metrics."""
        return self._limits

    # --- one job ------------------------------------------------------------------------------------------------------

    async def generate(
        self,
        prompt: str,
        *,
        size: SizeLike | None = None,
        loras: Sequence[LoraLike] | None = None,
        seed: int | None = None,
        output_format: OutputFormat | None = None,
        model: TextToImageModel | None = None,
        enable_sync_mode: bool | None = None,
        enable_base64_output: bool | None = None,
        timeout: float | timedelta | None = None,
    ) -> Prediction:
        """Make one image; the parameters are those of :class:`TextToImage`, ``timeout`` as in :meth:`result`.

        Raises:
            InvalidJobError: names the field, the value and the fix; nothing was sent.
            WaveSpeedError: see its ``billed``.
        """
        job = made(
            TextToImage,
            prompt=prompt,
            size=size,
            loras=loras,
            seed=seed,
            output_format=output_format,
            model=model,
            enable_sync_mode=enable_sync_mode,
            enable_base64_output=enable_base64_output,
        )
        return await self.run(job, timeout=timeout)

    async def edit(
        self,
        image: ImageSource | Prediction | Output | Sequence[ImageSource | Prediction | Output],
        prompt: str,
        *,
        size: SizeLike | None = None,
        loras: Sequence[LoraLike] | None = None,
        seed: int | None = None,
        output_format: OutputFormat | None = None,
        model: EditModel | None = None,
        enable_sync_mode: bool | None = None,
        enable_base64_output: bool | None = None,
        timeout: float | timedelta | None = None,
    ) -> Prediction:
        """Change an image; the parameters are those of :class:`Edit`, ``timeout`` as in :meth:`result`.

        ``image`` may also be a finished prediction or one of its outputs, and a list of these for the models that take
        several.

        Raises:
            InvalidJobError: names the field, the value and the fix; nothing was sent.
            WaveSpeedError: see its ``billed``.
        """
        job = made(
            Edit,
            prompt=prompt,
            size=size,
            loras=loras,
            seed=seed,
            output_format=output_format,
            model=model,
            enable_sync_mode=enable_sync_mode,
            enable_base64_output=enable_base64_output,
            **sources_of(image, model),
        )
        return await self.run(job, timeout=timeout)

    async def run(self, job: Job | Mapping[str, Any], *, timeout: float | timedelta | None = None) -> Prediction:
        """Submit a job and await its result.

        Cancelled, it leaves the books right: what was not sent is not sent, and the id of a prediction that is already
        paid is logged, since ``result(id)`` still gets its image.

        Raises:
            WaveSpeedError: see its ``billed``.
        """
        return await self._engine.run(job, seconds(timeout))

    async def submit(self, job: Job | Mapping[str, Any]) -> Prediction:
        """Submit a job; the first half of :meth:`run`.

        Its place among the account's predictions at once is held until it has ended, whether or not it is awaited.

        Raises:
            WaveSpeedError: see its ``billed``.
        """
        return await self._engine.submit_and_hold(job)

    async def result(self, prediction: Prediction | str, *, timeout: float | timedelta | None = None) -> Prediction:
        """Await a prediction, by itself or by its id, also one of another process.

        Args:
            prediction: What ``submit`` gave, or an id.
            timeout: Seconds from now; default: the session's.

        Raises:
            PredictionFailed: (and its kin) it ended without an image; it is refunded within 3 hours.
            ResultTimeout: it goes on; ask again later.
            WaveSpeedError: it could not be asked for.
        """
        self._engine.check_open()
        _options.id_of(prediction)
        job = prediction.job if isinstance(prediction, Prediction) else None
        return await self._engine.result(prediction, seconds(timeout), job)

    # --- many jobs ----------------------------------------------------------------------------------------------------

    async def stream(
        self,
        jobs: Iterable[Job | Mapping[str, Any]] | AsyncIterable[Job | Mapping[str, Any]],
        *,
        ordered: bool = False,
        max_in_flight: int | None = None,
        timeout: float | timedelta | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Run many jobs; yields an outcome for each, as they finish or, ``ordered``, in the source's order.

        Jobs are pulled lazily: never more than ``max_in_flight`` (default: the limits') are between source and
        consumer, so that a slow consumer slows the submits. A failing job is an outcome. What the source raises is
        raised here after what is in flight was yielded; so is an error after which no job can succeed (a wrong key, no
        credits, endless refusals, the session closed meanwhile), after its own outcome.

        Leaving early cancels what is in flight; ids of paid predictions are logged. ``contextlib.aclosing`` makes the
        moment of leaving certain.
        """
        self._engine.check_open()
        window = self._limits.max_in_flight if max_in_flight is None else max_in_flight
        if window < 1:
            raise ConfigurationError(f"max_in_flight = {max_in_flight!r}: give 1 or more")
        flow = Flow(
            jobs,
            functools.partial(self._engine.launch, timeout=seconds(timeout)),
            window=window,
            ordered=ordered,
            exchanges=self._api.exchanges,
        )
        outcomes = flow.outcomes()
        try:
            async for outcome in outcomes:
                yield outcome
        finally:
            await outcomes.aclose()
            await flow.settle(_CLOSING_GRACE)

    # --- pictures -----------------------------------------------------------------------------------------------------

    async def upload(self, source: ImageSource | BinaryIO) -> str:
        """Upload a path, bytes, a binary file or a PIL image, the same content only once; gives its URL for 7 days.

        Raises:
            InvalidJobError: it is no image of a supported format, unreadable, or over 20 MB.
            UploadError: it did not reach the API.
        """
        self._engine.check_open()
        return await self._media.upload(source)

    async def download(self, what: Prediction | Output | str, path: str | os.PathLike[str]) -> Path:
        """Save a prediction's only image, an output, or what is behind an output's URL, to ``path``.

        Raises:
            DownloadError: it could not be fetched or written; it is still paid and kept for 7 days.
        """
        self._engine.check_open()
        if isinstance(what, Prediction):
            return await what.bound(None, self).save(path)
        return await self.save_output(_options.output_of(what), path)

    async def save_output(self, output: Output, path: str | os.PathLike[str]) -> Path:
        """What ``Output.save`` does: the image is saved with its making written into it, its pixels untouched."""
        known = output.prediction
        provenance = None if known is None else Provenance.of(known, output=output.index)
        return await self._media.save(output, path, provenance=provenance)

    async def read_output(self, output: Output) -> bytes:
        """What ``Output.bytes`` does."""
        return await self._media.read(output)

    async def open_output(self, output: Output) -> PILImage:
        """What ``Output.pil`` does."""
        return await self._media.open(output)

    # --- the account --------------------------------------------------------------------------------------------------

    async def prediction(self, prediction_id: Prediction | str) -> Prediction:
        """A prediction, by itself or by its id, as it stands now, failed ones too; ``result`` awaits its end.

        Raises:
            NotFoundError: the API does not know it, or no longer.
        """
        self._engine.check_open()
        return (await _account.prediction(self._api, _options.id_of(prediction_id))).bound(None, self)

    async def predictions(
        self,
        *,
        model: str | None = None,
        status: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncGenerator[Prediction, None]:
        """The account's predictions of the last 7 days, newest first, page by page as they are wanted."""
        self._engine.check_open()
        listed = _account.listed(
            self._api, model=model, status=status, created_after=created_after, created_before=created_before
        )
        async with aclosing(listed):
            async for prediction in listed:
                yield prediction.bound(None, self)

    async def delete(self, *predictions: Prediction | str) -> int:
        """Remove records of predictions; gives how many were. It neither stops nor refunds a running one."""
        self._engine.check_open()
        ids = [_options.id_of(item) for item in predictions]
        return await _account.delete(self._api, ids) if ids else 0

    async def balance(self) -> float:
        """The account's balance in USD."""
        self._engine.check_open()
        return await _account.balance(self._api)

    async def price(self, job: Job | Mapping[str, Any]) -> Price:
        """What one image of this job costs: as the API says, else $0.025, the figure of both pages."""
        self._engine.check_open()
        return await _account.price_of(self._api, as_job(job))
