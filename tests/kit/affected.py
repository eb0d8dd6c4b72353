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
LIFE = ("integration/runtime/test_foreground.py", "system/recovery/test_failures.py")  # a whole life of an agent
# Where the change is -> tests by name that meet it in another process; the first that fits counts.
BY_PLACE = {
    "watchdog/agentctl/watchdog/*": ("integration/watchdog/*", "system/watchdog/*"),
    "watchdog/agentctl/changes/*": ("integration/changes/*", "integration/recovery/test_promotion*",
                                    "integration/recovery/test_review*", "integration/packaging/test_packaging*",
                                    "system/changes/*"),
    "watchdog/agentctl/retention/*": ("integration/retention/*",),
    "watchdog/agentctl/runtime/container/*": ("compose/*",),
    "watchdog/agentctl/runtime/*": (*LIFE, "integration/runtime/*", "integration/packaging/test_packaging*",
                                    "system/runtime/test_systemd*"),
    "watchdog/agentctl/presets/*": ("system/presets/test_presets*",),
    "watchdog/agentctl/state/snapshots/*": ("integration/recovery/test_kill_rollback*", "integration/state/*"),
    "watchdog/agentctl/state/*": (*LIFE, "integration/runner/test_sessions*", "integration/state/*"),
    "watchdog/agentctl/generations/*": (*LIFE, "integration/generations/*", "integration/*/test_kill_*"),
    "watchdog/agentctl/ledger/*": ("integration/ledger/*", "integration/generations/test_rebuild*",
                                   "integration/*/test_kill_*"),
    "watchdog/agentctl/recovery/*": (*LIFE, "integration/recovery/test_kill_rollback*",
                                     "integration/recovery/test_requests*", "integration/recovery/test_review*",
                                     "system/recovery/test_interruptions*"),
    "watchdog/agentctl/runner/container*": ("compose/*",),
    "watchdog/agentctl/runner/*": (*LIFE, "integration/runner/*", "integration/generations/test_repair_staging*",
                                   "integration/runtime/test_tmux*"),
    "watchdog/agentctl/host/*": (*LIFE, "integration/host/*", "integration/runtime/test_tmux*",
                                 "system/recovery/test_machine*"),
    "watchdog/agentctl/config/*": (*LIFE, "integration/changes/test_adopt*"),
    "watchdog/agentctl/cli/*": (*LIFE, "integration/cli/*", "system/cli/*"),
    "watchdog/agentctl/rescue.py": ("system/test_rescue*", "system/recovery/test_storage*"),
    "watchdog/agentctl/*": LIFE,
    "systemd/*": (*LIFE, "system/runtime/*"),
    "packaging/docker/*": ("compose/*",),
    "packaging/box.py": ("system/packaging/test_box*",),
    "packaging/demo*": ("system/packaging/test_demo*", "unit/packaging/test_demo*"),
    "packaging/example_agent/*": ("unit/packaging/test_example*", "system/presets/test_real_agent*"),
    "packaging/test": ("integration/packaging/test_commit_hooks*",),
    "packaging/check_subject": ("integration/packaging/test_commit_hooks*",),
    "packaging/*": ("integration/packaging/test_packaging*",),
    "docs/*": ("house/test_readme*", "house/test_watchdog_docs*", "unit/cli/*", "unit/config/*"),
    "README.md": ("house/test_readme*",),
    ".pre-commit-config.yaml": ("integration/packaging/test_commit_hooks*",),
    "pyproject.toml": ("house/*", "unit/*", "integration/packaging/*"),
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
    return [path for folder in test.parents if (path := folder / "conftest.py").exists() and path.is_relative_to(TESTS)]


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
    return sorted(str(path.relative_to(CHECKOUT)) for path in TESTS.rglob("test_*.py"))


def main(base: str = "HEAD") -> None:
    """Print the files that the changes since `base` may touch."""
    tests = all_tests()
    print(*affected(changed_since(base), tests, {test: needs_of(CHECKOUT / test) for test in tests}), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
