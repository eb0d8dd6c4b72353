"""Files that come with us: each kind is found, in a checkout and where we are installed."""

import sys
from pathlib import Path

import pytest

from agentctl.core import shipped
from ledger_builder import ROOT


@pytest.mark.parametrize(
    ("package", "name", "place"),
    [("agentctl.units", "agent.service", "systemd"), ("agentctl.docker", "Dockerfile", "packaging/docker")],
)
def test_a_file_of_the_checkout(package, name, place):
    assert shipped.read(package, name) == Path(ROOT, place, name).read_text()


def test_what_is_installed_comes_first(tmp_path, monkeypatch):
    folder = tmp_path / "agentctl_units_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "agent.service").write_text("[Unit]\n# ü\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert shipped.read(folder.name, "agent.service") == "[Unit]\n# ü\n"
    finally:
        sys.modules.pop(folder.name, None)


def test_a_file_that_is_not_there_is_an_os_error():
    with pytest.raises(OSError):
        shipped.read("agentctl.units", "nobody.service")
