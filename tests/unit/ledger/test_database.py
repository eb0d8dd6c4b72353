"""The ledger on a real disk: whole or not there, every acknowledged line survives, damage is told."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentctl.ledger import database, versions, writers
from agentctl.ledger.database import Ledger, LedgerDamaged, LedgerUnavailable
from kit import deadline, rows
from kit.line_killer import killed_at
from kit.survival import survived

SOURCE = str(Path(database.__file__).resolve().parents[2])
WRITER = """
import sys
from agentctl.ledger.database import Ledger
ledger = Ledger(sys.argv[1])
number = int(sys.argv[2])
while True:
    if number % 3:
        ledger.event("n", str(number))
    else:
        with ledger.transaction():
            ledger.event("n", str(number))
            ledger.set_meta("last", str(number))
    print(number, flush=True)
    number += 1
"""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a ledger%?#.db")


def test_create_is_all_or_nothing(path):
    line = 1
    seen = set()
    while killed_at(line, lambda: Ledger.create(path), lambda file: file == database.__file__):
        if os.path.exists(path):
            with Ledger(path) as ledger:
                assert ledger.check() == "" and ledger.generations() == []
            for suffix in ("", "-wal", "-shm"):
                if os.path.exists(path + suffix):
                    os.unlink(path + suffix)
            seen.add("whole")
        else:
            seen.add("none")
        line += 1
    assert seen == {"whole", "none"} and line > 15
    survived("SIGKILL at a line", "creation of a ledger", line - 1)
    assert not os.path.exists(f"{path}.new")
    with Ledger(path) as ledger:
        assert ledger.check() == ""


def test_create_is_for_us_alone_and_waits_for_the_disk(path):
    with Ledger.create(path) as ledger:
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert rows.select(ledger, "PRAGMA journal_mode")[0] == {"journal_mode": "wal"}
        assert rows.select(ledger, "PRAGMA synchronous")[0] == {"synchronous": 2}


def test_rows_go_in_and_come_out(path):
    with Ledger.create(path) as ledger:
        number = ledger.insert("requests", at=1.0, verb="rollback", target="", author="ann", reason="")
        assert ledger.next_request().number == number
        assert ledger.update("requests", {"number": number}, incident="x") == 1
        assert ledger.update("requests", {"number": 99}, incident="x") == 0
        assert ledger.next_request() is None
        ledger.set_meta("a", "1")
        ledger.set_meta("a", "2")
        assert ledger.meta("a") == "2"
        ledger.set_meta("a", None)
        assert ledger.meta("a") is None
        assert ledger.generation(None) is None and ledger.last_known_good() is None


def test_a_transaction_is_whole_or_not_there(path):
    with Ledger.create(path) as ledger:
        with pytest.raises(RuntimeError), ledger.transaction():  # noqa: PT012 - writes, then its end
            ledger.set_meta("a", "1")
            ledger.event("x", "y")
            raise RuntimeError
        assert ledger.meta("a") is None and rows.select(ledger, "SELECT * FROM events") == []
        with ledger.transaction():
            ledger.set_meta("a", "1")
            with Ledger(path, read_only=True) as other:
                assert other.meta("a") is None
        assert ledger.meta("a") == "1"


def test_who_reads_only_cannot_write(path):
    with Ledger.create(path), Ledger(path, read_only=True) as reader, pytest.raises(sqlite3.OperationalError):
        reader.set_meta("a", "1")


def test_two_writers_wait_for_each_other(path):
    with Ledger.create(path), Ledger(path) as one:
        other = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, "1"], env={"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE
        )
        try:
            assert deadline.read_line(other) == b"1\n"
            for number in range(50):
                with one.transaction():
                    one.set_meta("mine", str(number))
        finally:
            other.kill()
            deadline.communicate(other)
        assert one.meta("mine") == "49"


def evidence_of(ledger, generations):
    for number, blessed_at in generations:
        writers.add_generation(
            ledger,
            number,
            vault_commit="v",
            commit_id="c",
            tree="t",
            branch="b",
            status="good",
            source="s",
            created_at=1.0,
            blessed_at=blessed_at,
            tries_left=0,
        )


def test_what_the_stories_ask(path):
    with Ledger.create(path) as ledger:
        evidence_of(ledger, [(1, 5.0), (2, 9.0), (3, 9.0), (4, 7.0)])
        assert ledger.last_known_good().number == 4  # the last that was called good, whatever the clock said
        for name, at in (("b", 2.0), ("a", 2.0), ("c", 1.0)):
            writers.begin_launch(ledger, name, 1, at=at, boot_id="")
        assert ledger.last_launch().id == "c"  # the last line, whatever the clock said
        writers.open_incident(ledger, "i", at=1.0, trigger="t", reason="r")
        ledger.add_evidence("i", one=1)
        ledger.add_evidence("i", two=2, one=3)
        assert ledger.evidence("i") == {"one": 3, "two": 2}
        assert ledger.evidence("nobody") == {}


def test_what_is_newest_is_never_asked_of_a_clock(path):
    """Everything is written while the clock goes backward, from a day ahead to long ago."""
    with Ledger.create(path) as ledger:
        evidence_of(ledger, [(1, 900.0), (2, 800.0), (3, 700.0)])
        assert [g.blessing for g in ledger.generations()] == [1, 2, 3]
        writers.bless(ledger, 2, at=600.0, reason="by hand", snapshot="")
        assert ledger.last_known_good().number == 2
        writers.condemn(ledger, 2, at=500.0, reason="bad")
        assert ledger.last_known_good().number == 3
        writers.bless(ledger, 2, at=400.0, reason="by hand, again", snapshot="")
        assert ledger.last_known_good().number == 2
        for number, at in enumerate((300.0, 200.0, 100.0), 1):
            writers.begin_launch(ledger, f"l{number}", 1, at=at, boot_id="b")
            writers.open_incident(ledger, f"i{number}", at=at, trigger="t", reason="r", generation_from=1)
            writers.add_attempt(ledger, f"i{number}", 1, at=at, rung="older good", target=number, reason="r",
                                is_open=True)  # fmt: skip
            writers.begin_step(ledger, f"i{number}", 1, "one", at=at)
            writers.begin_step(ledger, f"i{number}", 1, "two", at=at - 50)
        assert [i.id for i in ledger.incidents()] == ["i3", "i2", "i1"]
        assert ledger.last_incident().id == ledger.open_incident().id == ledger.open_attempt().incident == "i3"
        assert [launch.id for launch in ledger.launches_but("l3", 5)] == ["l2", "l1"]
        assert [s.name for s in ledger.steps("i3")] == ["one", "two"]
        for number in (1, 2, 3):
            writers.close_attempt(ledger, f"i{number}", 1)
        assert ledger.last_move()[1].id == "i3"
        assert [a.target for a in ledger.attempts_since(0.0)] == [1, 2, 3]
        assert [a.launch for a in ledger.attempts_since(0.0)] == ["l1", "l2", "l3"]
        assert [a.target for a in ledger.attempts_since(150.0, 250.0)] == [2]
        assert [a.target for a in ledger.attempts_since(150.0, 250.0, launch="l3")] == [2, 3]
        assert ledger.attempts_since(0.0, after=ledger.newest("attempts"), launch="l3") == []
        assert [launch.id for launch in ledger.launches_but("", -1)] == ["l3", "l2", "l1"]


def test_a_ledger_from_before_the_order_of_blessings_has_them_by_their_instants(path):
    make_old(path)
    connection = sqlite3.connect(path)
    for version in (2, 3):
        for statement in versions.MIGRATIONS[version]:
            connection.execute(statement)
    for number, at in ((2, 30.0), (3, 20.0), (4, None)):
        connection.execute("INSERT INTO generations (number, vault_commit, commit_id, tree, branch, status, source, "
                           "created_at, tries_left, blessed_at) VALUES (?, 'c', 'c', 't', 'main', ?, 's', 1, 1, ?)",
                           (number, "good" if at else "candidate", at))  # fmt: skip
    connection.execute("UPDATE generations SET blessed_at=10.0, status='good' WHERE number=1")
    connection.execute("INSERT INTO attempts VALUES ('i', 1, 50.0, 'restart', 1, 'r', 0)")
    connection.execute("UPDATE meta SET value='3' WHERE key='version'")
    connection.commit()
    connection.close()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.last_known_good().number == 2
        assert [a.launch for a in ledger.attempts_since(0.0, launch="l")] == [""]
    with Ledger(path) as ledger:
        assert [g.blessing for g in ledger.generations()] == [1, 3, 2, 0]
        assert ledger.last_known_good().number == 2
        writers.bless(ledger, 3, at=1.0, reason="by hand", snapshot="")
        assert ledger.last_known_good().number == 3 and ledger.attempts("i")[0].launch == ""


# --- damage


def missing(path):
    os.unlink(path)


def empty(path):
    os.truncate(path, 0)


def truncated(path):
    os.truncate(path, 5000)


def cut_in_the_header(path):
    os.truncate(path, 50)


def junk(path):
    Path(path).write_bytes(b"this is no database at all" * 1000)


def newer(path):
    with Ledger(path) as ledger:
        ledger.set_meta("version", "99")


def no_version(path):
    with Ledger(path) as ledger:
        ledger.set_meta("version", None)


def odd_version(path):
    with Ledger(path) as ledger:
        ledger.set_meta("version", "one")


def of_somebody_else(path):
    os.unlink(path)
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()


def folder(path):
    os.unlink(path)
    os.mkdir(path)


def torn_pages(path):
    with open(path, "r+b") as file:
        file.seek(4096 * 2)
        file.write(os.urandom(4096 * 6))


DAMAGES = [missing, empty, truncated, cut_in_the_header, junk, newer, no_version, odd_version, of_somebody_else,
           folder, torn_pages]  # fmt: skip


def damage_of(path) -> str:
    """Say how the ledger is damaged, as who opens it learns it; '' if it is sound."""
    try:
        with Ledger(path) as ledger:
            return ledger.check()
    except LedgerDamaged as error:
        return error.message


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told(path, damage):
    with Ledger.create(path) as ledger:
        for number in range(200):
            ledger.event("filler", str(number) * 50)
        ledger.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert damage_of(path) == ""
    damage(path)
    assert damage_of(path)


def test_a_torn_wal_loses_no_whole_transaction(path):
    """A power cut may leave half a frame at the end: what was acknowledged before it stays."""
    with Ledger.create(path) as ledger:
        ledger.set_meta("kept", "1")
        with open(f"{path}-wal", "rb") as file:
            whole = file.read()
        ledger.set_meta("half", "1")
        main, wal = Path(path).read_bytes(), Path(f"{path}-wal").read_bytes()
    for cut in range(len(whole), len(wal), 1000):
        Path(path).write_bytes(main)
        Path(f"{path}-wal").write_bytes(wal[:cut] + b"\xff" * 10)
        Path(f"{path}-shm").unlink(missing_ok=True)
        with Ledger(path) as ledger:
            assert ledger.check() == ""
            assert ledger.meta("kept") == "1" and ledger.meta("half") is None


def test_a_killed_writer_loses_no_acknowledged_line(path):
    Ledger.create(path).close()
    chance, acknowledged = random.Random(7), 0
    for _ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(acknowledged + 1)],
            env={"PYTHONPATH": SOURCE},
            stdout=subprocess.PIPE,
        )
        first = b"".join(deadline.read_line(writer) for _ in range(4))
        time.sleep(chance.uniform(0.0, 0.05))
        writer.kill()
        said = (first + deadline.communicate(writer)[0]).decode().splitlines(keepends=True)
        acknowledged = max(int(line) for line in said if line.endswith("\n"))
        with Ledger(path) as ledger:
            assert ledger.check() == ""
            found = [int(row["text"]) for row in rows.select(ledger, "SELECT text FROM events ORDER BY number")]
            assert found[:acknowledged] == list(range(1, acknowledged + 1))
            assert len(found) <= acknowledged + 1
            assert int(ledger.meta("last") or 0) in (len(found) // 3 * 3, acknowledged // 3 * 3)
            acknowledged = len(found)
    assert acknowledged > 20


# --- a ledger of an older version


def make_old(path):
    """Make a ledger as version 1 left it, with a generation in it."""
    connection = sqlite3.connect(path)
    connection.executescript(
        f"{versions.SCHEMA} INSERT INTO meta VALUES ('version', '1'); "
        "INSERT INTO generations (number, vault_commit, commit_id, tree, branch, status, source, "
        "created_at, tries_left) VALUES (1, 'a', 'b', 'c', 'main', 'good', 'init', 1.0, 2);"
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


def test_an_older_ledger_is_read_as_it_is_and_written_as_a_new_one(path):
    make_old(path)
    with Ledger(path, read_only=True) as ledger:
        assert ledger.version == 1 and ledger.changes() == [] and ledger.change("x") is None
        assert ledger.generation(1).change == ""
    with Ledger(path) as ledger:
        assert ledger.meta("version") == str(versions.VERSION) and ledger.changes() == []
        assert ledger.generation(1).on_failure == "" and ledger.generation(1).confirm_by is None


def test_a_ledger_from_before_images_gets_a_place_for_them(path):
    make_old(path)
    connection = sqlite3.connect(path)
    for statement in versions.MIGRATIONS[2]:
        connection.execute(statement)
    connection.execute("UPDATE meta SET value='2' WHERE key='version'")
    connection.commit()
    connection.close()
    with Ledger(path, read_only=True) as ledger:
        assert ledger.version == 2 and ledger.generation(1).image == "" and ledger.changes() == []
    with Ledger(path) as ledger:
        assert (ledger.version, ledger.generation(1).image, ledger.generation(1).image_inputs) == (
            versions.VERSION,
            "",
            "",
        )
        writers.set_image(ledger, 1, "sha256:1", "")
        assert ledger.last_known_good().image == "sha256:1" and ledger.check() == ""


def test_a_migration_is_all_or_nothing(path):
    line = 1
    seen = set()
    while True:
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)
        make_old(path)
        was_killed = killed_at(line, lambda: Ledger(path).close(), lambda file: file == database.__file__)
        with Ledger(path, read_only=True) as ledger:
            seen.add(ledger.version)
        with Ledger(path) as ledger:
            assert ledger.generation(1).status == "good" and ledger.changes() == [] and ledger.check() == ""
        if not was_killed:
            break
        line += 1
    assert seen == {1, versions.VERSION} and line > 15


@pytest.mark.parametrize("read_only", [False, True])
def test_the_log_of_a_broken_ledger_stays(path, read_only):
    """It may hold what nothing else does: looking at the ruin must not remove it."""
    writer = deadline.run(
        [
            sys.executable,
            "-c",
            (
                "import os, sys\nfrom agentctl.ledger.database import Ledger\n"
                "ledger = Ledger.create(sys.argv[1])\nledger.event('a', 'b')\nos._exit(0)"
            ),
            path,
        ],
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    log = Path(f"{path}-wal").read_bytes()
    assert writer.returncode == 0 and log
    whole = bytearray(Path(path).read_bytes())
    for broken in (b"no database" * 1000, whole[:16] + b"\1" + whole[17:]):
        Path(path).write_bytes(broken)
        with pytest.raises(LedgerDamaged):
            Ledger(path, read_only=read_only)
        assert Path(f"{path}-wal").read_bytes() == log


def test_a_ledger_that_cannot_be_opened_is_not_held_open(path):
    """Nor by the error: whoever keeps it would keep the file system busy."""
    Path(path).write_bytes(b"no database" * 1000)
    kept = []
    for read_only in (False, True):
        with pytest.raises(LedgerDamaged) as caught:
            Ledger(path, read_only=read_only)
        kept.append(caught.value)
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    ]
    assert kept and path not in held


def test_what_sqlite_cannot_open_is_told_in_the_system_s_words(path):
    """On a disk that takes no writes it says no more than 'unable to open database file', and the code was blamed."""
    Ledger.create(path).close()
    os.mkdir(f"{path}-wal")
    with pytest.raises(LedgerUnavailable, match=r"unable to open database file.*Is a directory"):
        Ledger(path)


@pytest.mark.parametrize(("first_beat_at", "noted"), [(None, None), (5.0, "notify")])
def test_who_has_notified_while_that_was_the_default_goes_on_being_judged_so(path, first_beat_at, noted):
    make_old(path)
    connection = sqlite3.connect(path)
    connection.execute(
        "INSERT INTO launches (id, generation, started_at, boot_id, first_beat_at) VALUES ('l', 1, 1.0, 'b', ?)",
        (first_beat_at,),
    )
    connection.commit()
    connection.close()
    with Ledger(path) as ledger:
        assert ledger.meta("heartbeat.from") == noted
        assert ledger.lives(1) == [] and ledger.launch("l").life == ""
        writers.set_life(ledger, "l", "beats notified")
        assert ledger.lives(1) == ["beats notified"] and ledger.lives(2) == []


def test_a_new_ledger_says_nothing_of_how_life_was_judged(path):
    with Ledger.create(path) as ledger:
        assert ledger.meta("heartbeat.from") is None
