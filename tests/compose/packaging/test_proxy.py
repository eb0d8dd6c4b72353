"""The socket proxy in front of a real engine: Compose works through it, and nothing else does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from compose.images import COMPOSES, DOCKER
from integration.world import wait_until
from kit import deadline
from kit.engine import BASE

pytestmark = pytest.mark.some_of("which", 1)  # of the versions of Compose

FILE = f"""services:
  agent:
    image: {BASE}
    init: true
    command: ["sh", "-c", "echo hello; exec sleep 1000"]
    labels: {{generation: "${{GENERATION:-1}}"}}
    volumes:
      - {{type: bind, source: "${{HOME_FOLDER}}", target: /srv/agent}}
      - data:/data
    tmpfs: ["/tmp"]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
volumes: {{data: {{}}}}
"""


def is_open(door) -> bool:
    """Tell whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(door)) == 0


@pytest.fixture
def through(engine, tmp_path):
    """Run docker or Compose through a proxy for the project `bot`; return the process, done."""
    (tmp_path / "home").mkdir()
    (tmp_path / "compose.yaml").write_text(FILE)
    door = engine.folder / "proxy.sock"
    door.unlink(missing_ok=True)
    proxy = subprocess.Popen([sys.executable, "-I", "-S", DOCKER / "proxy.py", "--project", "bot", "--listen", door,
                              "--folder", tmp_path / "home", "--engine", engine.folder / "sock"])  # fmt: skip
    wait_until(lambda: is_open(door), "the proxy's socket", 120)

    def run(*words, **more):
        env = {"DOCKER_HOST": f"unix://{door}", "DOCKER_BUILDKIT": "0", "HOME_FOLDER": str(tmp_path / "home")}
        return engine.run([*map(str, words)], env={**env, **more.pop("env", {})}, **more)

    yield run
    proxy.terminate()
    deadline.wait(proxy)
    for name in engine.containers():
        engine.docker("rm", "--force", name)


@pytest.mark.parametrize("which", COMPOSES)
def test_compose_works_through_the_proxy(engine, through, tmp_path, which):
    call = [*COMPOSES[which], "-p", "bot", "-f", tmp_path / "compose.yaml"]
    through(*call, "up", "-d", "--no-build")
    (first,) = engine.containers("com.docker.compose.project=bot")
    assert engine.ask("{{.State.Running}}", first) == "true"
    wait_until(lambda: "hello" in through(*call, "logs", "agent").stdout, "the logs", 120)
    through(*call, "up", "-d", "--no-build", env={"GENERATION": "2"})  # stop, rename, create, start, remove
    (second,) = engine.containers("com.docker.compose.project=bot")
    assert second != first and engine.ask('{{index .Config.Labels "generation"}}', second) == "2"
    assert through("docker", "ps", "-q", "--no-trunc").stdout.split() == [second]
    said = through("docker", "exec", "-i", second, "sh", "-c", "cat; exit 5", input="talk\n", check=False)
    assert (said.stdout, said.returncode) == ("talk\n", 5)
    through(*call, "stop", "-t", "60")
    assert through("docker", "wait", second).stdout.strip() in ("143", "0")
    through(*call, "down")
    assert engine.volume_path("bot_data").is_dir()


def test_an_image_is_built_and_tagged_through_the_proxy(engine, through, tmp_path):
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nCOPY big /big\n")
    (tmp_path / "big").write_bytes(bytes(range(256)) * 40_000)
    through("docker", "build", "--network", "none", "-t", "agentctl-bot:g1", tmp_path)
    through("docker", "tag", "agentctl-bot:g1", "agentctl-bot:lkg")
    assert engine.ask("{{.Id}}", "agentctl-bot:g1") == engine.ask("{{.Id}}", "agentctl-bot:lkg")


def test_the_engines_own_error_comes_through(through):
    assert "No such image" in through("docker", "tag", "nothing-there:1", "agentctl-bot:x", check=False).stderr


