"""What share each kind of transaction has: the workload's own mix, changed by a file and by options.

A file is TOML with a table ``[weights]`` and perhaps ``[think]``, or the configuration of SwingBench itself, XML with
``<Transaction>`` elements, of which the short name, the weight and whether it is enabled are read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lxml import etree

from ldoms.bench.workloads.thinking import ThinkTimes
from ldoms.bench.workloads.workload import Workload, default_weights
from ldoms.model.errors import RequestError

_MOST_BYTES = 4 << 20
_DELAYS = {"min_ms": "MinDelay", "max_ms": "MaxDelay", "intermin_ms": "InterMinDelay", "intermax_ms": "InterMaxDelay"}
"""Think times, and what SwingBench's configuration calls them."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What a file says.

    Attributes:
        weights: by short name; those that it does not name stay as they are.
        think_ms: think times by their names, as far as it has any.
        users: how many, if it says so.
    """

    weights: Mapping[str, int] = field(default_factory=dict)
    think_ms: Mapping[str, int] = field(default_factory=dict)
    users: int | None = None

    @property
    def think(self) -> ThinkTimes | None:
        """The think times; None if it says nothing of them."""
        if not self.think_ms:
            return None
        # Whoever says only the least means at least that.
        most = {
            "max_ms": self.think_ms.get("min_ms", 0),
            "intermax_ms": self.think_ms.get("intermin_ms", 0),
        }
        return ThinkTimes(**{**most, **self.think_ms})


def read_mix(path: Path) -> Mix:
    """Read a file with a mix.

    Raises:
        RequestError: it cannot be read or is not one, code ``bad-mix``; the message has what was wrong.
    """
    try:
        content = path.read_bytes()
        if len(content) > _MOST_BYTES:
            raise _bad(path, "it is too long")
        return _read_xml(path, content) if content.lstrip().startswith(b"<") else _read_toml(path, content.decode())
    except (OSError, ValueError, etree.XMLSyntaxError) as error:
        raise _bad(path, str(error)) from error


def mixed_weights(
    workload: Workload,
    mix: Mix,
    changes: Mapping[str, int],
    *,
    enable: Iterable[str] = (),
    disable: Iterable[str] = (),
) -> dict[str, int]:
    """The weights that come of a file and of options, which have the last word.

    Args:
        changes: weights by short name, in any case of letters.
        enable: what is on with the weight that it has; one without gets the workload's own.
        disable: what is off.

    Raises:
        RequestError: a short name that the workload does not have, a negative weight, or nothing left, code
            ``bad-mix``.
    """
    known = {kind.short: kind for kind in workload.kinds}

    def name_of(word: str) -> str:
        if word.upper() not in known:
            raise RequestError(f"{workload.title} has no transaction {word}, only {', '.join(known)}", code="bad-mix")
        return word.upper()

    weights = default_weights(workload)
    for given in (mix.weights, changes):
        for word, weight in given.items():
            if not 0 <= weight <= 1_000_000:
                raise RequestError(f"the weight of {word} must be from 0 to 1,000,000, not {weight}", code="bad-mix")
            weights[name_of(word)] = weight
    for word in enable:
        weights[name_of(word)] = weights.get(name_of(word)) or known[name_of(word)].weight
    for word in disable:
        weights[name_of(word)] = 0
    left = {short: weights[short] for short in known if weights.get(short)}
    if not left:
        raise RequestError(f"no transaction of {workload.title} is on: there is nothing to run", code="bad-mix")
    return left


def _read_toml(path: Path, text: str) -> Mix:
    found = tomllib.loads(text)
    think_names = {one.name.removesuffix("_ms"): one.name for one in fields(ThinkTimes)}
    for name in found:
        if name not in ("weights", "think", "users"):
            raise _bad(path, f"'{name}' is not one of weights, think, users")
    think = _numbers(path, found, "think")
    unknown = [name for name in think if name not in think_names]
    if unknown:
        raise _bad(path, f"'{unknown[0]}' in [think] is not one of {', '.join(think_names)}")
    users = found.get("users")
    if users is not None and not _is_number(users):
        raise _bad(path, f"users is '{users}', not a number")
    return Mix(
        weights=_numbers(path, found, "weights"),
        think_ms={think_names[name]: value for name, value in think.items()},
        users=users,
    )


def _numbers(path: Path, found: Mapping[str, Any], table: str) -> dict[str, int]:
    values = found.get(table, {})
    if not isinstance(values, dict):
        raise _bad(path, f"'{table}' is not a table")
    for name, value in values.items():
        if not _is_number(value):
            raise _bad(path, f"'{name}' in [{table}] is '{value}', not a whole number")
    return dict(values)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_xml(path: Path, content: bytes) -> Mix:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    root = etree.fromstring(content, parser)
    transactions = root.findall(".//{*}Transaction")
    if not transactions:
        raise _bad(path, "it has no <Transaction>")
    weights = {}
    for one in transactions:
        short = (one.findtext("{*}ShortName") or "").strip()
        if not short:
            raise _bad(path, "a <Transaction> has no <ShortName>")
        is_on = (one.findtext("{*}Enabled") or "true").strip().lower() == "true"
        weights[short] = _xml_number(path, one, "Weight") or 0 if is_on else 0
    think = {name: _xml_number(path, root, f".//{{*}}{element}") for name, element in _DELAYS.items()}
    return Mix(
        weights=weights,
        think_ms={name: value for name, value in think.items() if value is not None},
        users=_xml_number(path, root, ".//{*}NumberOfUsers"),
    )


def _xml_number(path: Path, element: Any, name: str) -> int | None:
    text = element.findtext(name if name.startswith(".") else f"{{*}}{name}")
    if text is None:
        return None
    if not text.strip().isdecimal():
        raise _bad(path, f"<{name.rpartition('}')[2]}> is '{text.strip()}', not a whole number")
    return int(text)


def _bad(path: Path, why: str) -> RequestError:
    return RequestError(f"{path} is no mix of transactions: {why}", code="bad-mix")
