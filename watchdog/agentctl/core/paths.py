"""Where everything of one agent lives. Pure: names paths, touches nothing.

`AGENTCTL_ROOT` moves the whole of it below another folder, which is how tests and containers keep apart.
"""

from __future__ import annotations

import os

SYSTEM, USER = "system", "user"
PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENTRY_PATH = f"{PACKAGE_DIR}/entry.py"  # the door of the units, run as a file


class AgentPaths:
    """The paths of one agent, in one scope (`system` or `user`)."""

    def __init__(self, name: str, scope: str, environ: dict[str, str], uid: int) -> None:
        self.name, self.scope = name, scope
        self.root = environ.get("AGENTCTL_ROOT", "")
        config, data, runtime = _bases(self.root, scope, environ, uid)
        self.config_dir = f"{config}/{name}"
        self.data_dir = f"{data}/{name}"
        self.runtime_dir = f"{runtime}/{name}"
        self.config_path = f"{self.config_dir}/agent.toml"
        self.config_cache_path = f"{self.data_dir}/settings.json"
        self.ledger_path = f"{self.data_dir}/ledger.db"
        self.vault_path = f"{self.data_dir}/vault.git"
        self.staging_path = f"{self.data_dir}/staging.git"
        self.snapshots_dir = f"{self.data_dir}/snapshots"
        self.incidents_dir = f"{self.data_dir}/incidents"
        self.agent_lock_path = f"{self.data_dir}/agent.lock"
        self.rollback_lock_path = f"{self.data_dir}/rollback.lock"
        self.rescued_path = f"{self.data_dir}/rescued"
        self.launching_path = f"{self.runtime_dir}/launching"  # there while a launch is begun and not yet on record
        self.live_status_path = f"{self.runtime_dir}/live.json"
        self.api_socket_path = f"{self.runtime_dir}/api.sock"
        self.notify_socket_path = f"{self.runtime_dir}/notify.sock"
        self.pane_fifo_path = f"{self.runtime_dir}/tmux/pane"
        self.tmux_dir = f"{self.runtime_dir}/tmux"
        self.tmux_socket_path = f"{self.runtime_dir}/tmux/server"
        self.token_path = f"{self.runtime_dir}/tmux/token"
        self.launch_path = f"{self.runtime_dir}/launch.json"  # what a container starts, in the runtime `compose`
        self.compose_path = f"{self.config_dir}/compose.yaml"
        self.session_path = f"{self.data_dir}/session"
        self.watchdog_socket_path = f"{self.runtime_dir}/watchdog.sock"
        self.handover_socket_path = f"{self.runtime_dir}/watchdog-handover.sock"
        self.watchdog_status_path = f"{self.runtime_dir}/watchdog.json"
        self.watchdog_lock_path = f"{self.data_dir}/watchdog.lock"
        self.store_path = f"{self.data_dir}/watchdog.db"
        self.given_task_path = f"{self.data_dir}/given-task.md"  # for the next launch
        self.log_path = f"{self.data_dir}/agent.log"  # stands for the journal in the runtime `direct`
        self.supervisor_pid_path = f"{self.runtime_dir}/supervise.pid"

    @property
    def default_state_dir(self) -> str:
        """The state folder that `init` proposes."""
        return f"{self.data_dir}/state"

    @property
    def unit(self) -> str:
        """The agent's unit; the others are named after it."""
        return f"{self.name}.service"

    @property
    def rollback_unit(self) -> str:
        """The unit of the recovery process."""
        return f"{self.name}-rollback.service"

    @property
    def watchdog_unit(self) -> str:
        """The unit of the watchdog."""
        return f"{self.name}-watchdog.service"

    @property
    def rescue_unit(self) -> str:
        """The unit that steps in when the recovery process is broken."""
        return f"{self.name}-rescue.service"

    @property
    def prune_timer(self) -> str:
        """The timer that prunes once a day."""
        return f"{self.name}-prune.timer"


BESIDE, INSIDE, MOUNTED = "beside", "inside", "mounted"
SLOTS_INSIDE = ".agentctl"


def slots_dir_of(code_dir: str, where: str = BESIDE) -> str:
    """Return the folder that holds standby and quarantine.

    Beside the code, because a switch is a rename; inside it where the code folder itself cannot
    be renamed, because renames end at the border of a mount.
    """
    if where != BESIDE:
        return f"{code_dir}/{SLOTS_INSIDE}"
    parent, _, base = code_dir.rstrip("/").rpartition("/")
    return f"{parent}/.{base}.agentctl"


def _bases(root: str, scope: str, environ: dict[str, str], uid: int) -> tuple[str, str, str]:
    if root:
        return f"{root}/etc", f"{root}/data", f"{root}/run"
    if scope == SYSTEM:
        return "/etc/agentctl", "/var/lib/agentctl", "/run/agentctl"
    home = environ.get("HOME", "/")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    return f"{config}/agentctl", f"{data}/agentctl", f"{runtime}/agentctl"
