"""What a shell offers while a command is typed: worked out here, from the table of commands; the shells only ask.

``ldm --completion bash`` prints what a shell has to know, and that asks ``ldm --complete WORD...`` at each key. Names
are those that exist at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ldoms.api.client import Client
from ldoms.cli.command import Command, Support, UsageError
from ldoms.cli.table import COMMANDS, aliases, find
from ldoms.cli.words import OPERANDS, Kind, Offer, is_optional, plain, values_of
from ldoms.model.codec import from_wire
from ldoms.model.domain import DomainView
from ldoms.model.errors import LdomsError
from ldoms.model.services import Services

PATIENCE_S = 2.0
"""So long a person may wait for names after pressing a key."""
FILES = ":files"
"""In place of a word: the shell knows files best."""

Names = Callable[[Kind], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A word that may stand where the cursor is.

    Attributes:
        meaning: a few words about it, or nothing.
    """

    word: str
    meaning: str = ""


def complete(words: Sequence[str]) -> list[str]:
    """The lines for a shell: a word and its meaning, with a tab between; nothing if something is wrong.

    Args:
        words: what follows `ldm`, the last one as far as it is typed.
    """
    client = Client(answer_s=PATIENCE_S)
    found: dict[str, Candidate] = {}
    with suppress(LdomsError, ValueError):
        for candidate in candidates(words or [""], lambda kind: names(client, kind)):
            found.setdefault(candidate.word, candidate)
    return [f"{one.word}\t{one.meaning}" for one in found.values()]


def candidates(words: Sequence[str], known: Names) -> Iterator[Candidate]:
    """Whatever may stand in place of the last of `words`, and begins with it."""
    *before, current = words
    if not before:
        yield from _commands(current, ("--help", "-V", "--completion"))
    elif before[0] in ("-h", "--help"):
        yield from _commands(current) if len(before) == 1 else ()
    elif before[0] == "--completion":
        yield from _words(current, SHELLS) if len(before) == 1 else ()
    else:
        with suppress(UsageError):
            command = find(before[0])
            if command.support is not Support.REFUSES:
                yield from _arguments(command, before[1:], current, known)


def names(client: Client, kind: Kind) -> Iterable[str]:
    """The names of a kind that exist on this host.

    Raises:
        LdomsError: the manager does not tell.
    """
    match kind:
        case Kind.DISK_SERVICE | Kind.VOLUME | Kind.SWITCH | Kind.CONCENTRATOR:
            return _service_names(client.fetch(Services, "/services"), kind)
        case Kind.TRUSTED:
            return [entry["host"] for entry in client.get("/trust")]
        case Kind.SPCONFIG:
            return [entry["name"] for entry in client.get("/configurations")]
        case _:
            return _domain_names([from_wire(DomainView, view) for view in client.get("/domains")], kind)


def _service_names(services: Services, kind: Kind) -> list[str]:
    match kind:
        case Kind.SWITCH:
            return [switch.name for switch in services.switches]
        case Kind.CONCENTRATOR:
            return [concentrator.name for concentrator in services.concentrators]
        case Kind.VOLUME:
            return [f"{volume.name}@{one.name}" for one in services.disk_services for volume in one.volumes]
        case _:
            return [service.name for service in services.disk_services]


def _domain_names(views: Sequence[DomainView], kind: Kind) -> list[str]:
    domains = [view.domain for view in views]
    match kind:
        case Kind.DISK:
            return sorted({disk.name for domain in domains for disk in domain.disks})
        case Kind.NETWORK:
            return sorted({network.name for domain in domains for network in domain.networks})
        case Kind.VARIABLE:
            return sorted({name for domain in domains for name, _ in domain.variables})
        case Kind.POLICY:
            return sorted({policy.name for domain in domains for policy in domain.policies})
        case _:
            return [domain.name for domain in domains]


def _commands(current: str, more: Sequence[str] = ()) -> Iterator[Candidate]:
    """Commands; their other names only to whoever has begun to type one."""
    for command in COMMANDS:
        for name in (command.name, *(aliases(command) if current else ())):
            if name.startswith(current):
                yield Candidate(name, command.summary)
    if current.startswith("-"):
        yield from _words(current, more)


def _words(current: str, words: Iterable[str]) -> Iterator[Candidate]:
    return (Candidate(word) for word in words if word.startswith(current))


