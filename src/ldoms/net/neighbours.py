"""What this manager asks the other managers of its subnet, and tells them."""

from __future__ import annotations

from typing import Protocol


class Neighbours(Protocol):
    """The other managers of the subnet, as far as they can be heard."""

    async def holder_of(self, mac: str) -> str:
        """The name of the host whose manager has given that MAC address to somebody; empty if none answers."""
