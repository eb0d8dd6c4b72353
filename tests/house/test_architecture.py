"""The house: imports go inward only, and the rescue path stays on the standard library."""

import ast
import graphlib
import os
import sys
import tomllib
from pathlib import Path

import pytest

from kit import deadline

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "watchdog" / "agentctl"

OWNERS = {
    "psutil": {"host.procfs"}, "sdnotify": {"agent"},
    "tomllib": {"config.toml_file", "changes.checks"},
    "tomli_w": {"config.toml_edit"}, "click": {"cli"}, "git": {"generations.worktree"},
    "sqlalchemy": {"watchdog.store"}, "aiohttp": {"watchdog"}, "prometheus_client": {"watchdog"},
}  # fmt: skip
RESCUE_PATH = ("runner.runner", "recovery.process", "runner.jobs")
PURE = ("recovery.policy", "changes.rules", "retention.retention_rules", "runner.heartbeat", "watchdog.periods",
        "config.value_kinds", "ledger.models")  # fmt: skip
HEAVY = {"subprocess", "dataclasses", "typing", "re", "enum", "json", "asyncio", "logging", "pathlib", "tomllib",
         "ctypes"}  # fmt: skip


def modules():
    """Every module of the package with the names of ours and of others that it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        yield name, *_imports(ast.parse(path.read_text()), name)


def _imports(tree, name):
    """Return the tops of the package, and the libraries, that a module imports."""
    ours, others = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            place = [*name.split(".")[: -node.level], *(node.module or "").split(".")]
            top = next(filter(None, place), None)
            ours |= {top} if top else {alias.name for alias in node.names}
    return ours, others


ALL = list(modules())


def test_imports_go_inward_only():
    """What [tool.importlinter] in pyproject.toml says, also of imports inside functions."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    argv = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = deadline.run(argv, capture_output=True, text=True, cwd=CHECKOUT, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_has_its_layer():
    """One that the contract does not name could import what it wants."""
    layers = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {part.strip() for layer in layers for part in layer.split("|")}
    there = {f"agentctl.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert there == {name for name in named if name != "agentctl.entry"}


def test_no_two_modules_need_each_other():
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
             for path in PACKAGE.rglob("*.py")}  # fmt: skip
    needs = {name: set(_modules_of(path, files)) - {name} for name, path in files.items()}
    assert len([name for name in needs if needs[name]]) > 100
    graphlib.TopologicalSorter(needs).prepare()  # raises CycleError, which names the circle


def _modules_of(path, files):
    """Return our modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = path.relative_to(PACKAGE).parts[: -node.level]
            base = ".".join([*here, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                whole = f"{base}.{alias.name}".strip(".")
                yield from {whole, base if whole not in files else whole} & files.keys()


@pytest.mark.parametrize(("name", "allowed"), [("rescue", {"generations", "runtime"})])
def test_the_last_resort_stands_alone(name, allowed):
    assert next(ours for found, ours, _ in ALL if found == name) <= allowed


@pytest.mark.parametrize(("name", "ours", "others"), ALL, ids=[m[0] for m in ALL])
def test_each_outside_library_has_one_owner(name, ours, others):
    for library in others & OWNERS.keys():
        owners = OWNERS[library]
        assert any(f"{name}.".startswith(f"{owner}.") for owner in owners), f"{name} imports {library}"


@pytest.mark.parametrize("part", RESCUE_PATH)
def test_the_rescue_path_is_standard_library_and_light(part):
    code = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import agentctl.{part}\n"
        "import os; prefix = os.path.dirname(os.__file__)\n"
        "print('\\n'.join(f'{n} {getattr(m, \"__file__\", None) or \"\"}' for n, m in sys.modules.items()))"
    )
    done = deadline.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    foreign = {n for n, file in loaded.items() if "site-packages" in file or "dist-packages" in file}
    assert not foreign
    assert not HEAVY & loaded.keys()


@pytest.mark.parametrize("name", PURE)
def test_decisions_are_pure(name):
    """What they are given is all they know: the time, files and settings come as arguments."""
    for_types = {"typing", "collections"}
    assert next(others for found, _, others in ALL if found == name) <= {"__future__", "re", *for_types}


def test_rows_are_made_in_one_place():
    """Who wants a row in the ledger asks for it by name (`ledger.writers`, `ledger.change_records`)."""
    elsewhere = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("ledger.insert", "ledger.update")):
                elsewhere.add(path.relative_to(PACKAGE).as_posix())
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("ledger.db.execute"):
                elsewhere |= {path.relative_to(PACKAGE).as_posix()}
    assert elsewhere == {"ledger/writers.py", "ledger/change_records.py"}
