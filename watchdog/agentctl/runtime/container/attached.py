"""The tmux inside the agent's container, from outside: keys, screen, a person's terminal."""

from __future__ import annotations

import os

from ...core.errors import AgentctlError, CommandFailed
from ..tmux import Tmux
from .compose_project import ComposeProject
from .entrypoint import SESSION_NAME, TMUX_SOCKET


class InnerTmux(Tmux):
    """The agent's terminal in its container; every question is a command in there."""

    def __init__(self, engine, container: str) -> None:
        self.engine, self.container = engine, container
        self.socket_path, self.user, self.env, self.program = TMUX_SOCKET, None, {}, "tmux"
        self.was_drained = False

    def _run(self, words: list[str], env: dict[str, str], cwd: str, limit_seconds: float = 10.0) -> str:
        argv = ["exec", self.container, self.program, "-u", "-S", self.socket_path, *words]
        try:
            return self.engine.run(*argv, limit_seconds=limit_seconds).text
        except CommandFailed:
            raise
        except AgentctlError as error:  # whoever asks tmux something knows what to do when that fails
            raise CommandFailed(argv, 1, b"", b"", error.message) from error

    def attach_argv(self, session: str, *, read_only: bool = False) -> list[str]:
        """Return what a person's terminal has to run to see the agent in its container."""
        inner = super().attach_argv(session, read_only=read_only)
        return [self.engine.program, "exec", "--interactive", "--tty", "--env", "TERM", self.container, *inner]


def attach(context, *, read_only: bool) -> None:
    """Become the command that shows a person the agent's session; raise AgentctlError where none runs."""
    place = ComposeProject(context)
    facts = place.facts()
    if not facts or facts["State"]["Status"] != "running":
        raise AgentctlError(
            f"agent '{context.paths.name}' has no session: its container does not run",
            "agentctl status; agentctl logs",
        )
    argv = InnerTmux(place.engine, place.known_container()).attach_argv(SESSION_NAME, read_only=read_only)
    os.execve(argv[0], argv, {**os.environ, **place.engine.env})
