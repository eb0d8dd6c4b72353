"""The table of what was tried and survived: collected by the tests, written into docs/survival.md.

A test calls `survived(family, what, points)` when all its points held; pytest ends with the table. With
AGENTCTL_SURVIVAL=FILE the records are added to FILE, one JSON object a line, and
`python tests/kit/survival.py docs/survival.md gate FILE` makes the page of it, or `nights/M FILE...` of the files of
those of M nights that there are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

INTRODUCTION = """# What was tried, and survived

Written by the test run itself (`packaging/test` and `packaging/test nightly N/M`, with AGENTCTL_SURVIVAL_DOC=1).
A point is one place at which one fault was injected into the real program; it counts as survived
when everything that has to be true at every instant was true at the fault and again after the recovery, and nothing
was lost.
"""
MODES = {"gate": "every gate", "nights": "the nights"}
records: list[dict] = []


def survived(family: str, what: str, points: int) -> None:
    """Record that `points` points of a fault family held; call it after the last check."""
    records.append({"family": family, "what": what, "points": points})


def write_records(path: str) -> None:
    """Add what this process collected to a file, in one piece: another one may add to it at the same moment."""
    with open(path, "ab", buffering=0) as file:
        file.write("".join(json.dumps(record) + "\n" for record in records).encode())


def collected() -> list[dict]:
    """Return what this process and its workers recorded."""
    path = Path(os.environ.get("AGENTCTL_SURVIVAL") or os.devnull)
    if not path.is_file():
        return records
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_up(found: list[dict]) -> dict[tuple[str, str], int]:
    """Sum the points of each family and kind."""
    total: dict[tuple[str, str], int] = {}
    for record in found:
        key = record["family"], record["what"]
        total[key] = total.get(key, 0) + record["points"]
    return total


def read_page(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """Read the counts of an earlier page: of the other mode they stay."""
    known = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] not in ("Fault", "---", "**all**"):
            known[cells[0], cells[1]] = dict(zip(MODES, cells[2:], strict=True))
    return known


def render(total: dict[tuple[str, str], int], known: dict, mode: str, heads: dict[str, str]) -> str:
    """Make the page: the rows of this run, the other mode's from `known`, under the titles `heads`."""
    rows = {key: {**dict.fromkeys(MODES, ""), **counts, mode: ""} for key, counts in known.items()}
    for key, points in total.items():
        rows.setdefault(key, dict.fromkeys(MODES, ""))[mode] = f"{points:,}"
    titles = " | ".join(heads[m] for m in MODES)
    lines = [INTRODUCTION, f"| Fault | Into what | {titles} |", "|---|---|---:|---:|"]
    for (family, what), counts in sorted(rows.items()):
        if any(counts.values()):
            lines.append(f"| {family} | {what} | {' | '.join(counts[m] for m in MODES)} |")
    sums = [sum(int(c[m].replace(",", "") or 0) for c in rows.values()) for m in MODES]
    lines.append(f"| **all** | | {' | '.join(f'**{s:,}**' if s else '' for s in sums)} |")
    return "\n".join(lines) + "\n"


def heads_of(text: str) -> dict[str, str]:
    """Read the titles of an earlier page's columns."""
    for line in text.splitlines():
        if line.startswith("| Fault |"):
            return dict(zip(MODES, [cell.strip() for cell in line.strip("|").split("|")][2:], strict=True))
    return dict(MODES)


def main(page_path: str, mode: str, *paths: str) -> None:
    """Write the page from the records of one complete run, or of the nights that there are."""
    mode, _, nights = mode.partition("/")
    found = [json.loads(line) for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]
    page = Path(page_path)
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    heads = heads_of(before)
    heads[mode] = f"{len(paths)} of {nights} nights" if nights else MODES[mode]
    page.write_text(render(add_up(found), read_page(before), mode, heads), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
