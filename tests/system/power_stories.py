"""What is going on when the power fails, and what has to be true when it is back.

A story prepares a disk, acts until the power fails (telling what was acknowledged), and checks what it finds after
the next boot: first as the cut left it, then after the recovery, which is the machine's own.
"""

import json
import os
import time

from agentctl.agent import Agent
from agentctl.core.errors import AgentctlError, LaunchRefused
from agentctl.generations import rebuild_ledger
from agentctl.generations.agent_context import AgentContext
from agentctl.ledger import incidents, models, writers
from agentctl.ledger.database import Ledger
from agentctl.recovery import process, requests
from agentctl.runner import jobs, launch
from agentctl.state import agent_state, history, task
from agentctl.state.snapshots import snapshot
from integration.world import World, git, write
from kit import launches, rows
from kit.manifest import manifest, missing

SETTINGS = {"probation": {"tries": 1}, "environment": {"paths": [".venv"]}}
BEFORE_FIRST_BEAT = 6  # launches and one-shots that a recovery may take


class Story:
    """An adopted agent, and what every story has to keep."""

    owner = ""
    settings: dict = SETTINGS

    def __init__(self, folder: str, monkeypatch) -> None:
        """Make the world in `folder`, on the disk."""
        self.world = World(monkeypatch, self.settings, parent=folder, owner=self.owner)
        write(self.world.state, {"history.jsonl": '{"id": "1", "content": "hello"}\n'})
        write(self.world.code, {".venv/version": "old"})
        self.world.give()
        (self.world.folder / "r/run").mkdir(parents=True)
        self.adopt()
        self.prepare()
        self.before = manifest(self.world.code, without=(".git",))

    def adopt(self) -> None:
        self.world.adopt()

    def prepare(self) -> None:
        """Bring the world to the moment before."""

    def act(self, tell) -> None:
        """Do what the power will interrupt."""
        raise NotImplementedError

    def check(self, told: list) -> None:
        """Check after the boot that everything told is there, recover, and check again."""
        raise NotImplementedError

    # -- what the machine does ------------------------------------------------------------------------------

    def context(self) -> AgentContext:
        return AgentContext.open(self.world.name, lenient=True)

    def ledger(self) -> Ledger:
        return Ledger(self.world.paths.ledger_path)

    def come_up(self) -> models.CurrentLaunch:
        """Launch as the unit would: the runner's beginning, the one-shot where that refuses."""
        os.makedirs(self.world.paths.runtime_dir, exist_ok=True)
        for _ in range(BEFORE_FIRST_BEAT):
            context = self.context()
            with rebuild_ledger.open_or_rebuild(context, print) as ledger:
                try:
                    return launch.begin(context, ledger)
                except LaunchRefused as refused:
                    print(refused.message)
            assert process.main(self.world.name) == process.EXIT_RELAUNCH
        raise AssertionError("nothing was launched")

    def beat(self, begun: models.Launch) -> None:
        """The first heartbeat of a launch, and what the session does then."""
        with self.ledger() as ledger:
            if begun.incident:
                jobs.save_work(self.context(), ledger, begun.incident)
            at = launches.see_well(ledger, begun.id)
            if begun.incident:
                incidents.recover(ledger, begun, at)

    def fail(self) -> None:
        """Launch what is there, and let it fail for good."""
        with self.ledger() as ledger:
            begun = launch.begin(self.context(), ledger)
            launches.fail(ledger, begun.id)

    def answer_requests(self) -> None:
        """Leave nothing that is asked for: what comes next is a launch."""
        with self.ledger() as ledger:
            while (request := ledger.next_request()) is not None:
                writers.answer_request(ledger, request.number, "nothing-to-do")

    # -- what is always true --------------------------------------------------------------------------------

    def check_always(self) -> None:
        """I2: ledger and vault are whole, so is every snapshot, and a standby that counts is what it says."""
        context = self.context()
        with self.ledger() as ledger:
            assert ledger.check() == ""
            commits = [g.vault_commit for g in ledger.generations()]
            assert ledger.last_known_good() is not None
            self.check_standby(context, ledger)
        assert context.vault.check(commits) == ""
        refs = context.vault.refs("refs/agentctl/")
        assert context.vault.check([*refs.values()]) == ""
        root = context.paths.snapshots_dir
        for number in snapshot.list_ids(root):
            assert snapshot.verify(root, number) == [], number

    def check_standby(self, context: AgentContext, ledger: Ledger) -> None:
        note = context.slots.standby_note()
        if not note:
            return
        generation = ledger.generation(note["generation"])
        whole = f"{self.world.folder}/whole-{time.monotonic_ns()}"
        os.mkdir(whole)
        context.vault.lay_out(generation.vault_commit, whole)
        found = manifest(context.slots.standby)
        assert missing(manifest(whole), found) == {}
        if generation.number == 1 and ".venv" in note["environment"]:
            assert found[".venv/version"][2] == 3

    def check_told_launches(self, told: list) -> None:
        for what, value in told:
            if what == "launched":
                assert self.world.one("SELECT * FROM launches WHERE id=?", value), value


