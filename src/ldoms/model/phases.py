"""The five phases of a migration, by the names that the paper gives them."""

from enum import StrEnum


class Phase(StrEnum):
    """Where a migration stands. The order of the members is the order of the phases."""

    CHECK = "check"
    PREPARE = "prepare"
    COPY = "copy"
    SUSPEND = "suspend"
    HAND_OFF = "hand-off"


POSTCOPY = "postcopy"
"""What an operation says in place of its phase while a guest runs on the target and fetches its memory from here."""
QUEUED = "queued"
"""What an operation says in place of its phase while a migration waits, between the first two, for its turn."""
