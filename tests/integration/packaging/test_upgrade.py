"""What 0.1.0 left is taken over and goes on; what a newer version left is refused in words, and harms no agent."""

import json
import os
import signal
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest

from agentctl import rescue
from agentctl.core.errors import TooNew
from agentctl.core.paths import USER, AgentPaths
from agentctl.generations.agent_context import AgentContext
from agentctl.generations.vault import Vault
from agentctl.ledger import versions
from agentctl.recovery import process
from agentctl.runner import launch_off_record
from agentctl.state.history_repair import BROKEN, STORE_VERSION, WHOLE, HistoryCopy
from agentctl.state.snapshots import manifest, snapshot
from agentctl.watchdog.api.auth import digest_of
from agentctl.watchdog.store import open_store
from integration.changing import Changing
from integration.watchdogs import Watchdog
from integration.world import git
from kit import old_version
from kit.old_version.make import ANSWERS


class Taken(Changing):
    """An agent that another version adopted; there is nothing to make."""

    def __init__(self, monkeypatch, which: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agw", dir="/tmp"))
        self.supervisors = []
        self.environment = {"AGENTCTL_ROOT": str(self.folder / "r"), "AGENTCTL_SCOPE": USER}
        for name, value in {**self.environment, "AGENTCTL_RUNTIME": "direct"}.items():
            monkeypatch.setenv(name, value)
        self.said = old_version.unpack(which, self.folder)
        self.name, self.branch, self.owner = old_version.NAME, "main", ""
        self.code, self.state = self.folder / "code", self.folder / "state"
        self.paths = AgentPaths(self.name, USER, dict(os.environ), os.getuid())
        self.context = AgentContext.open(self.name)

    def says(self, verb: str):
        """Return what this version says where the old one said `self.said[verb]`."""
        done = self.ctl("--json", *ANSWERS[verb], status=None)
        assert done.returncode in (0, 3), done.stderr
        return old_version.parse(done.stdout)

    def ids(self) -> list[str]:
        return [message["id"] for message in self.says("history")]


@pytest.fixture
def take(monkeypatch):
    taken = []

    def unpacked(which=old_version.WHOLE):
        taken.append(Taken(monkeypatch, which))
        return taken[-1]

    yield unpacked
    for world in taken:
        world.end()


def holds(new, old) -> bool:
    """Tell whether an answer says all that an older version's said: a newer one may say more."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(key in new and holds(new[key], old[key]) for key in old)
    if isinstance(old, list):
        return isinstance(new, list) and len(new) == len(old) and all(map(holds, new, old))
    return new == old


@pytest.mark.parametrize("which", [old_version.WHOLE, old_version.CUT])
def test_it_is_shown_as_the_old_version_showed_it(take, which):
    world = take(which)
    assert len(world.said) >= len(ANSWERS) - 1
    for name in ("over_budget", "because", "next"):  # what only time tells, and what may be worded better
        del world.said["status"][name]
    for story in (said["story"] for verb, said in world.said.items() if verb == "why"):
        story[-1] = story[-1].replace("rollback undo returns", "rollback undo --force returns")  # what it takes since
    if "config" in world.said:  # defaults that are others now; what they mean here: see the next test
        del world.said["config"]["agent"]["ready"], world.said["config"]["heartbeat"]["from"]
    for verb, old in world.said.items():
        assert holds(world.says(verb), old), verb
    with closing(open_store(world.paths.store_path, is_reader=True)) as store:
        assert store.token(digest_of((world.folder / "token").read_text().strip()))["label"] == "reader"


def test_the_agent_goes_on_and_a_bad_commit_goes_back_and_forth(take):
    world = take()
    before, head = world.ids(), world.head()
    world.ctl("config", "set", "probation.duration", "1s")
    world.start()
    launched = world.until_beating(4)
    with world.ledger() as ledger:  # who has sent heartbeats while they were asked for goes on being judged by them
        assert ledger.meta("heartbeat.from") == "notify" and world.live()["judged_by"] == "beats"
    world.until(lambda: world.status_of(4) == "good", "the blessing of the old version's candidate")
    assert world.ids()[: len(before)] == before and "from the watchdog alone" in world.ids()
    assert world.starts()[-1]["resumed"] == "1" and "Count the stars" in world.starts()[-1]["task"]

    bad = world.commit({"behaviour.py": "MODE = 'crash'\n\n# not the tree that is condemned already\n"}, "bad")
    world.ctl("restart", status=None)
    incident = world.until(lambda: (found := world.incidents()[1:]) and found[0]["outcome"] and found[0], "an outcome")
    assert incident["outcome"] == "recovered"
    world.until_beating(4, after=launched["id"])
    assert (world.head(), world.status_of(5)) == (head, "condemned")
    assert (world.quarantine(incident) / "tree" / "behaviour.py").read_text().startswith("MODE = 'crash'")
    assert world.ids()[: len(before)] == before

    (world.state / "mode").write_text("healthy")  # what was wrong with it is mended from outside
    world.ctl("rollback", "undo", "--yes", "--force")
    assert world.head() == bad
    world.until_beating(5)
    world.stop()
    world.ctl("prune", "--yes")
    assert world.context.vault.check([]) == "" and world.says("generations")[0]["status"] == "golden"
    root = world.paths.snapshots_dir
    assert all(snapshot.verify(root, id) == [] for id in snapshot.list_ids(root))


def test_the_rollback_that_the_old_version_was_cut_off_in_is_finished(take):
    world = take(old_version.CUT)
    before = world.ids()
    assert world.one("SELECT target FROM attempts WHERE is_open=1") == {"target": 2}
    assert not (world.code / ".git").exists()  # it was killed before it was carried over
    assert world.rollback_once() == process.EXIT_RELAUNCH, world.log
    assert world.one("SELECT 1 FROM attempts WHERE is_open=1") is None
    good = world.one("SELECT commit_id FROM generations WHERE number=2")["commit_id"]
    assert world.head() == good and git(world.code, "status", "--porcelain") == ""
    assert (world.code / "ignored.cache").read_text() == "what git ignores\n"
    incident = world.incidents()[-1]
    assert "even better" in (world.quarantine(incident) / "tree" / "behaviour.py").read_text()
    world.start()
    world.until_beating(2)
    world.until_outcome("recovered")
    assert world.ids()[: len(before)] == before
    assert world.starts()[-1]["brief"]
    assert f"rescue/{incident['id']}" in git(world.code, "branch", "--list", "rescue/*")
    worktree = world.says("changes")[0]["worktree"]
    assert git(worktree, "log", "-1", "--format=%s") == "blue"  # `.git` came back with what belongs to it


def test_the_watchdog_goes_on_with_the_conversation(take):
    world = take()
    watchdog = Watchdog(world).start()
    try:
        old = [message["id"] for message in world.said["stored"]]
        assert watchdog.ids()[: len(old)] == old
        assert watchdog.ask("POST", "/history", {"id": "new", "role": "user", "content": "a new one"}).status < 300
        secret = (world.folder / "token").read_text().strip()
        assert watchdog.ask("GET", "/history?last=1", Authorization=f"Bearer {secret}").status == 200
        assert "a new one" in watchdog.ask("GET", "/history?q=new+one").body.decode()
    finally:
        watchdog.kill(15)


def test_a_change_under_way_goes_on(take):
    world = take()
    world.ctl("config", "set", "change.try_for", "300ms")
    world.ctl("config", "set", "probation.duration", "1s")
    worktree = world.says("changes")[0]["worktree"]
    git(worktree, "rebase", "-q", "main")
    world.really_pass_on("feature/colour")
    world.start()
    world.until(lambda: world.status_of(4) == "good", "the blessing of what it is based on")
    world.ctl("change", "promote", "feature/colour")
    row = world.until(lambda: world.one("SELECT * FROM generations WHERE change='feature/colour' AND status='good'"),
                      "the promoted generation's blessing")  # fmt: skip
    assert row["number"] == 5 and (world.code / "colour.txt").read_text() == "blue\n"
    assert world.change("feature/colour")["state"] == "blessed"


# -- downgrade: one version higher than what this one knows


def dump(path) -> list[str]:
    """Return all that is in a database, as SQL."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return list(db.iterdump())


def raise_version(path, known: int) -> str:
    """Have a database say that it is of the next version; return that in words."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("UPDATE meta SET value=? WHERE key='version'", (known + 1,)).rowcount == 1
        db.commit()
    return f"{path} is of version {known + 1}; this agentctl knows {known}"


def raise_manifest(world, id: str) -> str:
    """Have a snapshot say that it is of the next version; return that in words."""
    path = Path(world.paths.snapshots_dir, id, manifest.NAME)
    body = path.read_bytes().partition(b"\n")[2].removesuffix(b"}\n").replace(b'"format": 1', b'"format": 2')
    path.write_bytes(b'{"crc32": "%08x", "manifest":\n' % crc32(body) + body + b"}\n")
    return f"{path.parent} is of version 2; this agentctl knows 1"


def raise_vault(world) -> str:
    """Have the vault say that it is of the next version; return that in words."""
    Path(world.paths.vault_path, "agentctl-version").write_text("2\n")
    return f"{world.paths.vault_path} is of version 2; this agentctl knows 1"


WRITTEN_BY_NEWER = {
    "ledger": (lambda world: raise_version(world.paths.ledger_path, versions.VERSION),
               [["generations"], ["rollback", "--yes"], ["pin", "2"], ["prune", "--yes"], ["change", "list"]]),
    "snapshot": (lambda world: raise_manifest(world, "000005"), [["snapshot", "restore", "000005"]]),
    "vault": (raise_vault, [["pin", "2"], ["condemn", "2"]]),
    "store": (lambda world: raise_version(world.paths.store_path, STORE_VERSION),
              [["history", "tail", "--stored"], ["token", "list"], ["token", "create"], ["watchdog"]]),
}  # fmt: skip


@pytest.mark.parametrize(("make_newer", "verbs"), WRITTEN_BY_NEWER.values(), ids=WRITTEN_BY_NEWER)
def test_what_is_one_version_higher_is_refused_in_words_and_not_changed(take, make_newer, verbs):
    world = take()
    world.ledger().close()  # brought up to date by whoever comes first, and by none of the verbs below
    words = make_newer(world)
    refs, state = world.context.vault.git.run("for-each-ref").text, contents(world.state)
    before = [dump(path) for path in (world.paths.ledger_path, world.paths.store_path)]
    for verb in verbs:
        told = world.ctl(*verb, status=1)
        assert words in told.stdout + told.stderr, told
        assert "use the agentctl that wrote it, or a newer one; nothing was changed" in told.stdout + told.stderr
    assert [dump(path) for path in (world.paths.ledger_path, world.paths.store_path)] == before
    assert (world.context.vault.git.run("for-each-ref").text, contents(world.state)) == (refs, state)


def contents(folder: Path) -> dict:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_beside_a_newer_ledger_the_agent_runs_on_and_is_started_again_as_it_is(take):
    world = take()
    alerts = world.folder / "alerts"
    world.ctl("config", "set", "rollback.alert", json.dumps(["sh", "-c", f"cat >> {alerts}"]))
    world.start()
    pid = world.until_beating(4) and world.live()["pid"]
    kept, tree = set(os.listdir(world.context.slots.folder + "/quarantine")), world.head()
    words = raise_version(world.paths.ledger_path, versions.VERSION)
    before = dump(world.paths.ledger_path)
    assert words in world.ctl("status", "--json", status=3).stdout
    beats = len(world.history())
    world.until(lambda: len(world.history()) > beats + 5, "the agent's work")
    assert world.live()["pid"] == pid

    def killed() -> dict:
        """Kill the agent; return the live status of its next launch, which beats."""
        old = world.live()
        os.kill(old["pid"], signal.SIGKILL)
        return world.until(lambda: (new := world.live())["launch_id"] != old["launch_id"] and new["last_heartbeat_at"]
                           and new, "another launch")  # fmt: skip

    first, second = killed(), killed()
    assert (first["generation"], second["generation"]) == (0, 0)  # off the record
    assert second["started_at"] - first["started_at"] >= launch_off_record.PAUSE_SECONDS - 0.1
    assert alerts.read_text().count("failing, and started again without a rollback") == 1
    assert "no rollback is possible" in world.log and "rescue" not in world.log and "Traceback" not in world.log
    assert (set(os.listdir(world.context.slots.folder + "/quarantine")), world.head()) == (kept, tree)
    # The runner that had it open goes on with its own launch; nobody else changed it.
    assert changed_tables(before, dump(world.paths.ledger_path)) <= {"launches"}
    with closing(sqlite3.connect(world.paths.ledger_path)) as db:
        db.execute("UPDATE meta SET value=? WHERE key='version'", (versions.VERSION,))
        db.commit()
    os.kill(world.live()["pid"], signal.SIGKILL)  # the right agentctl is back: the failure is decided on, on record
    world.until(lambda: world.incidents()[-1]["outcome"] == "recovered" and len(world.incidents()) == 2, "the recovery")


def test_a_rollback_that_a_newer_version_was_cut_off_in_is_left_to_it(take):
    world = take(old_version.CUT)
    raise_version(world.paths.ledger_path, versions.VERSION)
    before = dump(world.paths.ledger_path)
    assert world.rollback_once() == process.EXIT_RELAUNCH and dump(world.paths.ledger_path) == before
    world.start()
    world.until(lambda: Path(world.paths.live_status_path).exists() and world.live()["last_heartbeat_at"], "the agent")
    world.stop()
    assert dump(world.paths.ledger_path) == before
    with closing(sqlite3.connect(world.paths.ledger_path)) as db:
        db.execute("UPDATE meta SET value=? WHERE key='version'", (versions.VERSION,))
        db.commit()
    assert world.rollback_once() == process.EXIT_RELAUNCH
    assert world.one("SELECT 1 FROM attempts WHERE is_open=1") is None
    assert git(world.code, "status", "--porcelain") == ""


def changed_tables(before: list[str], after: list[str]) -> set[str]:
    return {line.split('"')[1] for line in set(before) ^ set(after)}


def test_a_lost_ledger_is_not_rebuilt_from_a_newer_vault_and_the_agent_is_started(take):
    world = take()
    words = raise_vault(world)
    for ending in ("", "-wal", "-shm"):
        Path(world.paths.ledger_path + ending).unlink(missing_ok=True)
    world.start()
    world.until(lambda: Path(world.paths.live_status_path).exists() and world.live()["last_heartbeat_at"], "the agent")
    assert words in world.log and not os.path.exists(world.paths.ledger_path)
    world.stop()
    assert world.rollback_once() == process.EXIT_RELAUNCH and not os.path.exists(world.paths.ledger_path)


def test_a_standby_of_a_newer_version_is_made_anew_and_its_moves_are_not_gone_on_with(take):
    world = take()
    slots, note = world.context.slots, Path(world.context.slots.folder, "standby.json")
    assert slots.standby_note()["generation"] == 2 and rescue.is_standby(str(note), slots.standby)
    note.write_text(json.dumps({**json.loads(note.read_text()), "version": 2}))
    assert slots.standby_note() == {} and not rescue.is_standby(str(note), slots.standby)
    Path(slots.move_path).write_text('{"version": 2, "phase": "across"}')
    for ask in (lambda: slots.is_moving, slots.finish_move):
        with pytest.raises(TooNew, match=r"moving\.json is of version 2; this agentctl knows 1"):
            ask()


def test_a_launch_takes_nothing_from_a_store_of_a_newer_version(take):
    world = take()
    copy = HistoryCopy(world.paths.store_path, world.name)
    Path(world.context.history_path).unlink()
    assert copy.judge(world.context.history_path) == BROKEN
    copy.close()
    raise_version(world.paths.store_path, STORE_VERSION)
    assert HistoryCopy(world.paths.store_path, world.name).judge(world.context.history_path) == WHOLE


def test_settings_that_only_a_newer_version_knows_keep_no_agent_down(take):
    world = take()
    world.start()
    world.until_beating(4)
    with open(world.paths.config_path, "a") as file:
        file.write('\n[future]\nfoo = "bar"\n')
    Path(world.paths.config_cache_path).unlink()
    assert "[future]: unknown section" in world.refuses("config", "show")
    os.kill(world.live()["pid"], signal.SIGKILL)
    world.until_beating(2)  # the one-shot and the runner, too, do with what they know


def test_what_is_made_today_says_its_version(take, tmp_path):
    world = take()
    vault = Vault(str(tmp_path / "vault.git"))
    vault.create()
    assert (tmp_path / "vault.git" / "agentctl-version").read_text() == "1\n"
    row = world.one("SELECT * FROM generations WHERE number=2")
    world.context.slots.prepare(world.context.vault, 2, row["vault_commit"], row["commit_id"], [])
    assert json.loads(Path(world.context.slots.folder, "standby.json").read_text())["version"] == 1
