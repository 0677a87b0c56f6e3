"""How an image came to be, written into the image itself, where the image tools of this field look for it.

PNG gets the text chunks ``parameters`` (as AUTOMATIC1111's web UI writes and Civitai, SD Prompt Reader and others read
it) and ``wavespeed`` (JSON); JPEG and WebP get the same as EXIF UserComment and MakerNote. No pixel is touched.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ._inputs import is_url
from ._media import containers
from ._media.images import measure, sniff
from ._version import __version__
from .models import Edit

if TYPE_CHECKING:
    from ._media.containers import Splice
    from ._media.images import Reader
    from .models import Job
    from .predictions import Prediction

__all__ = ["Provenance", "embed", "extract", "splices"]

SOFTWARE = f"wavespeed_qwen_async {__version__}"
KEYWORD = "wavespeed"
_CUT = "\u2026"
_SEPARATES = re.compile('[,:\n"]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What is known about an image's making; what is None is left out.

    Attributes:
        prediction_id: The prediction that it is an output of.
        job: The job, its seed drawn. Of source images the URL or the file's name is kept, never a folder; of all URLs,
            LoRAs' too, no query.
        model: The model's whole name.
        price: What the image cost.
        currency: Of the price.
        created_at: When the server made the prediction.
        saved_at: When the image was saved.
        inference_ms: How long the model worked, in milliseconds.
        output: The image's place among the prediction's outputs, from 0.
    """

    prediction_id: str = ""
    job: Job | None = None
    model: str = ""
    price: float | None = None
    currency: str = "USD"
    created_at: datetime | None = None
    saved_at: datetime | None = None
    inference_ms: float | None = None
    output: int = 0

    @classmethod
    def of(
        cls,
        prediction: Prediction,
        *,
        output: int = 0,
        price: float | None = None,
        currency: str = "USD",
        saved_at: datetime | None = None,
    ) -> Provenance:
        """What a finished prediction tells; ``saved_at`` defaults to now."""
        job = prediction.job
        inference = prediction.timings.get("inference")
        return cls(
            prediction_id=prediction.id,
            job=job,
            model=prediction.model or (job.model_id if job else ""),
            price=price,
            currency=currency,
            created_at=prediction.created_at,
            saved_at=saved_at or datetime.now(UTC),
            inference_ms=inference if isinstance(inference, int | float) else None,
            output=output,
        )

    def record(self) -> dict[str, Any]:
        """All of it as plain values for JSON, in the words of the API; also what ``results.jsonl`` keeps."""
        job = self.job
        known = {
            "software": SOFTWARE,
            "prediction_id": self.prediction_id,
            "output": self.output or None,
            "model": self.model,
            **({} if job is None else _job_record(job)),
            "price": self.price,
            "currency": self.currency if self.price is not None else None,
            "created_at": self.created_at and self.created_at.isoformat(),
            "saved_at": self.saved_at and self.saved_at.isoformat(timespec="seconds"),
            "inference_ms": self.inference_ms,
        }
        return {name: value for name, value in known.items() if value is not None and value != ""}

    def parameters(self, width: int = 0, height: int = 0) -> str:
        """The text that AUTOMATIC1111's web UI writes: the prompt, then one line of ``name: value`` pairs."""
        job = self.job
        # The API tells no steps; but Civitai and SD Prompt Reader know the text by "Steps:", so it says 0.
        pairs: dict[str, Any] = {"Steps": 0}
        if job is not None and job.seed is not None and job.seed >= 0:
            pairs["Seed"] = job.seed
        if width and height:
            pairs["Size"] = f"{width}x{height}"
        pairs["Model"] = self.model
        for number, lora in enumerate(job.loras or () if job else ()):
            pairs[f"Lora {number}"] = without_query(lora.path)
            pairs[f"Lora {number} scale"] = lora.scale
        pairs["Prediction"] = self.prediction_id
        if self.price is not None:
            pairs["Price"] = f"{self.price:g} {self.currency}"
        if self.created_at is not None:
            pairs["Created"] = self.created_at.isoformat()
        pairs["Version"] = SOFTWARE
        line = ", ".join(f"{name}: {_quoted(value)}" for name, value in pairs.items() if value != "")
        return f"{job.prompt.strip()}\n{line}" if job else line


