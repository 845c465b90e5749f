"""The Logical Domains Manager for Linux."""

from importlib.metadata import version

__version__ = version("ldoms")
