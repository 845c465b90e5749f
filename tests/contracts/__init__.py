"""What an implementation of each interface must do, fake or real: the same checks run on both.

Each module has a bench, the interface with what a check needs around it, and `CHECKS`, functions that take one.
"""

import pytest

for module in ("engine", "network", "passwords", "storage"):
    pytest.register_assert_rewrite(f"{__name__}.{module}")
