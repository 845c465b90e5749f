"""What one host remembers: domains, services, who owns what, operations, migrations, events."""

from ldoms.store.sqlite import Store, StoreFailed

__all__ = ["Store", "StoreFailed"]
