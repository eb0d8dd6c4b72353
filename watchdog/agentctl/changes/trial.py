"""The story of `change try`: make a candidate ready beside the running agent, run it, tell, keep the verdict."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from ..core.errors import AgentctlError
from ..core.paths import ENTRY_PATH
from ..generations import worktree
from ..generations.agent_context import AgentContext
from ..host import command
from ..ledger.models import ChangeRecord
from ..runtime.container import images
from ..runtime.container.compose_project import ComposeProject
from . import checks
from .checks import log_path
from .service import Changes, prepare_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SAID_IN_RECORD = 600
FRESH_SECONDS = 60.0
MARGIN_SECONDS = 120.0  # for the copy of the state, and for the end


def run(
    changes: Changes,
    row: ChangeRecord,
    seconds: float | None,
    say: Callable[[dict[str, Any]], object],
    ask: Callable[..., object] | None = None,
) -> dict[str, Any]:
    """Try a change for real, keep the verdict, and return it; `say` is told what happens as it happens.

    An interrupt ends it, with nothing left behind and nothing on record; with `ask` only the second one does: the
    first one is told to it (`is_last=False`).
    """
    with _Interrupts(ask) as interrupts:
        return _run(changes, row, seconds, say, interrupts)


class _Interrupts:
    """Ctrl-C while a trial is under way: the one that counts is raised once, the end is then left in peace."""

    def __init__(self, ask: Callable[..., object] | None) -> None:
        self.ask, self.was_asked, self.is_ending = ask, False, False

    def __enter__(self) -> _Interrupts:
        self.pid = os.getpid()
        self.before = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _on_interrupt(self, *_: object) -> None:
        if self.is_ending or os.getpid() != self.pid:  # a child that works as the agent's user gets it, too
            return
        is_last = self.ask is None or self.was_asked
        if self.ask is not None:
            self.ask(is_last=is_last)
        self.was_asked = True
        if is_last:
            self.is_ending = True
            raise KeyboardInterrupt

    def end(self) -> None:
        """From here on what was begun is ended, whatever key is pressed."""
        self.is_ending = True


def _run(
    changes: Changes,
    row: ChangeRecord,
    seconds: float | None,
    say: Callable[[dict[str, Any]], object],
    interrupts: _Interrupts,
) -> dict[str, Any]:
    facts, _ = changes.look(row)
    lacks = changes.find_lacks(row, facts)
    early = [lack for lack in lacks if lack.verb in ("start", "commit", "check")]
    if early:
        raise AgentctlError(f"cannot try '{row.name}': {early[0].why}", early[0].command)
    is_contained = is_wanted(changes)
    folder, plan = f"{prepare_folder(changes.context)}/.trials", _plan(changes, row, facts.head, seconds)
    made = json.loads(changes.as_agent(make_ready, folder, plan, _tools(changes)))
    if made["complaint"]:
        raise AgentctlError(f"cannot try '{row.name}': {made['complaint']}", made["hint"])
    try:
        if is_contained:
            made = complete(changes, plan, made)
        verdict = _follow(changes, made, _limit(changes.context.config, plan), say, interrupts)
    finally:
        interrupts.end()
        if "own_run" in made:
            keep_log(changes, made, plan["log"])
        changes.as_agent(remove, made["folder"], made["run"])
    record = {
        "commit": facts.head,
        "tree": facts.tree,
        "ok": verdict["ok"],
        "why": verdict["why"][:SAID_IN_RECORD],
        "seconds": plan["seconds"],
        "beats": verdict.get("beats", 0),
        "log": plan["log"],
        "lacks": verdict["lacks"],
    }
    changes.ask("try", row.name, facts=record)
    return {**record, "name": row.name, "lines": verdict.get("lines", [])}


def _plan(changes, row: ChangeRecord, commit: str, seconds: float | None) -> dict:
    """What the trial's process has to know: it runs as the agent's user, and asks nobody."""
    context = changes.context
    settings, paths = context.config, context.paths
    in_code = [f"{context.code_dir}/.git", *([context.slots.folder] if context.slots.is_inside else [])]
    return {
        "worktree": row.worktree, "commit": commit, "state": context.state_dir, "extra": context.extra_state,
        "code": context.code_dir, "in_code": in_code, "doors": paths.runtime_dir, "generation": 0,
        "log": log_path(changes, row.name, "try"), "seconds": seconds or settings.change.try_for,
        "smoke": settings.change.smoke, "smoke_limit": settings.probation.check_timeout,
        "config": paths.config_path, "cache": paths.config_cache_path, "scope": paths.scope, **_life_of_good(context),
    }  # fmt: skip


def _life_of_good(context: AgentContext) -> dict[str, object]:
    """What life good code has shown, for whoever may read the records: the agent's own user may not."""
    try:
        with context.ledger(read_only=True) as ledger:
            good = ledger.last_known_good()
            return {"good": good.number, "lives": ledger.lives(good.number)} if good else {}
    except (AgentctlError, OSError):
        return {}


def _tools(changes) -> dict:
    """What has to be there besides the source: the declared environment, and how it is built."""
    config, user = changes.context.config.environment, changes.context.user
    return {
        "code": changes.context.code_dir,
        "paths": config.paths,
        "lockfiles": config.lockfiles,
        "build": config.build,
        "home": user.home if user else os.path.expanduser("~"),
    }


def _limit(settings, plan: dict) -> float:
    return (
        settings.agent.ready_timeout
        + settings.heartbeat.longest_wait
        + plan["seconds"]
        + plan["smoke_limit"]
        + settings.agent.stop_grace
        + MARGIN_SECONDS
    )


