"""What is set beforehand: by the environment, by ``wavespeed-qwen.toml`` here, by the user's. Arguments go first."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from wavespeed_qwen_async.errors import ConfigurationError

from .options import Tier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .options import Settings

__all__ = ["FILE", "KEYS", "Configuration", "Value", "user_file", "variable"]

FILE = "wavespeed-qwen.toml"
_SECRETS = frozenset({"api_key", "apikey", "key", "token", "wavespeed_api_key"})


class Value(NamedTuple):
    """A value and where it comes from: a variable's name, a file, ``--option`` or ``default``."""

    value: Any
    source: str


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("give a text")  # noqa: TRY004 - one kind for all that is wrong with a value
    return value


def _tier(value: Any) -> Tier:
    try:
        return Tier(_text(value).strip().lower())
    except ValueError:
        raise ValueError(f"give one of {', '.join(Tier)}") from None


def _whole(value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError("give a whole number, 1 or more")
    return number


def _number(value: Any) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise ValueError("give a number above 0")
    return number


def _yes_or_no(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    if not isinstance(value, bool):
        raise ValueError("give true or false")  # noqa: TRY004 - see above
    return value


class Key(NamedTuple):
    """What may be set: how it is read, what holds where it is not, and the commands' option."""

    read: Callable[[Any], Any]
    default: str
    option: str


KEYS = {
    "base_url": Key(_text, "https://api.wavespeed.ai", "--base-url"),
    "tier": Key(_tier, "none: silver's limits, and what refusals teach", "--tier"),
    "max_per_minute": Key(_whole, "the tier's", "--max-per-minute"),
    "max_in_flight": Key(_whole, "the tier's", "--max-in-flight"),
    "timeout": Key(_number, "3600 seconds", "--timeout"),
    "budget": Key(_number, "none", "--budget"),
    "names": Key(_text, "{index:06d}-{slug}-{seed}.{ext}", "--names"),
    "gallery": Key(_yes_or_no, "true", "--gallery"),
}


def variable(key: str) -> str:
    """The environment's name of a key."""
    return f"WAVESPEED_{key.upper()}"


def user_file() -> Path:
    """The file in the user's own folder for configuration."""
    return Path(typer.get_app_dir("wavespeed-qwen")) / FILE


class Configuration:
    """What environment and files say. Arguments are put before it by `fill`.

    Args:
        found: The values by key.
        files: The files that were read.
    """

    def __init__(self, found: Mapping[str, Value], files: tuple[Path, ...]) -> None:
        self.found: dict[str, Value] = dict(found)
        self.files = files

    @classmethod
    def load(cls) -> Configuration:
        """Read environment and files.

        Raises:
            ConfigurationError: a file can't be read, a key is unknown or stands where it must not, a value is none.
        """
        own, here = user_file(), Path(FILE)
        found: dict[str, Value] = {}
        files = [path for path in (own, here) if path.is_file()]
        if len(files) == 2 and own.samefile(here):  # noqa: PLR2004 - both are there
            files = [own]
        for path in files:
            found |= _of_file(path, trusted=path is own)
        found |= _of_environment()
        return cls(found, tuple(files))

    def fill(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A command's options, those that were not given taken from here."""
        filled = dict(given)
        for name, value in self.found.items():
            if name in filled and filled[name] is None:
                filled[name] = value.value
        return filled

    def settle(self, settings: Settings) -> Settings:
        """The same for the options that all commands have. An emulator is where it is."""
        fields = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        filled = self.fill(fields)
        if settings.emulator:
            filled["base_url"] = settings.base_url
        return dataclasses.replace(settings, **filled)

    def told(self, given: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
        """Every key, its value and where that comes from; ``given`` are the arguments."""
        for name, key in KEYS.items():
            if given.get(name) is not None:
                yield name, Value(given[name], key.option)
            else:
                yield name, self.found.get(name, Value(key.default, "default"))


def _of_environment() -> dict[str, Value]:
    names = {name: variable(name) for name in KEYS}
    texts = {name: os.environ.get(variable, "") for name, variable in names.items()}
    return {name: _read(name, text, names[name]) for name, text in texts.items() if text.strip()}


def _of_file(path: Path, *, trusted: bool) -> dict[str, Value]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigurationError(f"{path}: can't be read: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    for name in entries:
        _check_name(name, path, trusted=trusted)
    return {name: _read(name, value, str(path)) for name, value in entries.items()}


def _check_name(name: str, path: Path, *, trusted: bool) -> None:
    if name.lower().replace("-", "_") in _SECRETS:
        raise ConfigurationError(
            f"{path}: {name}: a key does not belong into a file that is shared, copied or committed: "
            "remove it there, and set WAVESPEED_API_KEY in the environment"
        )
    if name not in KEYS:
        raise ConfigurationError(f"{path}: {name}: there is no such key: {_hint(name)}")
    if name == "base_url" and not trusted:
        raise ConfigurationError(
            f"{path}: base_url: a folder's file may not say where the API key is sent: put it into {user_file()}, "
            "WAVESPEED_BASE_URL or --base-url"
        )


def _hint(name: str) -> str:
    import difflib  # noqa: PLC0415 - wanted by few

    near = difflib.get_close_matches(name.lower().replace("-", "_"), KEYS, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYS)}"


def _read(name: str, value: Any, source: str) -> Value:
    try:
        return Value(KEYS[name].read(value), source)
    except ValueError as error:
        shown = value if isinstance(value, str | int | float) else type(value).__name__
        where = source if source == variable(name) else f"{source}: {name}"
        raise ConfigurationError(f"{where} = {shown!r}: {error}") from None
