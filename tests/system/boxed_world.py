"""One agent in a box, as its owner has it: a repository, an adoption, units; and what must be true of it.

agentctl is used as a user would, by its command line, systemctl and the journal. Files are read
from outside, as the box's disk is visible; nothing reads agentctl's own records.
"""

import json
import os
import shlex
from pathlib import Path

from kit import deadline, story
from kit import manifest as manifests

AGENT = Path(__file__).with_name("boxed_agent.py")
# A machine that stands still for some seconds makes nobody late. What is to break does so after its second heartbeat:
# before the trial can be over, however slow the machine is.
SHORT = {
    "agent": {"ready_timeout": "12s", "stop_grace": "10s"},
    "heartbeat": {"from": "notify", "timeout": "8s"},
    "probation": {"duration": "1s", "heartbeats": 4, "tries": 1},
}
UNIT_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"  # systemd's message id
PATIENCE_SECONDS = 150
CALL_SECONDS = 400  # some verbs of agentctl wait for minutes themselves
MAKE_REPOSITORY = """
cd "$1"
git init -q -b main
git config user.name Somebody
git config user.email somebody@example.invalid
printf '*.log\\n.venv/\\n__pycache__/\\n' >.gitignore
echo 1 >version
echo a note >notes.txt
: >behaviour
printf '#!/bin/sh\\necho tool\\n' >tool.sh
chmod 755 tool.sh
ln -s notes.txt link
echo one >uv.lock
git add .
git commit -qm 'The first version'
git branch feature/kept
git tag departure
"""
DIRT = """
cd "$1"
echo not committed >>notes.txt
chmod 700 tool.sh
ln -sfn tool.sh link
mkdir -p scratch/empty
echo untracked >scratch/untracked.txt
echo '# staged' >staged.py
git add staged.py
echo ignored >trace.log
"""


