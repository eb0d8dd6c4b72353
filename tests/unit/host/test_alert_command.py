"""The alert: the whole story where it can be told, one line where it cannot; secrets stay here."""

import http.server
import re
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentctl import rescue
from agentctl.generations.agent_context import AgentContext
from agentctl.host import alert_command
from kit import deadline
from ledger_builder import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home(tmp_path, monkeypatch)
    made.generation(1)
    made.launch("L1")
    yield made
    made.close()


def test_it_goes_out_where_the_story_cannot_be_told(home, tmp_path, monkeypatch):
    monkeypatch.setattr(alert_command, "ENTRY_PATH", "/nonexistent.py")
    context = AgentContext.open("agent")
    out = tmp_path / "out"
    rollback = SimpleNamespace(alert=["sh", "-c", f"cat >{out}"])
    alert_command.send(SimpleNamespace(paths=context.paths, config=SimpleNamespace(rollback=rollback)), "halted")
    assert out.read_text() == "agentctl: agent 'agent' is halted\n\n'agentctl --name agent why' tells it again.\n"


@pytest.fixture
def webhook():
    """Serve on loopback; what was posted to which path is in `posted`."""

    class Take(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            self.server.posted.append((self.path, self.rfile.read(length).decode()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Take)
    server.posted = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    deadline.join(thread)
    server.server_close()


def test_the_webhook_of_the_manual_is_told(home, tmp_path, webhook, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    text = (Path(__file__).resolve().parents[3] / "docs/watchdog.md").read_text()
    shown = re.search(r"```toml\n(\[rollback\]\nalert = .*?)```", text, re.DOTALL)[1]
    address = tmp_path / "webhook"
    address.write_text(f'url = "http://127.0.0.1:{webhook.server_port}/secret-path"\n')
    argv = tomllib.loads(shown.replace("/etc/agentctl/webhook", str(address)))["rollback"]["alert"]
    assert str(address) in argv
    home.incident(reason="died of it")
    context = AgentContext.open("agent")
    rollback = SimpleNamespace(alert=argv)
    alert_command.send(SimpleNamespace(paths=context.paths, config=SimpleNamespace(rollback=rollback)), "halted")
    [(path, said)] = webhook.posted
    assert path == "/secret-path" and said.startswith("agentctl: agent 'agent' is halted\n") and "died of it" in said


@pytest.mark.parametrize("sender", ["runner", "rescue"])
def test_the_command_has_the_event_as_a_variable(home, tmp_path, sender):
    out = tmp_path / "out"
    argv = ["sh", "-c", f'cat >{out}; echo "event: $AGENTCTL_EVENT" >>{out}']
    if sender == "rescue":
        rescue.alert({"rollback": {"alert": argv}}, "agent", "in need of a human")
    else:
        rollback = SimpleNamespace(alert=argv)
        alert_command.send(
            SimpleNamespace(paths=AgentContext.open("agent").paths, config=SimpleNamespace(rollback=rollback)),
            "in need of a human",
        )
    assert out.read_text().startswith("agentctl: agent 'agent' is in need of a human\n")
    assert out.read_text().endswith("event: in need of a human\n")
