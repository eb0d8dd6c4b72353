"""The report of an alert: whole, and with every secret masked."""

from agentctl.cli import alert_text
from agentctl.host import alert_command


def test_the_story_is_masked(home, capsys):
    home.generation(1)
    home.launch("L1")
    with open(home.paths.config_path, "a") as file:
        file.write('environment = { SOME_TOKEN = "let-nobody-see" }\n')
    home.incident(reason="died of let-nobody-see and sk-" + "a" * 20)
    assert alert_text.main("agent") == 0
    said = capsys.readouterr().out
    assert "died of [masked] and [masked]" in said


def test_without_an_incident_there_is_no_story(home, capsys):
    home.generation(1)
    assert (alert_text.main("agent"), capsys.readouterr().out) == (1, "")
    assert alert_command.report_of("agent") == ""
