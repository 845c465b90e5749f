"""Every test of a command talks to the same office."""

from unit.cli.office import office

__all__ = ["office"]
