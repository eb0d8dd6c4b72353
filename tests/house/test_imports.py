"""Every name that a module takes from another of ours is there, also where it is imported late or seldom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "watchdog" / "agentctl"
FILES = sorted(PACKAGE.rglob("*.py"))


def defined(path):
    """Return the names at the top of a module, and the modules below a package."""
    names = set()
    if path.name == "__init__.py":
        names |= {found.stem for found in path.parent.iterdir()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def place_of(path, node):
    """Return the file that an import of ours means, None for another's."""
    if node.level == 0:
        words = (node.module or "").split(".")
        if words[0] != "agentctl":
            return None
        base = PACKAGE.joinpath(*words[1:])
    else:
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    found = [place for place in (base / "__init__.py", base.with_suffix(".py")) if place.exists()]
    return found[0] if found else base


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_what_is_imported_is_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        place = place_of(path, node)
        if place is None or place.parts[-2:] == ("units", "__init__.py"):
            continue
        assert place.is_file(), f"line {node.lineno}: no module {place}"
        for alias in node.names:
            assert alias.name in defined(place), f"line {node.lineno}: {place.name} has no {alias.name}"
