"""Values to plain JSON data and back, by their type annotations; the shape on the wire and in the store.

It covers what the model is made of: frozen dataclasses, enumerations, tuples, mappings, optional values, and
JSON's own types. pydantic would do, but `ldm` must start in a blink and imports the standard library only.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin

T = TypeVar("T")


def to_wire(value: object) -> Any:
    """Turn a value of the model into data that ``json.dumps`` takes."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    names = _field_names(kind)
    if names is not None:
        return {name: to_wire(getattr(value, name)) for name in names}
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
    wanted: Any = kind  # the cache below takes what can be hashed, which every type can
    try:
        return typing.cast("T", _decoder(wanted)(data))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is not a {getattr(kind, '__name__', kind)}: {error}") from error


_PLAIN = frozenset((str, int, float, bool, type(None)))

_Decoder = Callable[[Any], Any]


@cache
def _field_names(kind: Any) -> tuple[str, ...] | None:
    """The fields of a dataclass; None if it is none."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


@cache
def _decoder(kind: Any) -> _Decoder:
    """What reads a type; made once for each of them, because a listing reads thousands of values."""
    if kind in (Any, object):
        return lambda data: data
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        decode = _decoder(next(choice for choice in get_args(kind) if choice is not type(None)))
        return lambda data: None if data is None else decode(data)
    if origin is tuple:
        return _tuple_decoder(get_args(kind))
    if origin in (dict, Mapping):
        item = _decoder(get_args(kind)[1])
        return lambda data: {key: item(value) for key, value in data.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass_decoder(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    return _value_decoder(kind)


def _tuple_decoder(items: tuple[Any, ...]) -> _Decoder:
    any_length = len(items) == 2 and items[1] is Ellipsis
    decoders = [_decoder(item) for item in (items[:1] if any_length else items)]

    def decode(data: Any) -> Any:
        if not isinstance(data, (list, tuple)):  # a string, too, could be gone through one by one
            raise TypeError(f"{data!r} is not a list")
        if any_length:
            return tuple(map(decoders[0], data))
        return tuple(one(item) for one, item in zip(decoders, data, strict=True))

    return decode


def _dataclass_decoder(kind: Any) -> _Decoder:
    hints = typing.get_type_hints(kind)
    # A type may be made of itself: what reads a field is looked up when it is first needed.
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    known: dict[str, _Decoder] = {}

    def decode(data: Any) -> Any:
        values = {}
        for name, item in data.items():
            one = known.get(name)
            if one is None:
                if name not in fields:
                    continue
                one = known[name] = _decoder(fields[name])
            values[name] = one(item)
        return kind(**values)

    return decode


def _value_decoder(kind: Any) -> _Decoder:
    def decode(data: Any) -> Any:
        if kind is float and isinstance(data, int):
            return float(data)
        if isinstance(kind, type) and not isinstance(data, kind):
            raise TypeError(f"{data!r} is not a {kind.__name__}")
        return data

    return decode
