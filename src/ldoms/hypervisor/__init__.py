"""QEMU behind a small interface: `engine` is what others see, `qemu` the real one, `fake` the one for unit tests."""
