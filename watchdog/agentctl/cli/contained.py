"""The verbs inside an agent's container, where there is no ledger: `supervise` (its entry), `status`, `attach`.

The other verbs are the agent's own, over the runner's API, or somebody's outside.
"""

from __future__ import annotations

import os

from ..errors import AgentctlError

WORK_INSIDE = ("restart", "hook", "protocol")


def run(words: list[str]) -> int | None:
    """Run a verb of the container's; None if it is none of them."""
    plain = [word for word in words if word not in ("--json", "--read-only")]
    if plain == ["supervise"]:
        from ..running import inner

        return inner.main()
    if plain == ["status"]:
        from ..running import health

        return health.main(as_json="--json" in words)
    if plain == ["attach"]:
        return _attach(is_read_only="--read-only" in words)
    verb = _verb_of(words)
    if verb and verb not in WORK_INSIDE:
        raise AgentctlError(
            f"'{verb}' does not work inside the agent's container: the records are outside",
            f"outside: agentctl {' '.join(words)}",
        )
    _know_the_launch()
    return None


def _verb_of(words: list[str]) -> str:
    rest = iter(words)
    for word in rest:
        if word == "--name":
            next(rest, "")
        elif not word.startswith("-"):
            return word
    return ""


def _know_the_launch() -> None:
    """Somebody who came in by `docker exec` means the agent that runs here."""
    from ..running.inner import VARIABLE, read_launch

    try:
        told = read_launch(os.environ[VARIABLE])["env"]
    except AgentctlError:
        return  # another user's; the verb says what it lacks
    for name in ("AGENT_NAME", "AGENT_API_URL", "AGENT_LAUNCH_ID"):
        os.environ.setdefault(name, told[name])


def _attach(*, is_read_only: bool) -> int:
    from ..machine.tmux import Tmux
    from ..running.inner import SESSION_NAME, TMUX_SOCKET

    tmux = Tmux(TMUX_SOCKET, None, {})
    if not tmux.has_server():
        raise AgentctlError(
            "the agent has no session in this container: it is not running", "outside: agentctl status; agentctl logs"
        )
    argv = tmux.attach_argv(SESSION_NAME, read_only=is_read_only)
    env = {**os.environ, "TMUX": "", "TERM": os.environ.get("TERM") or "xterm-256color"}
    os.execve(argv[0], argv, env)
    return 0