def make_ready(folder: str, plan: dict, tools: dict) -> str:
    """As the agent's user: the folders of one trial, the plan, the environment in the worktree."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    _clear(folder)
    place = tempfile.mkdtemp(prefix="t", dir=folder)
    run = tempfile.mkdtemp(prefix="agentctl-try-", dir="/tmp")  # sockets want a short path
    plan = {**plan, "folder": place, "run": run}
    env = checks.environment(plan["worktree"], tools["code"], tools["paths"], tools["home"])
    ignored = [p for p in tools["paths"] if worktree.is_ignored(plan["worktree"], p)]
    part = checks.prepare_environment(
        plan["worktree"], {**tools, "paths": ignored}, env, f"{plan['log'][:-4]}-build.log"
    )
    with open(f"{place}/plan.json", "w", encoding="utf-8") as file:
        json.dump(plan, file)
    return json.dumps(
        {
            "folder": place,
            "run": run,
            "plan": f"{place}/plan.json",
            "complaint": "" if part.ok else part.said,
            "hint": part.hint,
        }
    )


def _clear(folder: str) -> None:
    """Remove what trials left that were killed; one that is under way holds a lock."""
    for name in os.listdir(folder):
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if time.time() - os.fstat(fd).st_mtime < FRESH_SECONDS:
                continue  # its process is about to start
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(fd)


def remove(place: str, run: str) -> str:
    """Remove the copies that a trial was made with."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(run, ignore_errors=True)
    return ""


def _follow(
    changes: Changes,
    made: dict[str, Any],
    limit: float,
    say: Callable[[dict[str, Any]], object],
    interrupts: _Interrupts,
) -> dict[str, Any]:
    """Run the trial in a process of its own and pass on what it tells; return its last word."""
    argv = [sys.executable, "-I", "-S", ENTRY_PATH, "trial", changes.name, made["plan"]]
    user = None if "own_run" in made else changes.context.user  # a trial in a container asks the engine
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AGENT_", "NOTIFY_", "WATCHDOG_"))}
    env.update({"HOME": user.home, "USER": user.name, "LOGNAME": user.name} if user else {})
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    running = command.start(argv, env=env, user=user, stdin_fd=null, stderr_fd=null)
    os.close(null)
    verdict: dict = {}
    lacks = ""
    try:
        for facts in _lines(running.stdout, limit):
            if "ok" in facts:
                verdict = facts
            else:
                lacks = facts.get("lacks", lacks)
                say(facts)
        verdict = verdict or {"ok": False, "why": "the trial ended without a verdict; its log tells more"}
        return {**verdict, "lacks": lacks}
    finally:
        interrupts.end()
        _end(running)


def _lines(fd: int, limit: float):
    """Yield what the trial tells, until it has ended or has used up all its time."""
    left = b""
    while select.select([fd], [], [], limit)[0]:
        data = os.read(fd, 65536)
        if not data:
            return
        *whole, left = (left + data).split(b"\n")
        yield from (json.loads(line) for line in whole)


def _end(running: command.Running) -> None:
    """See the trial's process off: asked first, so that the candidate ends with it."""
    os.close(running.stdout)
    ended = os.pidfd_open(running.pid)
    if not select.select([ended], [], [], 1.0)[0]:
        os.kill(running.pid, command.SIGTERM)
        if not select.select([ended], [], [], 60.0)[0]:
            running.kill()
            os.close(ended)
            return
    os.close(ended)
    os.waitpid(running.pid, 0)


# -- container try ---------------------------------------------------------------------------------
# `change try` of an agent in a container: the candidate's image, folders for the copies, a process that may ask the
# engine. What the agent's user may write is made by the agent's user.


def is_wanted(changes) -> bool:
    """Tell whether the agent is in a container; raise AgentctlError for who may not talk to the engine."""
    context = changes.context
    if not context.is_contained:
        return False
    if context.paths.scope == "system" and os.geteuid() != 0:
        raise AgentctlError(
            "a trial in a container needs Docker Engine, which the agent's user may not use",
            "as root: agentctl change try",
        )
    return True


def complete(changes, plan: dict, made: dict) -> dict:
    """Add what a trial in a container needs to the plan; return where plan and sockets are."""
    context = changes.context
    place = ComposeProject(context)
    with context.ledger() as ledger:
        image = images.of_commit(place, ledger, plan["commit"], context.repository.git)
    mark = os.urandom(3).hex()
    run = f"{os.path.dirname(context.paths.runtime_dir)}/try-{mark}"
    os.makedirs(run, mode=0o711)
    whole = {
        **plan,
        "folder": made["folder"],
        "run": run,
        "image": image,
        "file": place.file,
        "project": f"{place.project}-try-{mark}",
        "log": f"{run}/log",
        "kept_log": plan["log"],
    }
    with open(f"{run}/plan.json", "w", encoding="utf-8") as file:
        json.dump(whole, file)
    return {**made, "plan": f"{run}/plan.json", "own_run": run}


def keep_log(changes, made: dict, path: str) -> None:
    """Hand the log over to the agent's own folder, and remove ours."""
    run = made["own_run"]
    try:
        with open(f"{run}/log", encoding="utf-8", errors="replace") as file:
            changes.as_agent(_write, path, file.read())
    except OSError:
        pass  # it ended before it said anything
    shutil.rmtree(run, ignore_errors=True)


def _write(path: str, text: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return ""