class World:
    """An agent called `name` whose code is at /srv/NAME (or in the home of who owns it)."""

    def __init__(self, box, name="agent", *, owner="root", is_users=False, **settings):
        self.box, self.name, self.owner, self.is_users = box, name, owner, is_users
        home = f"/home/{owner}"
        self.code = f"{home}/{name}" if is_users else f"/srv/{name}"
        data = f"{home}/.local/share/agentctl" if is_users else "/var/lib/agentctl"
        config = f"{home}/.config/agentctl" if is_users else "/etc/agentctl"
        self.data, self.state = f"{data}/{name}", f"{data}/{name}/state"
        self.slots = f"{Path(self.code).parent}/.{name}.agentctl"
        self.config_path = f"{config}/{name}/agent.toml"
        self.settings = {part: {**SHORT.get(part, {}), **settings.get(part, {})}
                         for part in {**SHORT, **settings}}  # fmt: skip
        self.good = None
        story.register(f"{name} in a box", self.tell_story)

    # -- what its owner does -----------------------------------------------------------------------

    def make(self):
        """Repository, adoption, settings, units."""
        return self.make_repository().adopt().install()

    def make_repository(self):
        self.box.run(["install", "-d", "-o", self.owner, "-g", self.owner, self.code])
        self.box.path(f"{self.code}/agent.py").write_bytes(AGENT.read_bytes())
        self.shell(MAKE_REPOSITORY)
        self.good = self.head
        return self

    def adopt(self, *command, options=("--no-hooks",)):
        self.ctl("init", *options, self.code, "--", *(command or ("python3", "agent.py")))
        self.write_settings()
        return self

    def write_settings(self):
        """Add to agent.toml what the test wants, as with an editor."""
        path, sections = self.box.path(self.config_path), dict(self.settings)
        text, replaced = "", {}
        for line in path.read_text().splitlines():
            if line.startswith("["):
                replaced = sections.pop(line.strip("[]"), {})
                text += line + "\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in replaced.items())
            elif line.partition(" = ")[0] not in replaced:
                text += line + "\n"
        for section, content in sections.items():
            text += f"\n[{section}]\n"
            text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items())
        path.write_text(text)
        self.ctl("config", "check")

    def install(self, *words):
        """Install the units; without the watchdog's, as most tests are about what works without it."""
        self.ctl("install", *(words or ("--no-watchdog",)))
        return self

    def start(self):
        """Start the unit, and wait until the agent is well."""
        self.systemctl("start", self.name)
        self.wait_steady()
        return self

    def stop(self):
        """Stop the unit, whatever state it is in, so that it costs the other tests nothing."""
        self.systemctl("disable", "--now", self.name, check=False)

    def ctl(self, *words, check=True):
        """Run agentctl as who looks after the agent."""
        argv = ["agentctl", *(["--name", self.name] if self.name != "agent" else []), *words]
        return self.box.run(argv, check=check, user=self.owner if self.is_users else None,
                            timeout=CALL_SECONDS)  # fmt: skip

    def ask(self, *words):
        """Return what `agentctl WORDS --json` says."""
        done = self.ctl(*words, "--json", check=False)
        assert done.stdout, f"agentctl {' '.join(words)}: status {done.returncode}: {done.stderr}"
        return json.loads(done.stdout)

    def systemctl(self, *words, check=True):
        scope = ["--user"] if self.is_users else []
        return self.box.run(["systemctl", *scope, *words], check=check,
                            user=self.owner if self.is_users else None, timeout=CALL_SECONDS)  # fmt: skip

    def shell(self, script):
        """Run a script as the owner of the code; $1 is the code folder."""
        user = None if self.owner == "root" else self.owner
        return self.box.run(["sh", "-ec", script, "sh", self.code], user=user).stdout

    def git(self, *words):
        return self.shell(f'cd "$1"; git {shlex.join(words)}').strip()

    def tell(self, word):
        """Have the agent do something, once."""
        owner = self.box.path(self.state).stat()
        path = self.box.path(f"{self.state}/do.new")
        path.write_text(word)
        path.chmod(0o666)
        os.chown(path, owner.st_uid, owner.st_gid)
        path.rename(path.with_name("do"))

    def commit(self, *words, version="2", script=""):
        """Commit a change of behaviour on main; return the commit."""
        self.shell(f"cd \"$1\"; echo '{' '.join(words)}' >behaviour; echo {version} >version\n"
                   f"{script}\ngit commit -qam 'Version {version}'")  # fmt: skip
        return self.head

    def break_it(self, *words, restart=True, **how):
        """Commit a bad change on main, leave more that is not committed, restart; return before."""
        bad = self.commit(*words, **how)
        self.shell(DIRT)
        before = Before(self, bad)
        if restart:
            self.systemctl("restart", "--no-block", self.name)
        return before

    # -- what is seen ------------------------------------------------------------------------------

    @property
    def head(self):
        return self.git("rev-parse", "HEAD")

    def status(self):
        return self.ask("status")

    def incidents(self):
        return self.ask("incidents")

    def witnesses(self):
        """Return what the agent noted of its launches."""
        return self.lines("witness.jsonl")

    def lines(self, name):
        return [json.loads(line) for line in self.whole_lines(name)]

    def whole_lines(self, name):
        """Return the lines of a file that somebody may be adding to: the last one counts when its end is there."""
        whole, _, _ = (self.read(name) or "").rpartition("\n")
        return whole.splitlines()

    def read(self, name):
        try:
            return self.box.path(f"{self.state}/{name}").read_text()
        except FileNotFoundError:
            return None

    def history(self):
        return self.whole_lines("history.jsonl")

    def sync_journal(self):
        """Have everything that was said up to now be in the journal."""
        self.box.run(["journalctl", "--sync"], check=False)

    def journal(self, *more, unit=None):
        self.sync_journal()
        unit = unit or f"{self.name}.service"
        which = ["--user-unit", unit] if self.is_users else ["-u", unit]
        return self.box.run(["journalctl", "--no-pager", "-o", "cat", *which, *more]).stdout

    def all_journals(self, lines=60):
        words = ["journalctl", "--no-pager", "-o", "short-monotonic", "-n", str(lines)]
        for part in ("", "-rollback", "-rescue"):
            which = "--user-unit" if self.is_users else "-u"
            words += [which, f"{self.name}{part}.service"]
        self.sync_journal()
        return self.box.run(words, check=False).stdout

    def tell_story(self):
        """Yield what a report on a failing test says of this agent; the box may be off or hang."""
        name = ["--name", self.name] if self.name != "agent" else []
        for verb in ("why", "status"):
            done = self.box.run(["agentctl", *name, verb], check=False, timeout=story.CALL_SECONDS,
                                user=self.owner if self.is_users else None)  # fmt: skip
            yield verb, done.stdout + done.stderr
        yield "journal", self.all_journals()

    def rollback_runs(self):
        """Count how often the one-shot was started, in any boot."""
        self.sync_journal()
        field = "USER_UNIT" if self.is_users else "UNIT"
        unit = f"{field}={self.name}-rollback.service"
        question = ["journalctl", "--no-pager", "-o", "cat", f"MESSAGE_ID={UNIT_STARTING}", unit]
        return len(self.box.run(question, check=False).stdout.splitlines())

    def unit(self, what, unit=None):
        return self.systemctl("show", "-P", what, unit or self.name).stdout.strip()

    def branches(self):
        listed = self.git("for-each-ref", "--format=%(refname) %(objectname)")
        return dict(line.split() for line in listed.splitlines())

    # -- waiting -----------------------------------------------------------------------------------

    def wait_until(self, is_true, what, timeout_seconds=PATIENCE_SECONDS):
        """Poll; return the first true value. Raise with the journal of all units."""
        is_so, value = deadline.poll(is_true, timeout_seconds)
        if not is_so:
            error = TimeoutError(f"{self.name}: waited {timeout_seconds} s for {what}: {value!r}")
            error.add_note(self.ctl("status", check=False).stdout)
            error.add_note(self.all_journals())
            raise error
        return value

    def wait_steady(self, **facts):
        return self.wait_phase("steady", **facts)

    def wait_phase(self, phase, **facts):
        """Wait until the agent is in that phase, alive, and beating; return the status."""

        def seen():
            status = self.status()
            wanted = {"phase": phase, **facts}
            is_so = all(status[key] == value for key, value in wanted.items())
            is_alive = status["agent"]["alive"] and status["last_heartbeat_at"]
            return status if is_so and (phase in ("stopped", "halted") or is_alive) else None

        return self.wait_until(seen, f"phase {phase} {facts}")

    def wait_outcome(self, outcome="recovered", count=1):
        """Wait until there are `count` incidents and the newest has ended so; return it."""

        def seen():
            incidents = self.incidents()
            is_so = len(incidents) == count and incidents[0]["outcome"] == outcome
            return incidents[0] if is_so else None

        return self.wait_until(seen, f"{count} incidents, the newest {outcome}")

    def wait_all_over(self):
        """Wait until every incident has ended: it does so some time after the agent is well, with its work saved."""
        self.wait_until(lambda: all(found["outcome"] for found in self.incidents()), "the end of all incidents")

    def wait_launch(self, after):
        """Wait until a launch other than `after` (its id) has noted what it was given."""
        return self.wait_until(
            lambda: (found := self.witnesses()) and found[-1]["launch"] != after and found[-1],
            "a new launch",
        )

    # -- what must be true -------------------------------------------------------------------------

    def check_rolled_back(self, before, trigger, *, runs=1, count=1):
        """Check everything a rollback promises; return the incident."""
        good = self.good
        incident = self.wait_outcome(count=count)
        status = self.wait_steady(commit=good)
        self.check_incident(incident, trigger)
        assert status["last_incident"]["id"] == incident["id"]
        assert status["last_incident"]["outcome"] == "recovered"
        assert self.head == good
        assert self.git("symbolic-ref", "HEAD") == "refs/heads/main"
        assert self.git("-c", "core.fsmonitor=", "status", "--porcelain", "-uall") == ""
        before.check_nothing_is_lost(incident)
        self.check_resumed(before, incident, good)
        assert self.rollback_runs() - before.runs == runs, self.all_journals()
        return incident

    def check_incident(self, incident, trigger):
        assert incident["trigger"] == trigger
        assert incident["outcome"] == "recovered"
        assert incident["seconds"] > 0
        assert incident["evidence"]
        story = self.ctl("why", incident["id"]).stdout
        assert "Recovered on generation" in story, story

    def check_resumed(self, before, incident, good):
        launch = self.witnesses()[-1]
        assert launch["commit"] == good
        assert launch["resumed"] == "1"
        assert launch["version"] == before.good_version
        assert "go on counting" in launch["task"]
        assert launch["brief"].startswith("# You were rolled back")
        assert incident["id"] in launch["brief"]
        history = self.history()
        assert history[: len(before.history)] == before.history
        assert launch["messages"] >= len(before.history)


