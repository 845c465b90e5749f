"""``-i FILE``: descriptions of domains that come from an XML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldoms.api.client import Client
from ldoms.cli.command import Option, UsageError, Words
from ldoms.cli.output import complain
from ldoms.model.errors import RequestError
from ldoms.model.sizes import MAX_DESCRIPTION_BYTES

FROM_FILE = Option("-i", "take it from an XML file, as list-constraints -x writes it", "FILE")


def use_file(client: Client, action: str, words: Words, **more: Any) -> list[str]:
    """Have the manager do something with what a file describes; what is left out of it is told.

    Returns:
        The names of the domains.
    """
    if words.operands or words.properties:
        raise UsageError("with -i FILE the file says everything: name no domain and no property")
    made = client.post("/constraints", {"action": action, "xml": _read(words.options["-i"]), **more})
    for warning in made["warnings"]:
        complain(f"Notice: {warning}")
    return list(made["domains"])


def need_operand(words: Words, command: str) -> None:
    """Make sure that a domain is named.

    Raises:
        UsageError: none is.
    """
    if not words.operands:
        raise UsageError(f"{command}: name a domain, or give a file with -i")


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_DESCRIPTION_BYTES + 1)
        if len(data) > MAX_DESCRIPTION_BYTES:
            raise ValueError(f"it is larger than {MAX_DESCRIPTION_BYTES >> 20} MiB")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise RequestError(f"the file {path} cannot be read: {error.strerror}", code="no-file") from error
    except ValueError as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise RequestError(f"the file {path} cannot be used: {reason}", code="bad-xml") from error