def test_what_is_not_the_agents_is_out_of_reach(engine, through, tmp_path):
    other = engine.docker("run", "--detach", "--init", "--volume", "theirs:/v", BASE, "sleep", "1000").stdout.strip()
    bind, label = f"{tmp_path}:/x", "com.docker.compose.project=bot"
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\n")
    for words in (
        ["stop", other], ["rm", "-f", other], ["exec", other, "true"], ["network", "rm", "none"],
        ["volume", "rm", "theirs"], ["pull", "python"],
        ["run", BASE, "true"], ["run", "--label", label, "--privileged", BASE, "true"],
        ["run", "--label", label, "-v", bind, BASE, "true"], ["image", "rm", BASE], ["volume", "prune", "-f"],
        ["build", "-t", BASE, tmp_path], ["cp", f"{other}:/etc/passwd", tmp_path / "stolen"], ["tag", BASE, "other:1"],
    ):  # fmt: skip
        done = through("docker", *words, check=False)
        assert done.returncode != 0 and "agentctl's proxy refuses" in done.stdout + done.stderr, (words, done)
    assert engine.ask("{{.State.Running}}", other) == "true"
    assert engine.volume_path("theirs").is_dir()


# --- ways around: what the engine understands otherwise than it looks

JSON, FORM = "Content-Type: application/json", "Content-Type: application/x-www-form-urlencoded"
UPGRADE = ("Connection: Upgrade", "Upgrade: tcp")
LABEL = "com.docker.compose.project=bot"


def request(method: str, path: str, body: dict | str = "", *fields: str) -> bytes:
    text = body if isinstance(body, str) else json.dumps(body)
    head = [f"{method} {path} HTTP/1.1", "Host: docker", *(fields or (JSON,)), f"Content-Length: {len(text)}"]
    return "\r\n".join([*head, "", text]).encode()


def say(engine, *requests: bytes) -> str:
    """Send requests one after the other over one connection to the proxy; return all that comes back."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(20)
        door.connect(str(engine.folder / "proxy.sock"))
        try:
            door.sendall(requests[0])
            answer = door.recv(65536)
            for more in requests[1:]:
                door.sendall(more)
            while data := door.recv(65536):
                answer += data
        except ConnectionError:
            pass  # it was not listened to any more
    return answer.decode("latin-1")


@pytest.mark.parametrize("fields", [(JSON,), (JSON, *UPGRADE), ("Content-Type: odd", *UPGRADE)], ids=str)
def test_nothing_comes_through_behind_a_command_in_a_container(engine, through, fields):
    ours = through("docker", "run", "--detach", "--init", "--label", LABEL, BASE, "sleep", "1000").stdout.strip()
    made = say(engine, request("POST", f"/containers/{ours}/exec", {"Cmd": ["true"]}))
    command = json.loads(made.partition("\r\n\r\n")[2])["Id"]
    hidden = {"Image": BASE, "Cmd": ["true"], "HostConfig": {"Privileged": True}}
    said = say(engine, request("POST", f"/exec/{command}/start", {"Detach": True}, *fields),
               request("POST", "/containers/create?name=hidden", hidden, JSON, "Connection: close"))  # fmt: skip
    assert said.startswith("HTTP/1.1 400" if "Content-Type: odd" in fields else "HTTP/1.1 200"), "it was carried"
    assert said.count("HTTP/1.1") == 1
    assert engine.docker("container", "inspect", "hidden", check=False).returncode != 0


def test_what_older_versions_of_the_api_took_elsewhere_is_refused(engine, through):
    label, value = LABEL.split("=")
    rights = {"Privileged": True, "Binds": ["/:/host"]}
    made = {"Image": BASE, "Cmd": ["true"], "Labels": {label: value}}
    through("docker", "create", "--name", "plain", "--label", LABEL, BASE, "true")
    for asked in (
        request("POST", "/containers/create?name=top", {**made, **rights}),
        request("POST", "/v1.23/containers/plain/start", rights),
        request("POST", f"/images/{BASE}/tag?repo=agentctl-bot&tag=g1", "repo=theirs&tag=1", FORM, JSON),
        request("POST", f"/images/{BASE}/tag?repo=agentctl-bot&tag=g1", "repo=theirs&tag=1", FORM.replace(" ", "\r\n ")
                + ";a:b"),
    ):  # fmt: skip
        assert "agentctl's proxy refuses" in say(engine, asked), asked
    assert engine.docker("image", "inspect", "theirs:1", check=False).returncode != 0
    assert engine.ask("{{.HostConfig.Privileged}} {{.State.Status}}", "plain") == "false created"