class Rollback(Story):
    """A rollback, the launch after it, up to `recovered`"""

    def prepare(self) -> None:
        world = self.world
        world.mode("crash", "a bad change")
        write(world.code, {"dirty.py": "not committed\n", "notes.cache": "ignored\n", "sub/deep/x": "untracked\n"})
        world.give()
        self.fail()
        write(world.state, {"config/plan.json": "what the bad version wrote"})
        world.give()

    def act(self, tell) -> None:
        assert process.main(self.world.name) == process.EXIT_RELAUNCH
        tell(["switched", ""])
        begun = self.come_up()
        tell(["launched", begun.id])
        self.beat(begun)
        tell(["recovered", begun.incident])

    def check(self, told: list) -> None:
        self.check_is_one_version()
        self.check_always()
        self.check_told_launches(told)
        recovered = [value for what, value in told if what == "recovered"]
        for value in recovered:
            assert self.world.one("SELECT outcome FROM incidents WHERE id=?", value)["outcome"] == "recovered"
        begun = self.come_up()
        assert begun.generation.number == 1
        self.check_is_rolled_back()
        self.beat(begun)
        (row,) = self.world.incidents()
        assert row["outcome"] == "recovered" and recovered in ([], [row["id"]])
        assert git(self.world.code, "log", "-1", "--format=%s", f"rescue/{row['id']}~1") == "a bad change"
        assert git(self.world.code, "show", f"rescue/{row['id']}:dirty.py") == "not committed"
        self.check_always()

    def check_is_one_version(self) -> None:
        """I1."""
        behaviour = (self.world.code / "behaviour.py").read_text()
        assert behaviour in ("MODE = 'crash'\n", "MODE = 'healthy'\n")
        assert (self.world.code / "dirty.py").exists() == ("crash" in behaviour)
        assert (self.world.code / "agent.py").exists()

    def check_is_rolled_back(self) -> None:
        world = self.world
        assert git(world.code, "rev-parse", "HEAD", "main").split() == [world.first] * 2
        assert git(world.code, "status", "--porcelain") == ""
        assert git(world.code, "fsck", "--strict", "--no-dangling") == ""
        (row,) = world.incidents()
        moves = world.all("SELECT * FROM attempts WHERE rung<>'restart'")
        assert [(m["rung"], m["target"], m["is_open"]) for m in moves] == [("last known good", 1, 0)]
        live = manifest(world.code, without=(".git",))
        assert missing(self.before, manifest(world.quarantine(row) / "tree"), live) == {}  # I3
        assert (world.code / "notes.cache").read_text() == "ignored\n"
        assert (world.state / "config/plan.json").read_text() == "the good plan"
        assert (world.state / "history.jsonl").read_text() == '{"id": "1", "content": "hello"}\n'
        assert "exit status 1" in (world.state / "BRIEF.md").read_text()


class FailedLaunch(Rollback):
    """A launch that fails at once, and its rollback"""

    def fail(self) -> None:
        pass

    def act(self, tell) -> None:
        super().fail()
        super().act(tell)

    def check(self, told: list) -> None:
        """Cut before the launch was on record, it is still to come, and to fail."""
        if not self.world.one("SELECT 1 AS x FROM launches WHERE end='failed'"):
            super().fail()
        super().check(told)


class RollbackForAnotherUser(Rollback):
    """The same, where the agent is another user"""

    owner = "nobody"


class RollbackThatBuilds(Rollback):
    """A rollback that has to build the environment anew"""

    settings = {
        **SETTINGS,
        "environment": {
            "paths": [".venv"],
            "lockfiles": ["lock"],
            "build": ["sh", "-c", "mkdir .venv; echo built >.venv/version"],
        },
    }

    def prepare(self) -> None:
        write(self.world.code, {"lock": "another one"})
        super().prepare()
        os.rename(self.world.context.slots.folder + "/standby.json", self.world.folder / "no-standby")

    def check_standby(self, context: AgentContext, ledger: Ledger) -> None:
        pass

    def check_is_rolled_back(self) -> None:
        super().check_is_rolled_back()
        assert (self.world.code / ".venv/version").read_text() == "built\n"


