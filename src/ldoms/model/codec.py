"""Values to plain JSON data and back, by their type annotations; the shape on the wire and in the store.

It covers what the model is made of: frozen dataclasses, enumerations, tuples, mappings, optional values, and
JSON's own types. pydantic would do, but `ldm` must start in a blink and imports the standard library only.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin

T = TypeVar("T")


def to_wire(value: object) -> Any:
    """Turn a value of the model into data that ``json.dumps`` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_wire(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: to_wire(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, frozenset, set)):
        return [to_wire(item) for item in value]
    return value


def from_wire(kind: type[T], data: Any) -> T:
    """Make a value of type `kind` from what `to_wire` gave.

    Fields that are missing get their default, fields that are unknown are left out: a newer or an older manager
    may have written them.

    Raises:
        ValueError: the data does not have the shape of the type.
    """
    try:
        return typing.cast("T", _decode(kind, data))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not a {getattr(kind, '__name__', kind)}: {error}") from error


def _decode(kind: Any, data: Any) -> Any:
    if kind in (Any, object):
        return data
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(kind) if choice is not type(None)]
        return None if data is None else _decode(choices[0], data)
    if origin is tuple:
        if not isinstance(data, (list, tuple)):  # a string, too, could be gone through one by one
            raise TypeError(f"{data!r} is not a list")
        items = get_args(kind)
        if len(items) == 2 and items[1] is Ellipsis:
            return tuple(_decode(items[0], item) for item in data)
        return tuple(_decode(item_kind, item) for item_kind, item in zip(items, data, strict=True))
    if origin in (dict, Mapping):
        return {key: _decode(get_args(kind)[1], item) for key, item in data.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = _hints(kind)
        known = {field.name for field in dataclasses.fields(kind)}
        return kind(**{name: _decode(hints[name], item) for name, item in data.items() if name in known})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if kind is float and isinstance(data, int):
        return float(data)
    if isinstance(kind, type) and not isinstance(data, kind):
        raise TypeError(f"{data!r} is not a {kind.__name__}")
    return data


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
