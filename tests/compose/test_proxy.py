"""The socket proxy in front of a real engine: Compose works through it, and nothing else does."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from compose.images import COMPOSES, DOCKER
from integration.world import wait_until
from kit.engine import BASE

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
    proxy.wait()
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