class Undo(Rollback):
    """The undo of a rollback"""

    def prepare(self) -> None:
        super().prepare()
        self.after_failure = manifest(self.world.code, without=(".git", ".venv", "notes.cache"))
        assert self.world.rollback_once() == process.EXIT_RELAUNCH
        self.beat(self.come_up())
        with self.ledger() as ledger:
            requests.submit(ledger, "undo")

    def act(self, tell) -> None:
        assert process.main(self.world.name) == process.EXIT_RELAUNCH
        tell(["undone", ""])
        tell(["launched", self.come_up().id])

    def check(self, told: list) -> None:
        self.check_is_one_version()
        self.check_always()
        self.check_told_launches(told)
        self.come_up()
        first, second = self.world.incidents()
        assert first["outcome"] == "recovered"
        attempts = self.world.all("SELECT * FROM attempts WHERE incident=? ORDER BY number", second["id"])
        assert attempts[0]["rung"] == "undo" and not any(a["is_open"] for a in attempts)
        quarantined = [
            manifest(path / "tree")
            for path in (self.world.quarantine(row, move) for row in (first, second) for move in (1, 2))
        ]
        assert missing(self.after_failure, manifest(self.world.code), *quarantined) == {}
        assert missing(self.before, manifest(self.world.code), *quarantined) == {}
        request = self.world.one("SELECT * FROM requests")
        assert request["incident"] == second["id"]
        self.check_always()


class Launch(Story):
    """Capture, snapshot and spent try of a launch"""

    def prepare(self) -> None:
        world = self.world
        world.mode("better", "a change")
        write(world.code, {f"more/{n}.py": f"# {n}\n" * 200 for n in range(40)})
        write(world.code, {"dirty.py": "not committed\n"})
        write(world.state, {f"memory/{n}": f"{n}" * 900 for n in range(40)})
        world.give()

    def act(self, tell) -> None:
        tell(["launched", self.come_up().id])

    def check(self, told: list) -> None:
        self.check_always()
        self.check_told_launches(told)
        spent = self.world.all("SELECT * FROM launches WHERE generation=2")
        if spent:
            assert self.world.one("SELECT tries_left FROM generations WHERE number=2")["tries_left"] == 0
        assert len(spent) >= len(told)
        live = manifest(self.world.code, without=(".git",))
        assert missing(self.before, live) == {}
        begun = self.come_up()
        assert begun.generation.number == 2, "the first power cuts of a probation cost no try"
        numbers = [g["number"] for g in self.world.all("SELECT number FROM generations ORDER BY number")]
        assert numbers == [1, 2], numbers
        if not spent:
            self.check_capture()
        self.check_always()

    def check_capture(self) -> None:
        """The vault holds exactly what was there."""
        whole = f"{self.world.folder}/captured"
        os.mkdir(whole)
        row = self.world.one("SELECT * FROM generations WHERE number=2")
        self.context().vault.lay_out(row["vault_commit"], whole)
        captured = {path: what for path, what in self.before.items() if path.partition("/")[0] != ".venv"}
        assert missing(captured, manifest(whole)) == {}


class LaunchForAnotherUser(Launch):
    """The same, where the agent is another user"""

    owner = "nobody"


class Bless(Story):
    """The end of a trial: blessing, snapshot, new standby"""

    settings = {**SETTINGS, "probation": {"tries": 3}}

    def prepare(self) -> None:
        world = self.world
        world.mode("better", "a good change")
        write(world.code, {f"more/{n}.py": f"# {n}\n" * 200 for n in range(20)})
        world.give()
        begun = self.come_up()
        assert begun.generation.number == 2

    def act(self, tell) -> None:
        with self.ledger() as ledger:
            jobs.make_good(self.context(), ledger, 2, "passed its trial")
            tell(["good", 2])
            jobs.standby(self.context(), ledger, "2")
            tell(["standby", 2])

    def check(self, told: list) -> None:
        self.check_always()
        status = self.world.status_of(2)
        good = "refs/agentctl/good/2" in self.context().vault.refs("refs/agentctl/good/")
        assert good if status == "good" else ["good", 2] not in told
        if ["standby", 2] in told:
            assert self.context().slots.standby_note()["generation"] == 2
        begun = self.come_up()
        assert begun.generation.number == 2
        self.act(lambda value: None)
        assert self.context().slots.standby_note()["generation"] == 2
        self.check_always()


class Snapshot(Story):
    """Snapshots of the state"""

    def prepare(self) -> None:
        write(self.world.state, {f"memory/{n}": f"{n}" * 900 for n in range(20)})

    def act(self, tell) -> None:
        for turn in range(3):
            write(self.world.state, {f"memory/{turn}-{n}": f"{turn} {n}" * 300 for n in range(4 + 40 * (turn == 2))})
            tell(["snapshot", agent_state.take_snapshot(self.context())])

    def check(self, told: list) -> None:
        self.check_always()
        root = self.world.paths.snapshots_dir
        assert {value for _, value in told} <= set(snapshot.list_ids(root))
        number = agent_state.take_snapshot(self.context())
        assert snapshot.verify(root, number) == []
        taken, present = manifest(f"{root}/{number}/tree"), manifest(self.world.state)
        assert {p: w[2:] for p, w in taken.items()} == {p: w[2:] for p, w in present.items()}
        self.come_up()


