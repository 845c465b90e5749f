"""``python -m faults run [WORD...]`` runs what has not run of the matrix; ``table`` writes down what came out.

Results go to ``build/faults.json``, cell by cell, so that it can be interrupted and goes on where it was. Words choose
the cells whose names have all of them.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from faults.cells import place, prepared, run_cell
from faults.matrix import FAULTS, POINTS, STORAGES, WAYS, Cell, cells, sample
from support import Hosts, make_hosts

RESULTS = Path("build/faults.json")
PAGE = Path("docs/reference/faults.md")


def known() -> dict[str, dict[str, Any]]:
    """The results so far, by the name of the cell."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def run(words: list[str]) -> int:
    """Run what is missing; a lab is made anew after a cell that has failed. 1 if a promise was broken."""
    # What has never run, the sample first, then what lasts least: so that a run that is ended soon says the most.
    rest = sorted(cells(), key=lambda cell: cell.fault.hold_s)
    all_cells = [cell for cell in dict.fromkeys((*sample(), *rest)) if not cell.left_out]
    wanted = [cell for cell in all_cells if all(word in cell.name for word in words)]
    results = known()
    left = [cell for cell in wanted if not _is_answered(results.get(cell.name, {}))]
    left.sort(key=lambda cell: (STORAGES.index(cell.storage), WAYS.index(cell.way), cell.name in results))
    while left:
        try:
            with make_hosts() as hosts, prepared(hosts):
                while left and _run_one(hosts, left.pop(0), left):
                    pass
        except Exception as error:  # what a broken cell has left may be in the way of taking its lab down
            _say(f"the lab could not be left clean: {error}")
    return 0 if all(known()[cell.name]["result"] == "kept" for cell in wanted if cell.name in known()) else 1


def _is_answered(result: Mapping[str, Any]) -> bool:
    """Whether a cell need not run again: it has kept every promise, and its disk was looked at."""
    return result.get("result") == "kept" and "records" in result


