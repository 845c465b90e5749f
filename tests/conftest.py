"""What tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import Hosts, make_hosts


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two hosts for all tests of a module, which leave them as they found them."""
    with make_hosts() as made:
        yield made
