"""The environment the agent gets: the contract's variables, and nothing of ours by accident."""

from __future__ import annotations

import os

from ..config.context import Station
from ..core.paths import SYSTEM
from ..runner.launch import Launch
from ..state import history

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_environment(station: Station, launch: Launch, ours: dict[str, str]) -> dict[str, str]:
    """Build the agent's environment for one launch (DESIGN: the contract with the agent)."""
    settings = station.config
    passed = set(PASSED_ON) | set(settings.agent.pass_environment)
    if station.user is None:
        passed |= {"HOME", "USER", "LOGNAME", "SHELL"}
    env = {name: value for name, value in ours.items() if name in passed}
    env.setdefault("PATH", DEFAULT_PATH)
    if station.user is not None:
        env.update(HOME=station.user.home, USER=station.user.name, LOGNAME=station.user.name, SHELL="/bin/sh")
    env["TERM"] = "tmux-256color"
    env.update(settings.agent.environment)
    env.update(_contract(station, launch))
    return env


def _contract(station: Station, launch: Launch) -> dict[str, str]:
    places, settings = station.places, station.config
    env = {
        "AGENT_NAME": places.name,
        "AGENT_GENERATION": str(launch.generation["number"]),
        "AGENT_COMMIT": launch.generation["commit_id"],
        "AGENT_LAUNCH_ID": launch.id,
        "AGENT_CODE_DIR": station.code_dir,
        "AGENT_STATE_DIR": station.state_dir,
        "AGENT_TASK_FILE": station.task_path,
        "AGENT_HISTORY_FILE": station.history_path,
        "AGENT_API_URL": f"http+unix://{places.api_socket_path.replace('/', '%2F')}",
        "AGENT_TOKEN_FILE": places.token_path,
        "NOTIFY_SOCKET": places.notify_socket_path,
        "WATCHDOG_USEC": str(int(settings.heartbeat.timeout * 1e6)),
    }
    if places.scope == SYSTEM:
        env["AGENTCTL_SCOPE"] = SYSTEM  # `agentctl` inside the agent means this agent, whoever it runs as
    if places.root:
        env["AGENTCTL_ROOT"] = places.root
    if os.path.exists(station.brief_path):
        env["AGENT_BRIEF_FILE"] = station.brief_path
    if has_something_to_resume(station):
        env["AGENT_RESUMED"] = "1"
    return env


def keeps_own_sessions(settings) -> bool:
    """Tell whether `[resume]` is used: most agents need none of it."""
    return (
        bool(settings.resume.store)
        or settings.resume.message != "none"
        or any("{session}" in word for word in (*settings.agent.command, *settings.agent.resume_command))
    )


def has_something_to_resume(station: Station) -> bool:
    """Tell whether there is a task or a history."""
    return os.path.exists(station.task_path) or bool(history.tail(station.history_path, 1))


def choose_command(station: Station, env: dict[str, str]) -> list[str]:
    """Choose what to start where `[resume]` says nothing: the resume command where there is something to resume."""
    agent = station.config.agent
    return list(agent.resume_command if env.get("AGENT_RESUMED") and agent.resume_command else agent.command)
