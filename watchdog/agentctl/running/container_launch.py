"""What a container's entry is given: the launch as a file, the contract's variables as they are inside."""

from __future__ import annotations

from .. import durable
from .. import lean_json as json
from ..compose import choices
from ..decisions import policy
from ..errors import AgentctlError
from ..launching.agent_environment import build_environment

OF_THE_HOST = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
UNDER = ("AGENT_CODE_DIR", "AGENT_STATE_DIR", "AGENT_TASK_FILE", "AGENT_HISTORY_FILE", "AGENT_BRIEF_FILE")


class StoppedEarly(AgentctlError):
    """A stop came while the image was built: no failure."""

    end, trigger = policy.STOPPED, "stop"


class BuiltTooLong(AgentctlError):
    """Whoever watches us lost patience while the image was built: a failure."""

    trigger = "not-ready"


def environment(station, launch) -> dict[str, str]:
    """Return the contract as it is inside; what the image says of its own world stays as it is there."""
    settings, given = station.config.compose, station.config.agent.environment
    env = {
        name: value
        for name, value in build_environment(station, launch, {}).items()
        if name not in OF_THE_HOST or name in given
    }
    moves = [(station.state_dir, settings.state), (station.code_dir, settings.code)]
    return {**env, **choices.moved_inside({name: env[name] for name in UNDER if name in env}, moves)}


def leave(station, launch_id: str, argv: list[str], env: dict[str, str]) -> None:
    """Write down what is to be started, where the agent's user alone reads it."""
    settings = station.config
    facts = {
        "launch_id": launch_id,
        "argv": argv,
        "env": env,
        "cwd": env["AGENT_CODE_DIR"],
        "stop_grace": settings.agent.stop_grace,
        "timeout_seconds": settings.heartbeat.timeout,
        "api": station.places.api_socket_path,
    }
    durable.write(station.places.launch_path, json.dumps(facts).encode(), 0o600, station.owner)
