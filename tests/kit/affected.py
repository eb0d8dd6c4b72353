"""Which files of tests a change may touch: `python tests/kit/affected.py [BASE]` prints them, a line each.

A file of tests counts when it changed, when it imports what changed (itself or by a helper of the tests), or when
`BY_PLACE` names it for the place of the change: tests that run the command or the units import nothing of it. It is
a selection for work in between; a gate runs everything.
"""

from __future__ import annotations

import ast
import fnmatch
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TESTS = CHECKOUT / "tests"
SOURCE = "watchdog/"
ALWAYS = ("tests/house/test_architecture.py", "tests/house/test_documents.py", "tests/house/test_measures.py")
LIFE = ("integration/test_direct.py", "system/test_failures.py")  # a whole life of an agent
# Where the change is -> tests by name that meet it in another process; the first that fits counts.
BY_PLACE = {
    "watchdog/agentctl/watchdog/*": ("integration/test_watchdog*", "integration/test_store*", "system/test_watchdog*"),
    "watchdog/agentctl/changes/*": ("integration/test_change*", "integration/test_review*", "integration/test_adopt*",
                                    "integration/test_packaging*", "system/test_change*"),
    "watchdog/agentctl/retention/*": ("integration/test_prune*",),
    "watchdog/agentctl/runtime/container/*": ("compose/*",),
    "watchdog/agentctl/runtime/*": (*LIFE, "integration/test_tmux*", "integration/test_packaging*",
                                    "system/test_units*"),
    "watchdog/agentctl/presets/*": ("system/test_presets*",),
    "watchdog/agentctl/state/snapshots/*": ("integration/test_kill_rollback*", "integration/test_lost_state*"),
    "watchdog/agentctl/state/*": (*LIFE, "integration/test_sessions*", "integration/test_lost_state*"),
    "watchdog/agentctl/generations/*": (
        *LIFE, "integration/test_broken*", "integration/test_kill*", "integration/test_vault*",
        "integration/test_slots*", "integration/test_moving*", "integration/test_fallback*"),
    "watchdog/agentctl/ledger/*": ("integration/test_damaged*", "integration/test_rebuild*", "integration/test_kill*"),
    "watchdog/agentctl/recovery/*": (*LIFE, "integration/test_kill_rollback*", "integration/test_triggers*",
                                     "integration/test_review*", "system/test_interruptions*"),
    "watchdog/agentctl/runner/container*": ("compose/*",),
    "watchdog/agentctl/runner/*": (*LIFE, "integration/test_kill_launch*", "integration/test_after_power*",
                                   "integration/test_sessions*", "integration/test_tmux*", "integration/test_probes*"),
    "watchdog/agentctl/host/*": (*LIFE, "integration/test_tmux*", "system/test_machine*"),
    "watchdog/agentctl/config/*": (*LIFE, "integration/test_adopt*"),
    "watchdog/agentctl/cli/*": (*LIFE, "system/test_by_hand*"),
    "watchdog/agentctl/rescue.py": ("system/test_rescue*", "system/test_storage*"),
    "watchdog/agentctl/*": LIFE,
    "systemd/*": (*LIFE, "system/test_units*", "system/test_users*"),
    "packaging/docker/*": ("compose/*",),
    "packaging/box.py": ("system/test_box*",),
    "packaging/demo*": ("system/test_demo*", "unit/test_demo*"),
    "packaging/example_agent/*": ("unit/test_example*", "system/test_real_agent*"),
    "packaging/test": ("integration/test_commit_hooks*",),
    "packaging/check_subject": ("integration/test_commit_hooks*",),
    "packaging/*": ("integration/test_packaging*",),
    "docs/*": ("unit/test_*docs*", "unit/test_settings*", "unit/test_readme*"),
    "README.md": ("unit/test_readme*",),
    ".pre-commit-config.yaml": ("integration/test_commit_hooks*",),
    "pyproject.toml": ("house/*", "unit/*", "integration/test_packaging*", "integration/test_commit_hooks*"),
}  # fmt: skip


def changed_since(base: str) -> list[str]:
    """List the files that differ from `base`, also those git does not know yet."""
    asked = (["diff", "--name-only", base, "--"], ["ls-files", "--others", "--exclude-standard"])
    return sorted({line for words in asked for line in _git(*words).splitlines()})


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=60).stdout


def affected(changed: list[str], tests: list[str], needs: dict[str, set[str]]) -> list[str]:
    """Return those of the files `tests` that the change may touch; `needs` says which paths each of them imports."""
    wanted = set(ALWAYS)
    for path in changed:
        wanted |= {test for test in tests if path == test or path in needs[test]}
        for place, patterns in BY_PLACE.items():
            if fnmatch.fnmatch(path, place):
                wanted |= {test for test in tests if any(fnmatch.fnmatch(test, f"tests/{p}") for p in patterns)}
                break
    return [test for test in tests if test in wanted]


def needs_of(test: Path) -> set[str]:
    """Return the paths of what a file imports of ours: modules of the product, and helpers with what these import."""
    found: set[str] = set()
    pending = [test, *_conftests(test)]
    while pending:
        for path in _imports(pending.pop()):
            name = str(path.relative_to(CHECKOUT))
            if name not in found:
                found.add(name)
                if not name.startswith(SOURCE):
                    pending.append(path)
    return found | {str(path.relative_to(CHECKOUT)) for path in _conftests(test)}


def _conftests(test: Path) -> list[Path]:
    return [path for folder in (test.parent, TESTS) if (path := folder / "conftest.py").exists()]


def _imports(path: Path) -> set[Path]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {file for name in names if (file := _file_of(name)) is not None}


def _file_of(name: str) -> Path | None:
    for top in (CHECKOUT / SOURCE, TESTS, TESTS / "system", CHECKOUT / "packaging"):
        base = top / name.replace(".", "/")
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.exists():
                return file
    return None


def all_tests() -> list[str]:
    """List every file of tests, as a path below the checkout."""
    return sorted(str(path.relative_to(CHECKOUT)) for path in TESTS.glob("*/test_*.py"))


def main(base: str = "HEAD") -> None:
    """Print the files that the changes since `base` may touch."""
    tests = all_tests()
    print(*affected(changed_since(base), tests, {test: needs_of(CHECKOUT / test) for test in tests}), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