class Library(Story):
    """History and task, written by the agent's library"""

    def act(self, tell) -> None:
        os.environ["AGENT_STATE_DIR"] = str(self.world.state)
        agent = Agent(install_faulthandler=False, handle_sigterm=False)
        written = task.Task(objective="count")
        for number in range(40):
            tell(["message", agent.history.append("assistant", f"step {number}")])
            if number % 4 == 3:
                written.state = str(number)
                agent.task.save(written)
                tell(["task", number])

    def check(self, told: list) -> None:
        self._check(told)
        incidents.settle_last_launch(self.ledger())
        self.come_up()
        self._check(told)
        assert history.is_whole(str(self.world.state / "history.jsonl"))
        self.check_always()

    def _check(self, told: list) -> None:
        wanted = ["1", *(value for what, value in told if what == "message")]
        found = [m["id"] for m in history.tail(str(self.world.state / "history.jsonl"), 1000)]
        assert found[: len(wanted)] == wanted
        saved = [value for what, value in told if what == "task"]
        if saved:
            text = (self.world.state / "current_task.md").read_bytes()
            assert int(task.parse_bytes(text).state) >= saved[-1]


class LedgerWrites(Story):
    """Ledger lines, alone and in transactions, by several openings"""

    def act(self, tell) -> None:
        for turn in range(6):
            with self.ledger() as ledger:
                for number in range(6):
                    key = f"{turn}-{number}"
                    tell(["request", requests.submit(ledger, "rollback", "1", key)])
                    with ledger.transaction():
                        ledger.set_meta(f"one {key}", key)
                        ledger.event("pair", key)
                    tell(["pair", key])

    def check(self, told: list) -> None:
        self.check_always()
        metas = {row["value"] for row in self.world.all("SELECT value FROM meta WHERE key LIKE 'one %'")}
        events = {row["text"] for row in self.world.all("SELECT text FROM events WHERE kind='pair'")}
        assert metas == events
        assert {value for what, value in told if what == "pair"} <= metas
        numbers = {row["number"] for row in self.world.all("SELECT number FROM requests")}
        assert {value for what, value in told if what == "request"} <= numbers
        self.answer_requests()
        self.come_up()


class Adopt(Story):
    """An adoption"""

    def adopt(self) -> None:
        pass

    def act(self, tell) -> None:
        self.world.adopt()
        tell(["adopted", ""])

    def check(self, told: list) -> None:
        try:
            self.world.adopt()
            assert not told
        except AgentctlError as error:
            assert "there is an agent called" in error.message, error.message
        self.check_always()
        assert self.come_up().generation.number == 1
        with self.ledger() as ledger:
            jobs.standby(self.context(), ledger, "1")
        self.check_always()


class Rebuild(Story):
    """A damaged ledger, rebuilt from the vault"""

    def prepare(self) -> None:
        self.world.mode("better", "a good change")
        with self.ledger() as ledger:
            launch.begin(self.context(), ledger)
            jobs.make_good(self.context(), ledger, 2, "passed its trial")
        with open(self.world.paths.ledger_path, "r+b") as file:
            file.write(b"torn" * 1000)

    def act(self, tell) -> None:
        with rebuild_ledger.open_or_rebuild(self.context(), print) as ledger:
            tell(["generations", len(ledger.generations())])
            tell(["event", requests.submit(ledger, "rollback", "1")])

    def check(self, told: list) -> None:
        with rebuild_ledger.open_or_rebuild(self.context(), print) as ledger:
            assert [(g.number, g.status) for g in ledger.generations()] == [(1, "good"), (2, "good")]
            numbers = [row["number"] for row in rows.select(ledger, "SELECT number FROM requests")]
        self.answer_requests()
        assert all(value in numbers for what, value in told if what == "event")
        folder = os.path.dirname(self.world.paths.ledger_path)
        kept = [name for name in os.listdir(folder) if name.startswith("ledger.db.broken-")]
        broken = [name for name in kept if not name.endswith(("-wal", "-shm"))]
        assert len(broken) == 1, json.dumps(os.listdir(folder))
        with open(f"{folder}/{broken[0]}", "rb") as file:
            assert file.read(4) == b"torn"
        self.check_always()
        assert self.come_up().generation.number == 2


STORIES = (Rollback, FailedLaunch, RollbackForAnotherUser, RollbackThatBuilds, Undo, Launch, LaunchForAnotherUser,
           Bless, Snapshot, Library, LedgerWrites, Rebuild, Adopt)  # fmt: skip
