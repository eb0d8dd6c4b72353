"""The environment the agent gets: the contract's variables, and nothing of ours by accident."""

from __future__ import annotations

import os

from ..config.context import Context
from ..core.paths import SYSTEM
from ..host.command import DEFAULT_PATH
from ..ledger.models import CurrentLaunch
from ..state import history

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


def build_environment(context: Context, launch: CurrentLaunch, ours: dict[str, str]) -> dict[str, str]:
    """Build the agent's environment for one launch, as docs/contract.md promises it."""
    settings = context.config
    passed = set(PASSED_ON) | set(settings.agent.pass_environment)
    if context.user is None:
        passed |= {"HOME", "USER", "LOGNAME", "SHELL"}
    env = {name: value for name, value in ours.items() if name in passed}
    env.setdefault("PATH", DEFAULT_PATH)
    if context.user is not None:
        env.update(HOME=context.user.home, USER=context.user.name, LOGNAME=context.user.name, SHELL="/bin/sh")
    env.update(TERM="tmux-256color", PYTHONFAULTHANDLER="1")  # a hang is ended with SIGABRT: that leaves its stack
    env.update(settings.agent.environment)
    env.update(_contract(context, launch))
    return env


def _contract(context: Context, launch: CurrentLaunch) -> dict[str, str]:
    paths, settings = context.paths, context.config
    env = {
        "AGENT_NAME": paths.name,
        "AGENT_GENERATION": str(launch.generation.number),
        "AGENT_COMMIT": launch.generation.commit_id,
        "AGENT_LAUNCH_ID": launch.id,
        "AGENT_CODE_DIR": context.code_dir,
        "AGENT_STATE_DIR": context.state_dir,
        "AGENT_TASK_FILE": context.task_path,
        "AGENT_HISTORY_FILE": context.history_path,
        "AGENT_API_URL": f"http+unix://{paths.api_socket_path.replace('/', '%2F')}",
        "AGENT_TOKEN_FILE": paths.token_path,
        "NOTIFY_SOCKET": paths.notify_socket_path,
        "WATCHDOG_USEC": str(int(settings.heartbeat.timeout * 1e6)),
    }
    if paths.scope == SYSTEM:
        env["AGENTCTL_SCOPE"] = SYSTEM  # `agentctl` inside the agent means this agent, whoever it runs as
    if paths.root:
        env["AGENTCTL_ROOT"] = paths.root
    if os.path.exists(context.brief_path):
        env["AGENT_BRIEF_FILE"] = context.brief_path
    if has_something_to_resume(context):
        env["AGENT_RESUMED"] = "1"
    return env


def keeps_own_sessions(settings) -> bool:
    """Tell whether `[resume]` is used: most agents need none of it."""
    return (
        bool(settings.resume.store)
        or settings.resume.message != "none"
        or any("{session}" in word for word in (*settings.agent.command, *settings.agent.resume_command))
    )


def has_something_to_resume(context: Context) -> bool:
    """Tell whether there is a task or a history."""
    return os.path.exists(context.task_path) or bool(history.tail(context.history_path, 1))


def choose_command(context: Context, env: dict[str, str]) -> list[str]:
    """Choose what to start where `[resume]` says nothing: the resume command where there is something to resume."""
    agent = context.config.agent
    return list(agent.resume_command if env.get("AGENT_RESUMED") and agent.resume_command else agent.command)
