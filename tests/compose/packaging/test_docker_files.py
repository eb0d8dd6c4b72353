"""The images and the compose files: built without a network, nothing secret in a layer, nothing run as root."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from compose.images import AGENT, CHECKOUT, COMPOSES, DOCKER, build
from integration.world import wait_until
from kit import deadline
from kit.engine import BASE

pytestmark = pytest.mark.some_of("which", 1)  # of the versions of Compose

BUILDERS = {"classic": "0", "buildkit": "1"}


def checkout_with_secrets(folder: Path, secret: bytes) -> Path:
    """Copy what a build sees, and lay secrets wherever a person may have them."""
    for name in ("watchdog", "systemd", "packaging"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(CHECKOUT / ".dockerignore", folder / ".dockerignore")
    for name in (
        ".env",
        "secret.env",
        "watchdog/.env",
        "watchdog/agentctl/.env",
        "watchdog/agentctl/secret.env",
        "packaging/docker/secret.env",
        "packaging/docker/my.env",
        "systemd/secrets.json",
        ".git/config",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"TOKEN=" + secret + b"\n")
    return folder


def compose_call(which: str, project: str, folder: Path, file: str = "compose.yaml") -> list[str]:
    """Return how one of our compose files is used."""
    return [*COMPOSES[which], "-p", project, "-f", str(DOCKER / file), "--project-directory", str(folder)]


def traces(engine, secret: bytes) -> list[str]:
    """Name every file of the engine that holds the secret: layers, descriptions of images, the cache of the builder."""

    def search():
        argv = ["grep", "-rlFe", secret.decode(), engine.folder / "data"]
        found = deadline.run(argv, capture_output=True, text=True)
        return found if found.returncode in (0, 1) else None  # else the engine took something away meanwhile

    return wait_until(search, "a search that comes to its end", 180).stdout.splitlines()


@pytest.mark.parametrize("builder", BUILDERS)
def test_no_secret_is_in_any_layer(engine, tmp_path, builder):
    secret = os.urandom(16).hex().encode()
    folder = checkout_with_secrets(tmp_path / "checkout", secret)
    for target in ("agent", "watchdog"):
        build(engine, target, f"secretless-{target}-{builder}", folder, env={"DOCKER_BUILDKIT": BUILDERS[builder]})
    inside = engine.docker("run", "--rm", "--network", "none", "--entrypoint", "ls", f"secretless-agent-{builder}",
                           "/opt/agentctl/lib/agentctl")  # fmt: skip
    assert "entry.py" in inside.stdout, "not what was meant to be searched"
    assert traces(engine, secret) == []


def test_the_search_finds_a_secret_that_was_removed_in_a_later_layer(engine, tmp_path):
    secret = os.urandom(16).hex().encode()
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE}\nCOPY secret.env /x\nRUN rm /x\n")
    (tmp_path / "secret.env").write_bytes(secret)
    engine.docker("build", "--network", "none", "--tag", "leaky", tmp_path)
    assert traces(engine, secret)


def test_the_agents_image_is_no_root_and_has_an_init_and_a_health_check(engine, agent_image):
    config = json.loads(engine.ask("{{json .Config}}", agent_image))
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"][:2] == ["tini", "--"]
    assert "health" in config["Healthcheck"]["Test"]
    assert not [word for word in config["Env"] if "TOKEN" in word or "SECRET" in word]


def test_what_the_agents_container_needs_is_there_for_any_user(engine, agent_image):
    script = (
        "id -u; command -v agentctl tmux git tini >/dev/null && "
        "python3 -c 'from agentctl.agent import Agent; print(Agent.__name__)' && "
        "touch ~/mine && agentctl --help >/dev/null && ! touch /opt/agentctl/lib/agentctl/x 2>&- && echo well"
    )
    for user in ("1000:1000", "4711:4711"):
        said = engine.docker("run", "--rm", "--network", "none", "--user", user, "--entrypoint", "sh", agent_image,
                             "-c", script).stdout.split()  # fmt: skip
        assert said == [user.split(":")[0], "Agent", "well"]


def test_byte_code_is_there_and_used(engine, agent_image):
    ask = (
        "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, '/opt/agentctl/lib')\n"
        "import agentctl.agent as a, os; print(os.path.exists(a.__cached__))"
    )
    said = engine.docker("run", "--rm", "--network", "none", "--entrypoint", "python3", agent_image, "-I", "-c", ask)
    assert said.stdout.strip() == "True"


def test_the_watchdogs_image_has_compose_and_every_dependency(engine, watchdog_image):
    script = "docker compose version && agentctl --help && python3 -I -c 'import aiohttp, sqlalchemy, psutil, git'"
    assert "Compose" in engine.docker("run", "--rm", "--network", "none", "--entrypoint", "sh", watchdog_image, "-c",
                                      script).stdout  # fmt: skip


@pytest.mark.parametrize("which", COMPOSES)
@pytest.mark.parametrize("file", sorted(path.name for path in DOCKER.glob("compose*.yaml")))
def test_the_compose_files_are_read_by_both(engine, tmp_path, which, file):
    for name in (".env", "secret.env"):
        (tmp_path / name).touch()
    said = engine.run([*compose_call(which, "x", tmp_path, file), "config"], env={"AGENT_CONFIG_DIR": str(tmp_path)})
    assert "variable is not set" not in said.stderr
    assert f"source: {tmp_path}" in said.stdout


def test_the_shipped_compose_file_starts_as_it_is(engine, agent_image, tmp_path):
    """Names, folders, users and limits of the file fit the engine; what runs inside is another test's matter."""
    for name in ("code", "state", "run"):
        (tmp_path / name).mkdir()
    for name in (".env", "secret.env"):
        (tmp_path / name).write_text(f"FROM_{name.strip('.').replace('.', '_').upper()}=1\n")
    env = {
        f"AGENT_{name.upper()}_{where}": str(tmp_path / name)
        for name in ("code", "state", "run", "config")
        for where in ("DIR", "INSIDE")
    } | {"AGENT_CONFIG_DIR": str(tmp_path), "AGENT_IMAGE": agent_image}
    call = compose_call("v2", "asitis", tmp_path)
    said = engine.run(
        [
            *call,
            "run",
            "--rm",
            "--no-deps",
            "-T",
            "--entrypoint",
            "sh",
            "agent",
            "-c",
            "env | grep ^FROM_ | sort; touch /tmp/x && ls /srv/config/secret.env; pwd",
        ],
        env=env,
    )
    assert said.stdout.split() == ["FROM_ENV=1", "FROM_SECRET_ENV=1", "/srv/config/secret.env", str(tmp_path / "code")]
    engine.run([*call, "down"], env=env)


def test_a_folder_that_is_not_there_is_an_error_and_not_made_by_root(engine, agent_image, tmp_path):
    for name in (".env", "secret.env"):
        (tmp_path / name).touch()
    env = {"AGENT_CONFIG_DIR": str(tmp_path), "AGENT_IMAGE": agent_image, "AGENT_CODE_DIR": str(tmp_path / "nowhere")}
    for which in COMPOSES:
        call = compose_call(which, "nowhere", tmp_path)
        assert engine.run([*call, "up", "-d", "--no-build"], env=env, check=False).returncode != 0
        assert not (tmp_path / "nowhere").exists()
        engine.run([*call, "down"], env=env)


def test_the_agents_image_is_tagged_as_documented(engine, agent_image):
    assert engine.ask("{{.Id}}", AGENT) == agent_image == build(engine, "agent", AGENT)
