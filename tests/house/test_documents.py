"""What CONTRIBUTING.md and the documents say of the source is what is there: packages, layers, places, commands."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = CHECKOUT / "watchdog" / "agentctl"
ARCHITECTURE = (CHECKOUT / "docs/architecture.md").read_text()
GLOSSARY = (CHECKOUT / "docs/glossary.md").read_text()
DOCUMENTS = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of each row of the table that begins with `heading`, without its head."""
    _, found, rest = text.partition(f"\n| {heading} |")
    assert found, f"no table begins with '{heading}'"
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


# -- docs/architecture.md ---------------------------------------------------------------------------------------


def layers_of_contract() -> list[set[str]]:
    """Return the layers of import-linter's contract, the highest first."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    (contract,) = project["tool"]["importlinter"]["contracts"]
    return [{part.strip().removeprefix("agentctl.") for part in layer.split("|")} for layer in contract["layers"]]


def layers_of_picture(picture: str) -> list[set[str]]:
    """Return the layers that the arrows of a picture make, the highest first; each arrow goes to the next one."""
    arrows = [[set(end.split(" & ")) for end in line.split(" --> ")]
              for line in map(str.strip, picture.splitlines()) if "-->" in line]  # fmt: skip
    for (_, under), (over, _) in itertools.pairwise(arrows):
        assert under == over, f"after the arrow to {under} comes one from {over}"
    return [arrows[0][0], *(under for _, under in arrows)]


def pictures() -> list[str]:
    return re.findall(r"```mermaid\n(.*?)```", ARCHITECTURE, re.DOTALL)


def test_the_picture_has_the_layers_of_the_contract():
    assert layers_of_picture(pictures()[0]) == layers_of_contract()


def test_the_picture_says_what_each_package_is():
    said = re.findall(r'^    (\w+)\["(\w+)(?:\.py)?: \w.*"\]$', pictures()[0], re.MULTILINE)
    assert all(name == label for name, label in said)
    assert sorted(name for name, _ in said if name != "entry") == PACKAGES


def test_each_package_has_its_line():
    named = [re.findall(r"`(\w+)/`", name)[0] for name, _ in rows(ARCHITECTURE, "Package")]
    assert sorted(named) == PACKAGES
    place = {name: number for number, layer in enumerate(layers_of_contract()) for name in layer}
    assert [place[name] for name in named] == sorted(place[name] for name in named)


def test_the_life_of_a_rollback_has_the_steps_of_the_executor():
    shown = re.findall(r"P->>D: steps? ([^:\n]+)", pictures()[1])
    names = re.findall(r'attempt\.step\("([^"]+)"', (PACKAGE / "recovery/executor.py").read_text())
    assert [name for line in shown for name in line.split(", ")] == [n for n in names if n not in ("task", "image")]


# -- docs/glossary.md -------------------------------------------------------------------------------------------

TERMS = rows(GLOSSARY, "Term")


def test_terms_are_in_order_and_said_once():
    terms = [term for term, _, _ in TERMS]
    assert terms == sorted(set(terms), key=str.casefold)


@pytest.mark.parametrize(("term", "means", "home"), TERMS, ids=[row[0] for row in TERMS])
def test_a_term_has_its_sentence_and_is_at_home_somewhere(term, means, home):
    assert means.endswith((".", "..."))
    places = re.findall(r"`([^`]+)`", home)
    assert places, "it has no home"
    assert [place for place in places if not any((top / place).is_file() for top in (PACKAGE, CHECKOUT))] == []


def test_words_that_are_not_used_lead_to_terms():
    terms = {term for term, _, _ in TERMS}
    for words, instead in rows(GLOSSARY, "Not"):
        first = re.split(r"[,;]", instead)[0]
        assert first in terms, f"'{words}' leads to '{first}', which is no term"


# -- commands ---------------------------------------------------------------------------------------------------


def commands() -> set[str]:
    """Return the commands that packaging/test takes."""
    (named,) = re.findall(r"^    ([a-z]+(?: \| [a-z]+)+)\)$", (CHECKOUT / "packaging/test").read_text(), re.MULTILINE)
    return set(named.split(" | "))


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_commands_of_the_tests_that_are_named_exist(path):
    named = set(re.findall(r"packaging/test ([a-z]+)(?=[ `)\n])", re.sub(r"`packaging/test`", "", path.read_text())))
    assert named <= commands()


def test_every_command_of_the_tests_is_in_contributing_and_in_its_own_help():
    text, script = (CHECKOUT / "CONTRIBUTING.md").read_text(), (CHECKOUT / "packaging/test").read_text()
    named = {name for row in rows(text, "Command") for name in re.findall(r"packaging/test ([a-z]+)", row[0])}
    assert named == commands()
    head = script.partition("\nset ")[0]
    assert [name for name in sorted(commands()) if not re.search(rf"^#   (?:\w+, )*{name}\b", head, re.MULTILINE)] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_every_file_that_a_document_links_to_is_there(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert ":" in target or (path.parent / target).exists(), target
