"""Jobs in: what can be asked of the two models and their siblings, every range checked before anything is sent."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from ._inputs import Image, Lora, Size, Value, not_bool
from .errors import InvalidJobError

if TYPE_CHECKING:
    import random
    from typing import Self

    from ._inputs import ImageSource, LoraLike, SizeLike

__all__ = [
    "MAX_LORAS",
    "MAX_SEED",
    "MODEL_PREFIX",
    "Edit",
    "EditModel",
    "Job",
    "LargeSizeWarning",
    "Lora",
    "OutputFormat",
    "Size",
    "TextToImage",
    "TextToImageModel",
    "as_job",
    "invalid_job",
    "takes_several",
]

MODEL_PREFIX = "wavespeed-ai/qwen-image/"
MAX_LORAS = 3
MAX_SEED = 2_147_483_647
MAX_IMAGES = 3

TextToImageModel = Literal["text-to-image-lora", "text-to-image", "text-to-image-2512-lora"]
EditModel = Literal["edit-lora", "edit", "edit-plus", "edit-plus-lora", "edit-2511", "edit-2511-lora"]
OutputFormat = Literal["jpeg", "png", "webp"]
_MODELS: tuple[str, ...] = (*get_args(TextToImageModel), *get_args(EditModel))


class LargeSizeWarning(UserWarning):
    """A size that one half of the text-to-image page allows and the other does not."""


def _short_model(value: Any) -> Any:
    return value.removeprefix(MODEL_PREFIX) if isinstance(value, str) else value


class Job(Value):
    """What both kinds of job have in common; make a :class:`TextToImage` or an :class:`Edit`."""

    model: Annotated[str, BeforeValidator(_short_model)]
    prompt: str
    size: Size | None = None
    loras: tuple[Lora, ...] | None = None
    seed: Annotated[int, BeforeValidator(not_bool), Field(ge=-1, le=MAX_SEED)] | None = None
    output_format: OutputFormat | None = None
    enable_sync_mode: bool | None = None
    enable_base64_output: bool | None = None

    @field_validator("prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        if not prompt or prompt.isspace():
            raise ValueError("the prompt is empty: say what the image should show")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError("the prompt holds half a character (a lone surrogate): read the text as UTF-8") from None
        return prompt

    @field_validator("loras", mode="before")
    @classmethod
    def _check_loras(cls, loras: Any) -> Any:
        if isinstance(loras, str | Mapping | Lora):
            raise ValueError("loras takes a list: put the one LoRA into [...]")  # noqa: TRY004 - pydantic's way
        if isinstance(loras, Sequence) and len(loras) > MAX_LORAS:
            raise ValueError(f"{len(loras)} LoRAs given, at most {MAX_LORAS} can be applied (per both pages)")
        return loras

    @model_validator(mode="after")
    def _check_model_takes_loras(self) -> Self:
        if self.loras and not self.model.endswith("-lora"):
            raise ValueError(f"model {self.model!r} takes no loras: choose a sibling with '-lora' at its end")
        return self

    @property
    def model_id(self) -> str:
        """The whole name of the model, as the API's paths have it."""
        return MODEL_PREFIX + self.model

    @property
    def sources(self) -> tuple[Any, ...]:
        """The source images: URLs, paths, bytes or PIL images; empty for text to image."""
        return ()

    def seeded(self, rng: random.Random) -> Self:
        """The same job with a concrete seed: drawn now where ``seed`` was left out, 0 to MAX_SEED, else as it is."""
        if self.seed is not None:
            return self
        return self.changed(seed=rng.getrandbits(31))


class TextToImage(Job):
    """One image from a text, by Qwen-Image with LoRAs; 6 to 10 s and $0.025, per its page.

    Attributes:
        prompt: What the image should show; several lines, English or Chinese.
        size: Width and height in pixels, 256 to 1536 each (the page's table; its prose says "up to 1024 x 1024", so
            more than that warns). The server's default is 1024*1024.
        loras: At most 3, see :class:`Lora`.
        seed: 0 to 2147483647, or -1. Left out, the client draws one and writes it into the job, so that the image can
            be made again and a lost submit be found again. -1 lets the server draw one that it does not tell, and
            gives up both.
        output_format: ``"jpeg"`` (the server's default), ``"png"`` or ``"webp"``.
        enable_sync_mode: The submit is held until the image is there.
        enable_base64_output: The answer holds the image itself instead of a URL.
        model: ``"text-to-image-lora"``, or a sibling: ``"text-to-image"`` (no LoRAs), ``"text-to-image-2512-lora"``.

    Raises:
        pydantic.ValidationError: (a ValueError) names the field, the value and what would do.
    """

    model: Annotated[TextToImageModel, BeforeValidator(_short_model)] = "text-to-image-lora"

    if TYPE_CHECKING:  # pydantic tells checkers what a field holds, not all that it is read from

        def __init__(
            self,
            *,
            prompt: str,
            size: SizeLike | None = None,
            loras: Sequence[LoraLike] | None = None,
            seed: int | None = None,
            output_format: OutputFormat | None = None,
            enable_sync_mode: bool | None = None,
            enable_base64_output: bool | None = None,
            model: TextToImageModel = "text-to-image-lora",
        ) -> None: ...

    @model_validator(mode="after")
    def _warn_of_large_size(self) -> Self:
        if self.size and max(self.size.width, self.size.height) > 1024:  # noqa: PLR2004 - the page's own prose
            warnings.warn(
                f"size {self.size}: the page's table allows it, its text says up to 1024 x 1024",
                LargeSizeWarning,
                stacklevel=3,
            )
        return self


