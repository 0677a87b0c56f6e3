"""Sweeps: one image for each combination of some prompts, LoRAs, scales, seeds, sizes, models and source images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wavespeed_qwen_async.errors import InvalidJobError
from wavespeed_qwen_async.models import Job, as_job, takes_several

from ._axes import (
    AXES,
    SCALES,
    Axis,
    combination,
    drawn_seed,
    labels_of,
    scale_of,
    scales_of,
    table_edges,
    values_of,
)
from ._sweep_file import read_sweep

if TYPE_CHECKING:
    import os

    from wavespeed_qwen_async._inputs import ImageSource, LoraLike, SizeLike

__all__ = ["AXES", "MAX_IMAGES", "SCALES", "Axis", "Cell", "Sweep"]

MAX_IMAGES = 200
_FIXED = frozenset({"output_format", "enable_sync_mode", "enable_base64_output", "loras"})


class Cell(NamedTuple):
    """One combination.

    Attributes:
        place: Its place on each of the sweep's axes.
        number: The place of its job among the sweep's jobs; several cells may share one.
        job: The job, its seed drawn.
    """

    place: tuple[int, ...]
    number: int
    job: Job


class Sweep(Sequence[Job]):
    """A table of jobs, made as they are asked for. It is a source for ``Batch``: its jobs in order, each once.

        sweep = Sweep(prompt="a red fox", lora=["owner/ink", "owner/oil"], seed=[1, 2])
        batch = Batch(sweep, "out", session)  # 2 LoRAs x 4 scales x 2 seeds

    A list is an axis, anything else holds for all images. The advice of the models' pages is built in: all images share
    one seed unless ``seed`` is an axis, and each LoRA is tried at the scales of ``SCALES`` unless ``scale`` or the
    LoRA itself says otherwise. Combinations that would give the same image (no LoRA, at four scales) are made once.

    Args:
        prompt: What the image should show, or how it should change.
        image: Source images, for edits: URLs, paths, bytes or PIL images; a tuple for models that take several.
        model: The models' short names.
        size: Sizes, as ``"1024x1024"`` or ``(1024, 1024)``.
        seed: Seeds. Left out, one is drawn, from the first prompt and source: the same sweep goes on where it stopped,
            and one that is extended keeps its images.
        lora: LoRAs, each as a job takes it; ``None`` or ``"none"`` is none at all, a tuple, or a text such as
            ``"owner/ink + owner/fox:0.5"``, several at once.
        scale: Scales of those LoRAs that don't bring their own.
        rows: The axis on the left edge of the contact sheet; default: what reads best.
        columns: The axis on its upper edge.
        max_images: More images than this are refused: axes multiply.
        fixed: ``loras`` that all images have besides, ``output_format``, ``enable_sync_mode``.

    Attributes:
        axes: The axes that vary, outermost first: those of the pages, then rows and columns.
        fixed: What all images have in common, by the axis's key, as labels.
        rows: The key of the axis on the left edge; None where there is but one.
        columns: The key of the axis on the upper edge; None where nothing varies.

    Raises:
        InvalidJobError: a value is out of range, a combination is no job, or there are too many.
    """

    def __init__(
        self,
        *,
        prompt: str | list[str],
        image: ImageSource | tuple[ImageSource, ...] | list[Any] | None = None,
        model: str | list[str] | None = None,
        size: SizeLike | list[Any] | None = None,
        seed: int | list[int] | None = None,
        lora: LoraLike | list[Any] | None = None,
        scale: float | list[float] | None = None,
        rows: str | None = None,
        columns: str | None = None,
        max_images: int = MAX_IMAGES,
        **fixed: Any,
    ) -> None:
        given = {"prompt": prompt, "image": image, "model": model, "size": size, "seed": seed, "lora": lora}
        self._fixed = _known(fixed)
        found = {key: values_of(key, value) for key, value in given.items()}
        found["lora"] = tuple(map(combination, found["lora"]))
        found["scale"] = scales_of(scale, found["lora"])
        if seed is None:
            found["seed"] = (drawn_seed(found["prompt"][0], found["image"][0]),)
        everything = {key: Axis(key, found[key], labels_of(key, found[key])) for key in AXES}
        swept = [key for key in AXES if len(found[key]) > 1]
        self.rows: str | None
        self.columns: str | None
        self.rows, self.columns = table_edges(swept, rows, columns)
        order = [key for key in swept if key not in {self.rows, self.columns}]
        order += [key for key in (self.rows, self.columns) if key is not None]
        self.axes: tuple[Axis, ...] = tuple(everything[key] for key in order)
        self.fixed: dict[str, str] = {
            key: everything[key].labels[0] for key in AXES if key not in swept and found[key][0] is not None
        }
        self._constant = {key: found[key][0] for key in AXES if key not in swept}
        self._count = self._checked(max_images)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Sweep:
        """A sweep by the names of its arguments, as they stand in a file.

        Raises:
            InvalidJobError: a name is unknown, or as for the class itself.
        """
        if "prompt" not in given:
            raise InvalidJobError("prompt: missing; say what the images should show", field="prompt")
        try:
            return cls(**{str(name): value for name, value in given.items()})
        except TypeError as error:
            raise InvalidJobError(f"the sweep can't be read: {error}") from None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **changed: Any) -> Sweep:
        """A sweep from a YAML or JSON file; ``changed`` replaces what it says. Blocking.

        Source images are looked for beside the file.

        Raises:
            ConfigurationError: the file can't be read.
            InvalidJobError: as for ``from_mapping``.
        """
        return cls.from_mapping({**read_sweep(Path(path)), **changed})

    def __repr__(self) -> str:
        table = " x ".join(f"{len(axis.values)} {axis.key}" for axis in self.axes)
        return f"<Sweep of {self._count} images{': ' if table else ''}{table}>"

    def __len__(self) -> int:
        """How many images it makes."""
        return self._count

    def __iter__(self) -> Iterator[Job]:
        told = -1
        for cell in self.cells():
            if cell.number > told:
                told = cell.number
                yield cell.job

    def __getitem__(self, at: Any) -> Any:
        return list(self)[at]

    def cells(self) -> Iterator[Cell]:
        """All combinations, the last axis running fastest."""
        numbers: dict[Any, int] = {}
        for place in product(*(range(len(axis.values)) for axis in self.axes)):
            parts, key = self._parts(place)
            yield Cell(place, numbers.setdefault(key, len(numbers)), as_job(parts))

    def _parts(self, place: tuple[int, ...]) -> tuple[dict[str, Any], Any]:
        """The job's parameters, and what tells it from all others."""
        chosen = {**self._constant, **{axis.key: axis.values[at] for axis, at in zip(self.axes, place, strict=True)}}
        at_key = tuple(at for axis, at in zip(self.axes, place, strict=True) if axis.key not in {"lora", "scale"})
        scale = chosen.pop("scale")
        loras = tuple((lora.path, scale_of(lora, scale)) for lora in chosen.pop("lora") or ())
        parts = self._fixed | {key: value for key, value in chosen.items() if value is not None}
        if loras:
            parts["loras"] = [*parts.get("loras", ()), *loras]
        if "image" in parts:
            parts |= _sources(parts.pop("image"), parts.get("model") or "edit-lora")
        return parts, (at_key, loras)

    def _checked(self, max_images: int) -> int:
        """Make each job once, so that what is wrong shows before anything is paid."""
        count = 1
        for axis in self.axes:
            count *= len(axis.values)
        table = " x ".join(f"{len(axis.values)} {axis.name}" for axis in self.axes)
        if count > max_images * 4:  # not even looked at: it may be millions
            raise InvalidJobError(f"{table} are {count} images, more than max_images = {max_images}")
        made = 1 + max(cell.number for cell in self.cells())
        if made > max_images:
            raise InvalidJobError(f"{table} are {made} images, more than max_images = {max_images}")
        return made


def _known(fixed: dict[str, Any]) -> dict[str, Any]:
    for name in fixed:
        if name not in _FIXED:
            known = ", ".join([*AXES, "rows", "columns", "max_images", *sorted(_FIXED)])
            raise InvalidJobError(f"unknown parameter {name!r}: known are {known}", field=name)
    return {name: value for name, value in fixed.items() if value is not None}


def _sources(value: Any, model: str) -> dict[str, Any]:
    several = list(value) if isinstance(value, (tuple, list)) else [value]
    if takes_several(model.rpartition("/")[2]):
        return {"images": several}
    if len(several) != 1:
        raise InvalidJobError(f"image: {len(several)} at once, model {model!r} takes one", field="image")
    return {"image": several[0]}