def _run_one(hosts: Hosts, cell: Cell, left: list[Cell]) -> bool:
    result: dict[str, object] = {"revision": _revision(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    try:
        with place(hosts, cell) as (guest, source):
            result |= run_cell(hosts, cell, guest, source)
        result["result"] = "kept"
    except Exception as error:
        result |= {"result": "broken", "reason": str(error)[:500], "trace": traceback.format_exc()[-3000:]}
    _keep(cell, result)
    _say(f"{result['result']:7} {len(left):4} left  {cell.name}  {result.get('reason', '')}")
    return result["result"] == "kept"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _keep(cell: Cell, result: dict[str, object]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:  # others may run other cells
        fcntl.flock(lock, fcntl.LOCK_EX)
        results = known() | {cell.name: result}
        RESULTS.with_suffix(".new").write_text(json.dumps(results, indent=1))
        RESULTS.with_suffix(".new").replace(RESULTS)


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with what has come out: true of the results, whatever they are."""
    reasons = list(dict.fromkeys(cell.left_out for cell in cells() if cell.left_out))
    ran = [results[cell.name] for cell in cells() if cell.name in results]
    kept = [result for result in ran if result["result"] == "kept"]
    with_disk = sum(1 for result in ran if "records" in result or result["result"] != "kept")
    possible = sum(1 for cell in cells() if not cell.left_out)
    revisions = sorted({str(result["revision"]) for result in ran})
    lines = [
        *_BEGIN,
        f"{possible} cells make sense; {len(ran)} have run, and {len(kept)} of them kept every promise"
        f" (revisions {', '.join(revisions) or 'none'}).",
        f"Of {with_disk} the disk was looked at; the others ran before that was asked.",
        "",
        "| | Point | Phase |",
        "|---|---|---|",
        *(f"| {number} | `{point.gate}` | {point.phase.value} |" for number, point in enumerate(POINTS, 1)),
        "",
    ]
    for storage, way in product(STORAGES, WAYS):
        if all(cell.left_out for cell in cells() if (cell.storage, cell.way) == (storage, way)):
            continue
        lines += [f"## {storage.capitalize()} storage, {way}", "", *_rows(storage, way, results, reasons), ""]
    lines += ["A number is the time to settle, in s, from when the fault was mended; `?` has not run;"]
    lines += [f"`{chr(ord('a') + index)}` is left out: {reason};" for index, reason in enumerate(reasons)]
    lines[-1] = lines[-1].removesuffix(";") + "."
    broken = {name: result for name, result in results.items() if result["result"] != "kept"}
    lines += ["", "## Broken promises", ""]
    lines += [f"- {name}: {_one_line(result['reason'])}" for name, result in sorted(broken.items())] or ["None."]
    return "\n".join(lines) + "\n"


def _rows(storage: str, way: str, results: Mapping[str, Mapping[str, Any]], reasons: list[str]) -> Iterator[str]:
    yield "| At | Fault | " + " | ".join(str(number) for number in range(1, len(POINTS) + 1)) + " |"
    yield "|---|---|" + "---|" * len(POINTS)
    for fault in FAULTS:
        row = [Cell(fault, point, storage, way) for point in POINTS]
        yield f"| {fault.place} | {fault} | " + " | ".join(_entry(cell, results, reasons) for cell in row) + " |"


_BEGIN = (
    "# What was broken, and what came of it",
    "",
    "`make test-faults` breaks one thing at a time between real processes in a lab, in every phase of a migration and",
    "at every edge between phases, mends it, and asks of each cell, from outside: has the guest ever used CPU on both",
    "hosts? Is it on one host that says so, with its counter gone on and its memory whole, if its QEMU was not",
    "killed? Does the status of `ldm` say where it is, and before it is mended, does that of a host show a guest that",
    "does not run as one that does not? Is nothing left on the other host? The cells are made from the table of",
    "phases (`tests/faults/matrix.py`), and this page from `build/faults.json` (`make docs-faults`).",
    "",
    "The guest writes a numbered record to its disk ten times a second, past its own caches, with the name of the",
    "host that its QEMU tells it at that moment and the time of the record before it, and says over the network which",
    "is the last one that is known to be on the disk. The disk is then read from outside: is every record on it that",
    "the guest has acknowledged? Is none missing, and does each follow from the one before, as only one guest can",
    "have written them? Were they made on the source, and then on the target if the guest is there, and not by turns?",
    "",
    "With postcopy (`--on-stall=postcopy`) the guest changes more than the link carries. From `source-sent-all` on it",
    "is in parts: if the QEMU or the host of one of them dies, the guest may be lost, which `ldm` has to say.",
    "",
    "With copied storage (`--copy-storage`) each host has a directory of its own. Is the source's image whole, with",
    "nothing in it that the target's has not? Are the target's image and volume there if the guest is, and only then?",
    "",
    "What dies are processes, not the kernel that they have given their writes to. `clock-step` moves the wall clock",
    "of `ldmd` by an hour, and back; that of QEMU is the machine's. `disk-full` is about the disk of a host's state;",
    "`image-gone` takes the image away, or with copied storage unmounts that host's directory.",
    "",
)


def _entry(cell: Cell, results: Mapping[str, Mapping[str, Any]], reasons: list[str]) -> str:
    if cell.left_out:
        return chr(ord("a") + reasons.index(cell.left_out))
    result = results.get(cell.name)
    if result is None:
        return "?"
    return f"{result['settled_s']:.0f}" if result["result"] == "kept" else "**broken**"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]


def main() -> int:
    """What the words ask for."""
    verb, *words = sys.argv[1:] or [""]
    if verb == "run":
        try:
            return run(words)
        except KeyboardInterrupt:
            _say("ended; the next run goes on from here")
            return 130
    if verb == "table":
        PAGE.write_text(table(known()))
        return 0
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
