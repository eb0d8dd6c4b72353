"""The house as DESIGN draws it: imports go inward only, and the rescue path stays on the standard library."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "watchdog" / "agentctl"

WORDS = {
    "errors", "durations", "kinds", "settings", "config", "config_edit", "config_text", "policy", "heartbeat", "paths",
    "lean_json", "durable", "hook_events", "preset", "offline", "periods", "mask",
    "retention",
}  # fmt: skip
HANDS = {
    "entries", "moving", "mounts", "carrying",
    "command", "git", "git_folder", "git_tidy", "staging", "vault", "repository", "salvage", "damage", "slots",
    "ledger", "process", "systemd", "tmux", "notify", "journal", "pane", "history", "history_mend", "task",
    "task_rebuild", "status_file", "runner_client", "alert", "work_tree",
    "session_store", "http_look", "aliveness", "history_copy",
    "archive", "vault_copy", "vault_lock",
    "ballast",
}  # fmt: skip
STORIES = {
    "station", "launch", "runner", "session", "background", "jobs", "probe", "api", "agent_environment", "rollback",
    "attempt", "incident", "evidence", "brief", "state", "environment", "mend_repository", "rebuild", "after_rescue",
    "adopt", "install", "requests", "supervise", "loop", "ending", "feed",
    "resumption",
    "ignored", "holdings", "prune", "prune_plan",
    "mend_staging",
    "room", "present_state",
}  # fmt: skip
ALONE = {
    "rescue": set(), "waiting": set(), "agent": {"task", "history", "durable", "errors"}, "entry": None,
    "__init__": set(),
}  # fmt: skip
OWNERS = {
    "psutil": {"process", "cli.status"}, "sdnotify": {"agent"}, "tomllib": {"config"}, "tomli_w": {"config"},
    "click": {"cli"}, "git": {"cli"}, "sqlalchemy": {"store"}, "aiohttp": {"server"}, "prometheus_client": {"server"},
}  # fmt: skip
RESCUE_PATH = ("runner", "rollback", "jobs")
HEAVY = {"subprocess", "dataclasses", "typing", "re", "enum", "json", "asyncio", "logging", "pathlib", "tomllib"}

# The change workflow, in all rings.
WORDS |= {"change", "protocol", "world", "mistake"}
HANDS |= {"worktree", "gate", "syntax", "hooks", "inside"}
STORIES |= {"changes", "change_records", "check", "trial", "trying", "promotion", "promoting"}
OWNERS["git"] = {"worktree"}
OWNERS["tomllib"] = {"config", "syntax"}

# The runtime `compose`.
WORDS |= {"contradictions", "engine_kinds"}
STORIES |= {"compose"}


def modules():
    """Every module of the package with the names of ours and of others that it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, *_imports(ast.parse(path.read_text()), name)


def _imports(tree, name):
    ours, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            top = node.module.split(".")[0] if node.module else None
            ours |= {top} if top else {alias.name for alias in node.names}
    return ours, others


def ring(name):
    top = name.split(".")[0]
    if top in ("cli", "server"):
        return 4
    if top in STORIES:
        return 3
    if top in HANDS or top in ("snapshots", "store"):
        return 2
    return 1 if top in WORDS else 0


ALL = list(modules())


@pytest.mark.parametrize(("name", "ours", "others"), ALL, ids=[m[0] for m in ALL])
def test_imports_go_inward_only(name, ours, others):
    if name in ALONE:
        allowed = ALONE[name]
        assert allowed is None or ours <= allowed
        return
    assert ring(name), f"{name} has no ring: say in this test where it belongs"
    outward = {other for other in ours if ring(other) > ring(name)}
    assert not outward, f"{name} (ring {ring(name)}) imports {outward}"


@pytest.mark.parametrize(("name", "ours", "others"), ALL, ids=[m[0] for m in ALL])
def test_each_outside_library_has_one_owner(name, ours, others):
    for library in others & OWNERS.keys():
        assert {name, name.split(".")[0]} & OWNERS[library], f"{name} imports {library}"


@pytest.mark.parametrize("part", RESCUE_PATH)
def test_the_rescue_path_is_standard_library_and_light(part):
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import agentctl.{part}\n"
        "import os; prefix = os.path.dirname(os.__file__)\n"
        "print('\\n'.join(f'{n} {getattr(m, \"__file__\", None) or \"\"}' for n, m in sys.modules.items()))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    foreign = {n for n, file in loaded.items() if "site-packages" in file or "dist-packages" in file}
    assert not foreign
    assert not HEAVY & loaded.keys()


def test_policy_and_heartbeat_are_pure():
    for name in ("policy", "heartbeat", "offline", "periods"):
        _, others = _imports(ast.parse((PACKAGE / f"{name}.py").read_text()), name)
        assert others <= {"__future__"}


def test_files_stay_rooms():
    """A file over 300 lines wants to be split; what is over it is named here with its reason."""
    excused = {"session"}
    big = {name for name, *_ in ALL
           if len((PACKAGE / (name.replace(".", os.sep) + ".py")).read_text().splitlines()) > 300}  # fmt: skip
    assert big <= excused
