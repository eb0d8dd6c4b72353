"""The power fails in the middle: nothing that was acknowledged is lost, nothing is half, the agent comes back.

A spread of cuts through every story, on ext4 and xfs; the nights take many more. A failing
point names itself: story, file system, line, what had been written back. AGENTCTL_CUTS=N takes N of each story,
AGENTCTL_STORY picks stories by name.
"""

import os
import tempfile
from pathlib import Path

import pytest
from boxes import give_up
from power_stories import STORIES

import agentctl
from agentctl.core import durable
from kit import effort, power_cut
from kit.survival import survived

HOME = str(Path(agentctl.__file__).parent)
MOST_SHOWN = 8


def cuts_of(story) -> int:
    """How many cuts a story gets, on each file system."""
    if wanted := os.environ.get("AGENTCTL_CUTS"):
        return int(wanted)
    return effort.points(1, 48)


def chosen():
    names = os.environ.get("AGENTCTL_STORY")
    return [story for story in STORIES if not names or story.__name__ in names.split(",")]


@pytest.fixture(scope="module", autouse=True)
def possible():
    if reason := power_cut.why_impossible():
        give_up(reason)


@pytest.mark.every_night
@pytest.mark.parametrize("story", chosen(), ids=lambda story: story.__name__)
@pytest.mark.parametrize("kind", power_cut.KINDS)
def test_the_power_fails(kind, story):
    place = tempfile.mkdtemp(prefix="agp", dir="/tmp")
    try:
        tried, failures = power_cut.apart(lambda: try_all(kind, story, place))
    finally:
        os.rmdir(place)
    assert not failures, f"{len(failures)} of {tried} points:\n" + "\n".join(failures[:MOST_SHOWN])
    assert tried >= cuts_of(story)
    survived(f"power cut, {kind}", story.__doc__.splitlines()[0].rstrip("."), tried)


@pytest.mark.parametrize("kind", power_cut.KINDS)
def test_a_cut_takes_what_was_not_on_disk(kind):
    """The kit itself: a writer that syncs keeps everything it told of, one that does not is caught."""

    def try_it():
        power_cut.mount("tmpfs", "/mnt", "tmpfs", 0, "size=1g,mode=755")
        os.mkdir("/mnt/disk")
        disk = power_cut.Disk(kind, "/mnt/image", "/mnt/disk")
        disk.make()
        machine = power_cut.Machine(disk, [], lambda path: path == __file__, "/mnt/output")
        lost = []
        for number, (flush, is_synced) in enumerate((f, s) for f in (0, 1, 2) for s in (False, True)):
            run = machine.run(
                lambda tell, s=is_synced, n=number: write_lines(f"{disk.path}/{n}", s, tell),
                power_cut.Cut(line=60, flush=flush),
            )
            machine.power_cycle()
            assert run.was_cut and len(run.told) > 5, (run.told, run.error)
            path = Path(disk.path, str(number))
            kept = path.read_text().split() if path.exists() else []
            lost.append(len(run.told) - len(kept))
        disk.unmount()
        disk.check()
        return lost

    everything, _, log, synced_1, nothing, synced_2 = power_cut.apart(try_it)
    assert everything <= 0 and synced_1 <= 0 and synced_2 <= 0  # one that was written and not told of may be there
    assert log > 5 and nothing > 5


def write_lines(path, is_synced, tell):
    """Append line by line; tell of each when it is written."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    if is_synced:
        durable.sync_folder(os.path.dirname(path))
    for number in range(1000):
        os.write(fd, f"{number}\n".encode())
        if is_synced:
            os.fsync(fd)
        tell(number)


def try_all(kind, story, place):
    """In the namespace: prepare once, then cut, boot and check, again and again."""
    power_cut.mount("tmpfs", place, "tmpfs", 0, "size=2g,mode=755")
    for name in ("disk", "empty"):
        os.mkdir(f"{place}/{name}")
    os.environ["AGENTCTL_RUNTIME"] = "direct"
    disk = power_cut.Disk(kind, f"{place}/image", f"{place}/disk")
    disk.make()
    told = story(disk.path, pytest.MonkeyPatch())
    machine = power_cut.Machine(
        disk, [f"{told.world.folder}/r/run"], lambda path: path.startswith(HOME), f"{place}/output"
    )
    disk.unmount()
    disk.keep(f"{place}/kept")
    disk.mount()
    whole = try_one(machine, told, power_cut.Cut(line=1 << 30), f"{place}/kept")
    tried, failures = 1, []
    for cut in power_cut.spread(whole.lines, whole.seconds, cuts_of(story), effort.dice("power", kind, story.__name__)):
        try:
            try_one(machine, told, cut, f"{place}/kept")
        except AssertionError as error:
            failures.append(f"{story.__name__} on {kind}, {cut} of {whole.lines} lines: {error}")
            if len(failures) >= MOST_SHOWN:
                break
        tried += 1
    disk.unmount()
    return tried, failures


def try_one(machine, story, cut, kept):
    """Act until the power fails, boot, check."""
    disk = machine.disk
    disk.unmount()
    disk.reset(kept)
    disk.mount()
    Path(machine.output).write_text("")
    run = machine.run(story.act, cut)
    machine.power_cycle()
    machine.run(lambda tell: story.check(run.told))
    return run
