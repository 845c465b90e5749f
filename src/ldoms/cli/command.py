"""What a command is, and how its words are read.

LDoms order: options, then properties (``name=value``), then operands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ldoms.api.client import Client
from ldoms.cli.words import is_optional
from ldoms.model.errors import LdomsError

_PROPERTY = re.compile(r"(?P<name>[a-z][a-z0-9/-]*)=(?P<value>.*)", re.DOTALL)


class UsageError(LdomsError):
    """The command line makes no sense; the usage is printed with it."""

    default_code = "usage"


class Support(StrEnum):
    """What a command of LDoms does on this platform."""

    WORKS = "works"
    EMPTY = "answers: nothing to list"
    """It lists what only SPARC has: always nothing."""
    REFUSES = "answers: not supported"
    """Whatever is typed after it, the answer is one line that says why, and exit status 1."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command.

    Attributes:
        flag: as it is typed: ``-f`` or ``--json``.
        value: name of its value in the synopsis; empty = it has none.
        help: one line.
        choices: what its value is made of, for the shell; else the name of the value says it (`ldoms.cli.words`).
        repeats: it may be given several times; the values are joined by commas.
    """

    flag: str
    help: str
    value: str = ""
    choices: Sequence[str] = ()
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """What was typed after a command, sorted."""

    options: Mapping[str, str]
    properties: Mapping[str, str]
    operands: Sequence[str]

    def has(self, flag: str) -> bool:
        """Whether an option was given."""
        return flag in self.options


Run = Callable[[Client, Words], int]


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `ldm`.

    Attributes:
        name: verb and noun, such as ``add-vcpu``.
        group: of the help text.
        operands: as the synopsis shows them; square brackets = optional, dots = several. The words are those of
            `ldoms.cli.words`, which knows what a shell can offer in their place.
        summary: one line.
        run: does it, and returns the exit status.
        options, properties: what else it takes.
        details: more for the man page.
        ours: not a command of LDoms.
        support: whether it does what it says.
    """

    name: str
    group: str
    operands: str
    summary: str
    run: Run
    options: Sequence[Option] = ()
    properties: Sequence[str] = ()
    details: str = ""
    ours: bool = False
    free_properties: bool = field(default=False)
    """Operands may look like properties: ``set-variable``."""
    support: Support = Support.WORKS

    @property
    def synopsis(self) -> str:
        """How it is typed."""
        words = [f"[{option.flag}{' ' + option.value if option.value else ''}]" for option in self.options]
        words += [f"[{name}=VALUE]" for name in self.properties]
        return " ".join([f"ldm {self.name}", *words, self.operands]).rstrip()

    def read(self, words: Sequence[str]) -> Words:
        """Sort the words that were typed after the command.

        Raises:
            UsageError: an option or property is not known, or lacks its value; or the operands are too few, too many
                or empty.
        """
        rest = list(words)
        if self.support is Support.REFUSES:
            return Words({}, {}, rest)
        options = self._read_options(rest)
        properties = self._read_properties(rest)
        if "" in rest:
            raise UsageError(f"{self.name}: an operand is empty")
        least, most = self._count_operands()
        if not least <= len(rest) <= most:
            problem = "too few" if len(rest) < least else "too many"
            raise UsageError(f"{self.name}: {problem} operands")
        return Words(options, properties, rest)

    def _read_options(self, rest: list[str]) -> dict[str, str]:
        known = {option.flag: option for option in self.options}
        options: dict[str, str] = {}
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            if word == "--":
                break
            flag, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
            for single in self._split(flag, known):
                option = known.get(single)
                if option is None:
                    raise UsageError(f"{self.name}: option {single} is not known")
                if option.value and not has_value:
                    if not rest:
                        raise UsageError(f"{self.name}: option {single} needs a value ({option.value})")
                    value = rest.pop(0)
                again = option.repeats and single in options
                options[single] = f"{options[single]},{value}" if again else value
        return options

    @staticmethod
    def _split(flag: str, known: Mapping[str, Option]) -> list[str]:
        """``-lp`` is ``-l -p`` when all of them stand alone."""
        letters = [f"-{letter}" for letter in flag[1:]]
        together = not flag.startswith("--") and len(letters) > 1 and flag not in known
        return letters if together else [flag]

    def _read_properties(self, rest: list[str]) -> dict[str, str]:
        properties: dict[str, str] = {}
        if self.free_properties:
            return properties
        while rest and (match := _PROPERTY.fullmatch(rest[0])):
            if match["name"] not in self.properties:
                raise UsageError(f"{self.name}: property {match['name']} is not known")
            properties[match["name"]] = match["value"]
            rest.pop(0)
        return properties

    def _count_operands(self) -> tuple[int, float]:
        names = self.operands.split()
        least = sum(1 for name in names if not is_optional(name))
        return least, float("inf") if "..." in self.operands else len(names)
