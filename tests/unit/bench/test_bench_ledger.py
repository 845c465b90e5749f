"""Whatever a database has lost, doubled or made up is found, and nothing else is called so."""

from __future__ import annotations

import json

from ldoms.bench.ledger import LedgerEntry, compare
from ldoms.bench.log import Outcome, Transaction
from ldoms.model.codec import to_wire

LOG = [Transaction(client, seq, "BP", 100.0 + seq) for client in range(3) for seq in range(1, 6)]
ROWS = [LedgerEntry(one.client, one.seq, one.kind) for one in LOG]


def test_all_there_once() -> None:
    """A ledger that has what was acknowledged is clean, in any order."""
    found = compare(LOG, reversed(ROWS))
    assert found.is_clean
    assert (found.acknowledged, found.rows, found.in_doubt, found.examples) == (15, 15, 0, {})


def test_lost() -> None:
    """A row that is not there is missing, in the middle and at the end."""
    found = compare(LOG, [row for row in ROWS if row not in (ROWS[2], ROWS[-1])])
    assert (found.missing, found.doubled, found.invented) == (2, 0, 0)
    assert found.examples == {"missing": (ROWS[2], ROWS[-1])}
    assert not found.is_clean


def test_doubled() -> None:
    """A transaction that took place three times is one doubled transaction."""
    found = compare(LOG, [*ROWS, ROWS[4], ROWS[4]])
    assert (found.missing, found.doubled, found.invented, found.rows) == (0, 1, 0, 17)
    assert found.examples == {"doubled": (ROWS[4],)}


def test_lost_and_doubled_do_not_cancel_out() -> None:
    """As many rows as acknowledgements is not enough."""
    found = compare(LOG, [*ROWS[1:], ROWS[7]])
    assert (found.acknowledged, found.rows) == (15, 15)
    assert (found.missing, found.doubled) == (1, 1)


def test_invented() -> None:
    """Rows that no client can have asked for are invented: too far on, of a stranger, or of another kind."""
    too_far, stranger, other_kind = LedgerEntry(0, 7, "BP"), LedgerEntry(9, 2, "BP"), LedgerEntry(1, 3, "OP")
    found = compare(LOG, [*ROWS, too_far, stranger, other_kind])
    assert found.invented == 3
    assert set(found.examples["invented"]) == {too_far, stranger, other_kind}


def test_row_of_another_kind_is_no_match() -> None:
    """A row under the right number but of the wrong kind is one missing and one invented."""
    found = compare(LOG, [LedgerEntry(0, 1, "OP"), *ROWS[1:]])
    assert (found.missing, found.invented) == (1, 1)


def test_failed_transaction_must_leave_no_row() -> None:
    """What the server said was rolled back counts on, and must not be in the ledger."""
    failed = Transaction(0, 6, "BP", 106.0, outcome=Outcome.FAILED)
    assert compare([*LOG, failed], ROWS).is_clean
    assert compare([*LOG, failed], [*ROWS, LedgerEntry(0, 6, "BP")]).invented == 1
    assert compare([*LOG, failed], [*ROWS, LedgerEntry(0, 7, "BP")]).in_doubt == 1


def test_in_doubt() -> None:
    """The one transaction that a client was in when it ended may be there or not, also a client's first."""
    found = compare(LOG, [*ROWS, LedgerEntry(0, 6, "OP"), LedgerEntry(7, 1, "NCR")])
    assert found.is_clean
    assert found.in_doubt == 2


def test_log_without_its_end() -> None:
    """If the end of the log is lost, what follows it is in doubt; what precedes it is not."""
    rows = [*ROWS, *(LedgerEntry(0, seq, "BP") for seq in range(6, 30))]
    assert compare(LOG, rows).invented == 23
    found = compare(LOG, rows[1:], log_is_complete=False)
    assert (found.missing, found.invented, found.in_doubt, found.log_is_complete) == (1, 0, 24, False)


def test_examples_are_few_and_can_be_sent() -> None:
    """The result stays small when everything is wrong, and is plain JSON."""
    wire = json.loads(json.dumps(to_wire(compare(LOG, []))))
    assert wire["missing"] == 15
    assert len(wire["examples"]["missing"]) == 10
    assert wire["examples"]["missing"][0] == {"client": 0, "seq": 1, "kind": "BP"}