def splices(read: Reader, size: int, provenance: Provenance) -> list[Splice]:
    """What to change in an image of ``size`` bytes, read by ``read(offset, length)``.

    Nothing in other formats, and where the headers are damaged: the image is paid, and worth more than what it tells.
    """
    try:
        return _splices(read, size, provenance)
    except (struct.error, IndexError):
        return []


def _splices(read: Reader, size: int, provenance: Provenance) -> list[Splice]:
    kind = sniff(read(0, 32))
    info = measure(read)
    text = provenance.parameters(info.width, info.height) if info else provenance.parameters()
    record = provenance.record()
    if kind == "png":
        return containers.png_splices(read, {"parameters": text, KEYWORD: json.dumps(record, ensure_ascii=False)})

    def renewed(exif: bytes) -> bytes:
        return _fitting_exif(text, record, orientation=containers.read_exif(exif)[2])

    if kind == "jpeg":
        return containers.jpeg_splices(read, renewed)
    if kind == "webp":
        return containers.webp_splices(read, size, renewed)
    return []


def embed(data: bytes, provenance: Provenance) -> bytes:
    """The image with its provenance in it; formats other than PNG, JPEG and WebP stay as they are."""
    read = _reader(data)
    return b"".join(containers.pieces(read, len(data), splices(read, len(data), provenance), len(data) or 1))


def extract(data: bytes) -> tuple[str, dict[str, Any]]:
    """What ``embed`` wrote: the parameters' text and the record; empty where there is none."""
    read = _reader(data)
    match sniff(data[:32]):
        case "png":
            texts = containers.png_texts(read)
            text, note = texts.get("parameters", ""), texts.get(KEYWORD, "")
        case "jpeg" | "webp":
            text, note, _ = containers.read_exif(containers.exif_of(read, len(data)))
        case _:
            return "", {}
    try:
        record = json.loads(note) if note else {}
    except ValueError:
        record = {}
    return text, record if isinstance(record, dict) else {}


def _fitting_exif(text: str, record: dict[str, Any], orientation: int) -> bytes:
    """All of it; else without the prompt in the record, which the text has too; else with the prompt cut."""

    def made(text: str, record: dict[str, Any]) -> bytes:
        return containers.make_exif(text, software=SOFTWARE, note=json.dumps(record), orientation=orientation)

    exif = made(text, record)
    if len(exif) > containers.EXIF_LIMIT:
        record = {name: value for name, value in record.items() if name != "prompt"}
        exif = made(text, record)
    if len(exif) > containers.EXIF_LIMIT:
        prompt, _, line = text.rpartition("\n")
        kept = max(0, len(prompt) - (len(exif) - containers.EXIF_LIMIT) // 2 - 8)
        exif = made(f"{prompt[:kept]}{_CUT}\n{line}", record)
    return exif if len(exif) <= containers.EXIF_LIMIT else made(text.rpartition("\n")[2][:1000], {})


def _job_record(job: Job) -> dict[str, Any]:
    loras = [{"path": without_query(lora.path), "scale": lora.scale} for lora in job.loras or ()]
    record: dict[str, Any] = {
        "prompt": job.prompt,
        "seed": job.seed,
        "size": str(job.size) if job.size else None,
        "loras": loras or None,
        "output_format": job.output_format,
    }
    if isinstance(job, Edit):
        record["images"] = [_source_name(source) for source in job.sources]
    return record


def _source_name(source: Any) -> str:
    if isinstance(source, str) and is_url(source):
        return without_query(source)
    return PurePath(source).name if isinstance(source, str | PurePath) else f"({type(source).__name__})"


def without_query(place: str) -> str:
    """A query may carry a signature or somebody's token, and images are given away."""
    return place.partition("?")[0] if is_url(place) else place


def _quoted(value: Any) -> str:
    """As the web UI quotes what would be read as more than one value."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if _SEPARATES.search(text) else text


def _reader(data: bytes) -> Reader:
    return lambda offset, length: data[offset : offset + length]
