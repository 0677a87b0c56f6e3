"""A web page that makes pictures: one session for all browsers, each picture shown as soon as it is there.

    pip install '.[emulator]' 'fastapi>=0.135' uvicorn
    python examples/service.py --emulator      # without a key; open http://127.0.0.1:8000

    export WAVESPEED_API_KEY=... TIER=silver PUBLIC_URL=https://pictures.example.com
    uvicorn --app-dir examples service:app     # results are pushed to PUBLIC_URL/wavespeed/

A browser that leaves takes back what was not sent yet. What is paid stays in its album, and a reload shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI reads annotations
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Cookie, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field

from wavespeed_qwen_async import Job, Prediction, PredictionFailed, QwenImageSession, WaveSpeedError
from wavespeed_qwen_async.webhooks import WebhookReceiver

logger = logging.getLogger("service")
PAGE = Path(__file__).with_name("service.html").read_text(encoding="utf-8")
WEEK = 7 * 24 * 3600  # seconds that the API keeps pictures
MOST_VISITORS, MOST_PICTURES = 10_000, 200


# --- who has which pictures -------------------------------------------------------------------------------------------


class Picture(BaseModel):
    """One picture, as browsers are told of it."""

    prompt: str
    id: str | None = None  # of the prediction; without one nothing was paid
    url: str | None = None
    error: str | None = None


class Albums:
    """Every paid picture, by visitor; put it into your database. In memory, the log is what outlives a restart.

    It observes the session, which tells it of each accepted submit, also where the browser has left in the meantime.
    """

    def __init__(self) -> None:
        self._albums: OrderedDict[str, list[Picture]] = OrderedDict()

    def of(self, visitor: str) -> list[Picture]:
        album = self._albums.setdefault(visitor, [])
        self._albums.move_to_end(visitor)
        if len(self._albums) > MOST_VISITORS:
            self._albums.popitem(last=False)
        return album

    def began(self, job: Job | None, *, prediction_id: str | None = None) -> Entry:  # noqa: ARG002 - see Observer
        return Entry(self.of(asked_by.get()), Picture(prompt=job.prompt if job else ""))


class Entry:
    """What happens to one picture."""

    def __init__(self, album: list[Picture], picture: Picture) -> None:
        self.album, self.picture = album, picture

    def sending(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def accepted(self, prediction: Prediction) -> None:
        logger.info("prediction %s is paid", prediction.id)
        self.picture.id = prediction.id
        self.album.append(self.picture)
        del self.album[:-MOST_PICTURES]

    def ended(self, end: Prediction | BaseException) -> None:
        if isinstance(end, Prediction):
            self.picture.url = end.outputs[0].url


asked_by: ContextVar[str] = ContextVar("asked_by")
albums = Albums()


# --- the application --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One session, as long as the application lives: it knows the account's limits for all browsers together."""
    receiver = None
    if url := os.environ.get("PUBLIC_URL"):
        receiver = WebhookReceiver(f"{url}/wavespeed/")  # with the slash: a mount redirects what comes without
        app.mount("/wavespeed", receiver.asgi)
    async with QwenImageSession(tier=os.environ.get("TIER"), webhooks=receiver, observer=albums) as app.state.session:
        yield


app = FastAPI(lifespan=lifespan)


def known_visitor(response: Response, visitor: Annotated[str | None, Cookie()] = None) -> str:
    if visitor is None:
        visitor = secrets.token_urlsafe(16)
        response.set_cookie("visitor", visitor, max_age=WEEK, httponly=True, samesite="lax")
    return visitor


Visitor = Annotated[str, Depends(known_visitor)]


class Wish(BaseModel):
    prompt: Annotated[str, Field(min_length=1, max_length=2000)]
    count: Annotated[int, Field(ge=1, le=8)] = 1  # who may ask for how much is yours to decide: each costs $0.025


@app.get("/", response_class=HTMLResponse)
async def page(visitor: Visitor) -> str:  # noqa: ARG001 - it sets the cookie
    return PAGE


@app.post("/pictures", response_class=EventSourceResponse)
async def make(wish: Wish, visitor: Visitor, request: Request) -> AsyncIterator[Picture]:
    """Make pictures, and tell of each as soon as it is there (or why it is not)."""
    asked_by.set(visitor)
    session = request.app.state.session
    pictures = [asyncio.create_task(picture_of(session, wish.prompt)) for _ in range(wish.count)]
    try:
        for next_one in asyncio.as_completed(pictures):
            yield await next_one
    finally:  # all are told, or the browser has left
        for picture in pictures:
            picture.cancel()


async def picture_of(session: QwenImageSession, prompt: str) -> Picture:
    """Cancelled between the two halves, its place in the account's limits stays taken until the picture is made."""
    try:
        prediction = await session.submit({"prompt": prompt})
        prediction = await session.result(prediction)
    except WaveSpeedError as error:
        return Picture(prompt=prompt, id=error.prediction_id, error=error.message)
    return Picture(prompt=prompt, id=prediction.id, url=prediction.outputs[0].url)


@app.get("/pictures", response_class=EventSourceResponse)
async def album(visitor: Visitor, request: Request) -> AsyncIterator[Picture]:
    """All that was paid for this visitor; what its browser did not wait for is awaited now, by its id."""
    for picture in sorted(albums.of(visitor), key=lambda picture: picture.url is None):
        if picture.id and picture.url is None and picture.error is None:
            try:
                picture.url = (await request.app.state.session.result(picture.id)).outputs[0].url
            except PredictionFailed as error:
                picture.error = error.message
            except WaveSpeedError as error:  # not now: the next reload asks again
                logger.warning("prediction %s can't be shown yet: %s", picture.id, error)
                continue
        yield picture


# --- by hand ----------------------------------------------------------------------------------------------------------


async def main(port: int, *, emulated: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        if emulated:
            from wavespeed_qwen_async.emulator import Emulator  # noqa: PLC0415 - an extra

            emulator = await stack.enter_async_context(Emulator())
            os.environ |= {"WAVESPEED_BASE_URL": emulator.url, "WAVESPEED_API_KEY": "none"}
            os.environ["PUBLIC_URL"] = f"http://127.0.0.1:{port}"
        await uvicorn.Server(uvicorn.Config(app, port=port, timeout_graceful_shutdown=5)).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--emulator", action="store_true", help="without a key, and without cost")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(given.port, emulated=given.emulator))
