"""The alert: the whole story where it can be told, one line where it cannot; secrets stay here."""

from types import SimpleNamespace

import pytest

from agentctl.cli import told
from agentctl.machine import alert
from agentctl.station import Station
from ledger_builder import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path, monkeypatch)
    made.generation(1)
    made.launch("L1")
    yield made
    made.close()


def test_the_story_is_masked(home, capsys):
    with open(home.places.config_path, "a") as file:
        file.write('environment = { SOME_TOKEN = "let-nobody-see" }\n')
    home.incident(reason="died of let-nobody-see and sk-" + "a" * 20)
    assert told.main("agent") == 0
    said = capsys.readouterr().out
    assert "died of [masked] and [masked]" in said


def test_without_an_incident_there_is_no_story(home, capsys):
    assert (told.main("agent"), capsys.readouterr().out) == (1, "")
    assert alert.story_of("agent") == ""


def test_it_goes_out_where_the_story_cannot_be_told(home, tmp_path, monkeypatch):
    monkeypatch.setattr(alert, "ENTRY_PATH", "/nonexistent.py")
    station = Station.open("agent")
    out = tmp_path / "out"
    rollback = SimpleNamespace(alert=["sh", "-c", f"cat >{out}"])
    alert.send(SimpleNamespace(places=station.places, config=SimpleNamespace(rollback=rollback)), "halted")
    assert out.read_text() == "agentctl: agent 'agent' is halted\n\n'agentctl --name agent why' tells it again.\n"