def _arguments(command: Command, before: Sequence[str], current: str, known: Names) -> Iterator[Candidate]:
    given, rest, awaited = _options_of(command, before)
    if awaited:
        option = next(option for option in command.options if option.flag == awaited)
        yield from _values(tuple(option.choices) or OPERANDS.get(plain(option.value), ()), "", current, known)
        return
    properties = [word.partition("=")[0] for word in rest if _is_property(command, word)]
    operands = rest[len(properties) :]
    if current.startswith("-") and not rest and "--" not in before:
        for option in command.options:
            if option.flag.startswith(current) and option.flag not in given:
                yield Candidate(option.flag, option.help)
        return
    if _is_property(command, current) and not operands:
        name, _, value = current.partition("=")
        yield from _values(values_of(command.group, name), f"{name}=", value, known)
        return
    for offer in _operands_at(command, len(operands)):
        yield from _values(offer, "", current, known)
    if not operands:
        free = [f"{name}=" for name in command.properties if name not in properties]
        yield from _words(current, free)


def _options_of(command: Command, words: Sequence[str]) -> tuple[list[str], list[str], str]:
    """The options among the words, what follows them, and the option whose value is being typed, if one is."""
    flags = {option.flag: option for option in command.options}
    given: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        given.append(word)
        if word in flags and flags[word].value:
            if not rest:
                return given, [], word
            rest.pop(0)
    return given, rest, ""


def _is_property(command: Command, word: str) -> bool:
    return "=" in word and word.partition("=")[0] in command.properties


def _operands_at(command: Command, position: int) -> Iterator[Offer]:
    """What the operand at a position may be; where some may be left out, several."""
    least, most = 0, 0.0
    for word in command.operands.split():
        most = float("inf") if "..." in word else most
        if least <= position <= most:
            offer = OPERANDS.get(plain(word), () if word[0].isupper() or word[0] == "[" else (word,))
            # What is to be made has a name that does not exist yet.
            if not (command.name.startswith("add-") and offer == command.group):
                yield offer
        least += 0 if is_optional(word) else 1
        most += 1


def _values(offer: Offer, prefix: str, current: str, known: Names) -> Iterator[Candidate]:
    """What an offer has for a value, of which the last part may be one of several with commas between."""
    if offer is Kind.FILE:
        yield Candidate(FILES)
        return
    words = known(offer) if isinstance(offer, Kind) else offer
    done, comma, begun = current.rpartition(",")
    for word in words:
        if word.startswith(begun) and word not in done.split(","):
            yield Candidate(f"{prefix}{done}{comma}{word}")


_BASH = r"""# Completion of ldm for bash. Written by 'ldm --completion bash'.
_ldm() {
    local line=${COMP_LINE:0:COMP_POINT} current breaks= kept= word character
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    # Readline puts what is chosen in place of what follows the last of these.
    for character in = : @; do [[ $COMP_WORDBREAKS == *"$character"* ]] && breaks+=$character; done
    [[ -n $breaks ]] && kept=${current%"${current##*[$breaks]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        if [[ $word == :files ]]; then
            compopt -o filenames 2> /dev/null
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current")
        else
            printf -v word %q "${word#"$kept"}"
            COMPREPLY+=("${word//\\,/,}")
        fi
    done < <("$1" --complete "${words[@]:1}" 2> /dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
    return 0
}
complete -F _ldm ldm
"""
_ZSH = r"""#compdef ldm
# Completion of ldm for zsh. Written by 'ldm --completion zsh'.
_ldm() {
    local line word
    local -a begun whole open shown_whole shown_open
    begun=("${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}")
    for line in "${(@f)$("${words[1]}" --complete "${begun[@]}" 2> /dev/null)}"; do
        word=${line%%$'\t'*}
        case $word in
            '') ;;
            :files) _files ;;
            *=) open+=("$word"); shown_open+=("$word") ;;
            *) whole+=("$word"); shown_whole+=("${word}${${line#*$'\t'}:+  -- ${line#*$'\t'}}") ;;
        esac
    done
    (( $#open )) && compadd -S '' -d shown_open -a open
    (( $#whole )) && compadd -d shown_whole -a whole
    return 0
}
if [[ $funcstack[1] == _ldm ]]; then _ldm "$@"; else compdef _ldm ldm; fi
"""
SHELLS = {"bash": _BASH, "zsh": _ZSH}
"""What each shell reads to complete the words of `ldm`."""
