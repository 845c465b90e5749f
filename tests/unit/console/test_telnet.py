"""Who is at the other end of a connection to a console's port."""

from __future__ import annotations

from ldoms.console.telnet import owner_of

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 0100007F:C350 0100007F:1388 01 00000000:00000000 00:00000000 00000000  1000        0 101 1 0 20 4 30 10 -1
   2: 0100007F:1388 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0 20 4 30 10 -1
   3: 0200007F:C351 0100007F:1388 01 00000000:00000000 00:00000000 00000000  1001        0 103 1 0 20 4 30 10 -1
   4: 0100007F:C352 0100007F:1388 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0 20 4 30 10 -1
"""


def test_the_user_of_a_connection() -> None:
    """That of the client's end, of a connection that stands; nobody otherwise."""
    assert owner_of(TABLE, 50000, 5000) == 1000
    assert owner_of(TABLE, 50001, 5000) is None, "from another address"
    assert owner_of(TABLE, 50002, 5000) is None, "over already: the kernel knows its owner no more"
    assert owner_of(TABLE, 50003, 5000) is None
    assert owner_of("", 50000, 5000) is None
