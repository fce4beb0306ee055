"""One setting: its declaration, its type and range, and a path in it as seen from elsewhere."""

import os
import sys
import types
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import Field, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hcoatnet.documents import DocumentError, parse_yaml
from hcoatnet.errors import ConfigError

Scalar = str | int | float | bool
SYNTHETIC = Path("synthetic")
"""Value of ``data`` that asks for the drawn set instead of photos."""


def setting(
    default: Any,
    help: str,
    group: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    recipe: bool = True,
    later: bool = False,
    example: str = "",
) -> Any:
    """A dataclass field with its help text, the panel it stands in and its range, both ends allowed.

    ``recipe=False`` marks what says where or on what a run happens; it is no part of the configuration's identity.
    ``later=True`` marks what came after runs had been made; at its default it does not change their digest.
    """
    metadata = {
        "help": help,
        "group": group,
        "minimum": minimum,
        "maximum": maximum,
        "recipe": recipe,
        "later": later,
        "example": example,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def as_flag(name: str) -> str:
    """The command-line spelling of a setting."""
    return "--" + name.replace("_", "-")


def converted(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the field's type; YAML 1.1 reads ``1e-3`` as text, so numbers may come as text.

    Raises:
        ConfigError: It cannot be.
    """
    if get_origin(kind) is Literal:
        value = str(value).lower() if isinstance(value, bool) else value  # YAML reads a bare true or false
        if value in get_args(kind):
            return value
        raise wrong(name, "one of " + ", ".join(get_args(kind)), value)
    if get_origin(kind) in (Union, types.UnionType):
        return None if value is None else converted(name, value, get_args(kind)[0])
    if get_origin(kind) is dict:
        return _options(name, value)
    if kind is Path and isinstance(value, str | Path) and "\0" not in str(value):
        return Path(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= sys.maxsize:
        return value
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):  # a whole number of 400 digits is beyond any float
            return float(value)
    if kind is str and isinstance(value, str):
        return _text(name, value)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    raise wrong(name, names[kind], value)


def _text(name: str, value: str) -> str:
    kind, colon, file = value.partition(":")
    is_file = bool(file) and "\0" not in file
    if name == "init" and (kind not in ("scratch", "pretrained") or (colon and (kind == "scratch" or not is_file))):
        raise wrong(name, "scratch, pretrained or pretrained:FILE", value)
    return value


def _options(name: str, value: Any) -> dict[str, Scalar]:
    if isinstance(value, list | tuple):
        pairs = [str(one).partition("=") for one in value]
        if not all(key and equals for key, equals, _ in pairs):
            raise wrong(name, "key=value", value)
        try:
            value = {key: parse_yaml(text) for key, _, text in pairs}
        except DocumentError:
            raise wrong(name, "key=value pairs with plain values", value) from None
    if isinstance(value, dict) and all(isinstance(one, Scalar) for one in value.values()):
        return {str(key): one for key, one in value.items()}
    raise wrong(name, "key=value pairs with plain values", value)


def in_range(one: Field[Any], value: Any) -> Any:
    """``value``, unless it is out of the field's range.

    Raises:
        ConfigError: It is.
    """
    low, high = one.metadata["minimum"], one.metadata["maximum"]
    if low is None or value is None:
        return value
    if not low <= value <= (float("inf") if high is None else high) or value == float("inf"):
        raise wrong(one.name, f"at least {low:g}" if high is None else f"in [{low:g}, {high:g}]", value)
    return value


def wrong(name: str, expected: str, value: Any) -> ConfigError:
    """The error that a setting has another value than ``expected`` says."""
    return ConfigError(f"The setting '{name}' ({as_flag(name)}) must be {expected}. Got {value!r} instead.")


def relative_to(value: Any, folder: Path) -> Any:
    """A path (also the one inside ``pretrained:FILE``) as seen from ``folder``; any other value as it is."""
    if isinstance(value, Path):
        return value.as_posix() if value == SYNTHETIC else Path(os.path.relpath(value, folder)).as_posix()
    if isinstance(value, str) and value.startswith("pretrained:"):
        return "pretrained:" + relative_to(Path(value.removeprefix("pretrained:")), folder)
    return value


def rebased(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings whose relative paths are seen from ``folder``, as seen from the working directory."""
    return {name: _rebased(value, folder) for name, value in values.items()}


def _rebased(value: Any, folder: Path) -> Any:
    if isinstance(value, Path):
        return value if value == SYNTHETIC or value.is_absolute() else Path(os.path.normpath(folder / value))
    if isinstance(value, str) and value.startswith("pretrained:"):
        return "pretrained:" + str(_rebased(Path(value.removeprefix("pretrained:")), folder))
    return value
