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
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb and verb not in WORK_INSIDE:
        raise AgentctlError(f"'{verb}' does not work inside the agent's container: the records are outside",
                            f"outside: agentctl {' '.join(words)}")
    return None


def _attach(*, is_read_only: bool) -> int:
    from ..machine.tmux import Tmux
    from ..running.inner import SESSION_NAME, TMUX_SOCKET

    tmux = Tmux(TMUX_SOCKET, None, {})
    if not tmux.has_server():
        raise AgentctlError("the agent has no session in this container: it is not running",
                            "outside: agentctl status; agentctl logs")
    argv = tmux.attach_argv(SESSION_NAME, read_only=is_read_only)
    env = {**os.environ, "TMUX": "", "TERM": os.environ.get("TERM") or "xterm-256color"}
    os.execve(argv[0], argv, env)
    return 0
