"""Questions about the account: its predictions, one by one or page by page, its balance, the price of a job."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from . import _answers, _wire
from .errors import InvalidResponseError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ._api import Api
    from .models import Job
    from .predictions import Prediction

__all__ = ["PRICE_ON_THE_PAGES", "balance", "delete", "listed", "prediction", "price_of"]

PRICE_ON_THE_PAGES = 0.025  # USD an image, per both pages; asked of the API first


async def listed(
    api: Api,
    *,
    model: str | None = None,
    status: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> AsyncGenerator[Prediction, None]:
    """The account's predictions of the last 7 days, newest first, page by page as they are wanted."""
    page = 1
    while True:
        request = _wire.list_request(
            page=page, model=model, status=status, created_after=created_after, created_before=created_before
        )
        found = await api.ask(request, _answers.read_page)
        if page == 1 and created_before is None and found and found[0].created_at is not None:
            # New predictions would push those of page 1 onto page 2; the last digits of the time are cut off.
            created_before = found[0].created_at + timedelta(microseconds=1)
        for prediction in found:
            yield prediction
        if len(found) < _wire.MAX_PAGE_SIZE:
            return
        page += 1


async def prediction(api: Api, prediction_id: str) -> Prediction:
    """A prediction as it stands now."""

    def read(answer: _answers.Answer) -> Prediction:
        return _answers.read_prediction(answer, prediction_id)

    return await api.ask(_wire.result_request(prediction_id), read)


async def delete(api: Api, ids: Sequence[str]) -> int:
    """Remove records of predictions; gives how many were."""
    return await api.ask(_wire.delete_request(ids), _answers.read_deleted_count)


async def balance(api: Api) -> float:
    """The account's balance in USD."""
    return await api.ask(_wire.balance_request(), _answers.read_balance)


async def price_of(api: Api, job: Job) -> _answers.Price:
    """What one image of a job costs: as either of the API's two endpoints says, else the figure of both pages."""
    inputs = _wire.inputs_of(job, [source for source in job.sources if isinstance(source, str)])
    for request in (_wire.price_request, _wire.unit_price_request):
        try:
            return await api.ask(request(job.model_id, inputs), _answers.read_price)
        except (NotFoundError, InvalidResponseError):
            continue
    return _answers.Price(PRICE_ON_THE_PAGES, source="pages")