class Edit(Job):
    """A source image changed by a text, by Qwen-Image-Edit with LoRAs; 6 to 12 s and $0.025, per its page.

    Attributes:
        image: The source: a URL that the server can reach, or a path, bytes or PIL image, which are uploaded once.
        images: The same, 1 to 3 of them, for the siblings that take several.
        model: ``"edit-lora"``, or a sibling: ``"edit"`` (no LoRAs); ``"edit-plus"``, ``"edit-plus-lora"``,
            ``"edit-2511"`` and ``"edit-2511-lora"`` take ``images`` instead of ``image``.
        size: As in :class:`TextToImage`, but without a default: the server keeps to the source's shape.

    The other parameters are those of :class:`TextToImage`.

    Raises:
        pydantic.ValidationError: (a ValueError) names the field, the value and what would do.
    """

    model: Annotated[EditModel, BeforeValidator(_short_model)] = "edit-lora"
    image: Image | None = Field(default=None, repr=False)
    images: tuple[Image, ...] | None = Field(default=None, repr=False)

    if TYPE_CHECKING:  # as for TextToImage

        def __init__(
            self,
            *,
            prompt: str,
            image: ImageSource | None = None,
            images: Sequence[ImageSource] | None = None,
            size: SizeLike | None = None,
            loras: Sequence[LoraLike] | None = None,
            seed: int | None = None,
            output_format: OutputFormat | None = None,
            enable_sync_mode: bool | None = None,
            enable_base64_output: bool | None = None,
            model: EditModel = "edit-lora",
        ) -> None: ...

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        wanted, other = ("images", "image") if takes_several(self.model) else ("image", "images")
        if getattr(self, other) is not None:
            raise ValueError(f"{other}: model {self.model!r} takes {wanted!r} instead")
        if getattr(self, wanted) is None:
            raise ValueError(
                f"{wanted}: model {self.model!r} needs a source image: a URL, a path, bytes or a PIL image"
            )
        if self.images is not None and not 1 <= len(self.images) <= MAX_IMAGES:
            raise ValueError(f"images: {len(self.images)} given, model {self.model!r} takes 1 to {MAX_IMAGES}")
        return self

    @property
    def sources(self) -> tuple[Any, ...]:
        """The source images: URLs, paths, bytes or PIL images."""
        return self.images if self.images is not None else (self.image,)


def takes_several(model: str) -> bool:
    """Whether the model takes ``images`` (1 to 3) instead of ``image``."""
    return model.startswith(("edit-plus", "edit-2511"))


def as_job(value: Job | Mapping[str, Any]) -> Job:
    """Read a job from what it may be given as: itself, or a mapping of its parameters.

    A mapping with ``image`` or ``images``, or with the model of an edit, is an edit.

    Raises:
        InvalidJobError: names the field, the value and what would do.
    """
    if isinstance(value, Job):
        return value
    if not isinstance(value, Mapping):
        raise InvalidJobError(f"a job is a TextToImage, an Edit or a mapping, not {type(value).__name__}")
    model = _short_model(value.get("model"))
    if isinstance(model, str) and model not in _MODELS:
        raise InvalidJobError(
            f"model = {model!r}: there is no such model, known are {', '.join(_MODELS)}", field="model"
        )
    edits = isinstance(model, str) and model.startswith("edit")
    kind: type[Job] = Edit if edits or "image" in value or "images" in value else TextToImage
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise invalid_job(error) from None


def invalid_job(error: ValidationError) -> InvalidJobError:
    """Pydantic's findings as one line: every field at fault, its value and what would do."""
    found = error.errors(include_url=False)
    message = "; ".join(_finding(item) for item in found)
    return InvalidJobError(message, field=_place(found[0]["loc"]))


def _finding(item: Any) -> str:
    place, text = _place(item["loc"]), item["msg"].removeprefix("Value error, ")
    if not place or item["type"] == "missing":
        return f"{place}: {text}" if place else text
    value = repr(item["input"])
    shown = value if len(value) <= 80 else value[:77] + "..."  # noqa: PLR2004 - a line's worth
    return f"{place} = {shown}: {text}"


def _place(loc: Sequence[int | str]) -> str:
    place = ""
    for part in loc:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    return place.lstrip(".")
