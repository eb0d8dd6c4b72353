"""The Nth system call of the one-shot, a launch, a blessing or a snapshot, or of git and cp below them, goes wrong.

The caller is killed, or told that the disk is full, broken, read-only, or that there are too many open files.

At the fault the agent's path is one complete version. The same thing done again without a fault ends well, and
nothing is lost. One that says it succeeded all the same has to have. The nights try many more points.
"""

import shutil
from dataclasses import replace

import pytest

from agentctl.core.errors import EXIT_NO_STORAGE
from integration.deeds import Begin, Bless, Deed, Rollback, Snapshot
from kit import effort
from kit.survival import survived
from kit.syscall_injection import Call, Fault, choose_faults

POINTS = {Rollback: 12, Begin: 6, Bless: 6, Snapshot: 4}  # of a gate
STAYING = {Rollback: 4, Begin: 2}
# What gates and nights found, beside what the seed chooses: SQLite has one word for all of these.
FOUND = {Rollback: [Fault(("python", "openat"), 11, "EROFS"), Fault(("python", "fdatasync"), 7, "ENOSPC")]}


@pytest.fixture(params=POINTS, ids=lambda kind: kind.__name__.lower())
def deed(request, monkeypatch):
    made = request.param(monkeypatch)
    yield made
    made.world.end()
    shutil.rmtree(made.kept, ignore_errors=True)


@pytest.mark.every_night
def test_a_system_call_goes_wrong(deed):
    faults = share(choose_faults(profile(deed), 800), POINTS, deed)
    tried = try_all(deed, faults)
    survived("system calls that fail", type(deed).__name__.lower(), tried)


@pytest.mark.every_night
@pytest.mark.parametrize("deed", STAYING, indirect=True, ids=lambda kind: kind.__name__.lower())
def test_the_disk_is_full_or_read_only_from_then_on(deed):
    faults = share(choose_faults(profile(deed), 250, ("ENOSPC", "EROFS")), STAYING, deed)
    faults += [fault for fault in FOUND.get(type(deed), []) if fault not in faults]
    tried = try_all(deed, [replace(fault, stays=True) for fault in faults])
    survived("a disk full or read-only from one call on", type(deed).__name__.lower(), tried)


def share(faults: list[Fault], gate: dict, deed: Deed) -> list[Fault]:
    """Return this run's part of the faults."""
    return effort.share(faults, gate[type(deed)], "system calls", type(deed).__name__)


def profile(deed: Deed) -> list[Call]:
    """Do it whole once, and list its calls."""
    deed.reset()
    whole = deed.do()
    assert whole.status == 0, whole.said
    deed.check_after()
    return whole.calls


def try_all(deed: Deed, faults: list[Fault]) -> int:
    """Try every fault before complaining of any; return the number of points."""
    tried, failures = 0, []
    for fault in faults:
        deed.reset()
        try:
            tried += try_fault(deed, fault)
        except AssertionError as error:
            failures.append(f"{error}")
    assert not failures, f"{len(failures)} of {len(faults)} points failed:\n" + "\n\n".join(failures[:40])
    assert tried >= len(faults) * 0.6
    return tried


def try_fault(deed: Deed, fault: Fault) -> int:
    """Hit it, look, do it again, look; return the number of points that were: a run may not come to the call."""
    hit = deed.do(fault)
    words = f"{fault}, hit {hit.hits}: status {hit.status}\n{hit.said[-1500:]}"
    try:
        deed.check_at_the_fault()
        if hit.status == 0:
            deed.check_after()
            return int(bool(hit.hits))
        assert hit.hits and "Traceback" not in hit.said, "it failed for another reason"
        assert hit.status < 0 or "Error: " in hit.said, "it failed without a word"
        if fault.stays and isinstance(deed, Rollback):
            assert hit.status == EXIT_NO_STORAGE, "it blames something else than the disk"
        again = deed.do()
        words += f"\nagain: status {again.status}\n{again.said[-1500:]}"
        assert again.status == 0 or deed.is_answered_by(again), "done again it failed"
        deed.check_after()
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{words}") from error
    return 1