class Before:
    """What there is just before the failure, to be found again after the rollback."""

    def __init__(self, world, bad):
        self.world, self.bad = world, bad
        self.good_version = world.git("show", f"{world.good}:version") + "\n"
        self.tree = manifest(world.box.path(world.code))
        self.refs = world.branches()
        self.objects = set(self._objects())
        self.history = world.history()
        self.runs = world.rollback_runs()

    def _objects(self):
        shown = "--batch-all-objects", "--batch-check=%(objectname)"
        return self.world.git("cat-file", *shown).splitlines()

    def check_nothing_is_lost(self, incident):
        world, rescue = self.world, f"rescue/{incident['id']}"
        after = {**manifest(world.box.path(world.code)), **self.quarantine(incident)}
        assert {path: after.get(path) for path in self.tree} == self.tree
        refs = world.branches()
        others = {ref: oid for ref, oid in self.refs.items() if ref != "refs/heads/main"}
        assert {ref: refs.get(ref) for ref in others} == others
        assert self.objects <= set(self._objects())
        world.git("merge-base", "--is-ancestor", self.bad, rescue)
        listed = world.git("-c", "core.quotePath=false", "ls-tree", "-r", rescue).splitlines()
        modes = {line.partition("\t")[2]: line.split()[0] for line in listed}
        wanted = {path: git_mode(kind, mode) for path, (kind, mode, *_) in self.tree.items()
                  if kind != "folder" and not path.endswith(".log") and ".venv" not in path}  # fmt: skip
        wrong = {path: (modes.get(path), mode) for path, mode in wanted.items() if modes.get(path) != mode}
        assert not wrong, (wrong, world.all_journals())

    def quarantine(self, incident):
        trees = self.world.box.path(f"{self.world.slots}/quarantine").glob(f"{incident['id']}*/tree")
        found = {}
        for tree in trees:
            found |= manifest(tree)
        return found


def git_mode(kind, mode):
    """Return the mode that git has for a file."""
    return "120000" if kind == "link" else "100755" if mode & 0o100 else "100644"


def manifest(top):
    """Describe every entry below a folder but git's own, and what is ours or the file system's at a mount point."""
    return manifests.manifest(top, without=(".git", ".agentctl", "lost+found"))
