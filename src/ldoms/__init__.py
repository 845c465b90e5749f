"""The Logical Domains Manager for Linux."""


def __getattr__(name: str) -> str:
    """``__version__``, looked up when it is asked for: to find it takes longer than to list domains."""
    if name != "__version__":
        raise AttributeError(f"module 'ldoms' has no attribute {name!r}")
    from importlib.metadata import version

    return version("ldoms")
