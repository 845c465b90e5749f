"""``ldoms-bench peers``: the same migrations with `ldm`, with `virsh` and with QEMU alone, and what they must take."""
