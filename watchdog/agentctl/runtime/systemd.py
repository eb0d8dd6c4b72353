"""systemd, as a command, and the units of an agent: installed from `systemd/` with what agent.toml says."""

from __future__ import annotations

import os
import sys

from ..config.context import Context
from ..core import durable, shipped
from ..core.errors import AgentctlError, CommandFailed
from ..core.paths import ENTRY_PATH, PACKAGE_DIR, SYSTEM, USER, AgentPaths
from ..host import command

PROGRAM = "/usr/bin/systemctl"


def is_running() -> bool:
    """Tell whether systemd is this machine's service manager."""
    return os.path.isdir("/run/systemd/system")


def run(paths: AgentPaths, *words: str, check: bool = True, limit_seconds: float = 600) -> command.Result:
    """Run systemctl for the manager that holds this agent's units."""
    scope = ["--user"] if paths.scope == USER else []
    return command.run([PROGRAM, *scope, *words], env=dict(os.environ), check=check, limit_seconds=limit_seconds)


def restart_without_waiting(paths: AgentPaths) -> None:
    """Ask for a restart from inside the unit: the job lives in the manager, the caller does not."""
    run(paths, "restart", "--no-block", paths.unit, limit_seconds=30)


def start_rollback_without_waiting(paths: AgentPaths) -> None:
    """Start the recovery process from inside the agent's unit, which it stops."""
    run(paths, "start", "--no-block", paths.rollback_unit, limit_seconds=30)


def start_rollback(paths: AgentPaths) -> None:
    """Start the recovery process and wait for its end."""
    run(paths, "start", paths.rollback_unit, check=False, limit_seconds=1800)


def has_unit(paths: AgentPaths) -> bool:
    """Tell whether the agent's unit is installed."""
    if not is_running() or not os.access(PROGRAM, os.X_OK):
        return False
    shown = run(paths, "show", "--property=LoadState", "--value", paths.unit, check=False, limit_seconds=30)
    return shown.status == 0 and shown.text.strip() == "loaded"


def act(paths: AgentPaths, verb: str) -> None:
    """Start or stop the agent's unit; raise AgentctlError with where to look."""
    try:
        run(paths, verb, paths.unit)
    except CommandFailed as error:
        raise AgentctlError(
            f"systemctl {verb} {paths.unit}: {error.message}", "'agentctl why' and 'agentctl logs' tell what happened"
        ) from error


# -- install ---------------------------------------------------------------------------------------
# Install the units: copies of `systemd/`, named after the agent, and a drop-in with what agent.toml says.
# Uninstalling removes what was installed and nothing of the agent's.


UNITS = ("agent.service", "agent-rollback.service", "agent-rescue.service", "agent-prune.service", "agent-prune.timer")
WATCHDOG = "agent-watchdog.service"
PARTS = {
    "agent.service": "runner",
    "agent-rollback.service": "rollback",
    "agent-prune.service": "prune",
    WATCHDOG: "watchdog",
}
DROP_IN = "50-agentctl.conf"
STOP_MARGIN_SECONDS = 15.0


def unit_dir(context: Context) -> str:
    """Where the units go."""
    if context.paths.scope == SYSTEM:
        return "/etc/systemd/system"
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{base}/systemd/user"


def install(context: Context, *, enable: bool = True, has_watchdog: bool = True) -> list[str]:
    """Write units and drop-ins, reload the manager, enable agent and watchdog; return the files written."""
    folder = unit_dir(context)
    os.makedirs(folder, exist_ok=True)
    written, is_new = [], not os.path.exists(f"{folder}/{context.paths.prune_timer}")
    for template in (*UNITS, *((WATCHDOG,) if has_watchdog else ())):
        name = rename(template, context.paths.name)
        path = f"{folder}/{name}"
        durable.write(path, render(template, context).encode())
        written.append(path)
        if template.endswith(".service"):
            os.makedirs(f"{path}.d", exist_ok=True)
            durable.write(f"{path}.d/{DROP_IN}", drop_in(template, context).encode())
            written.append(f"{path}.d/{DROP_IN}")
    if is_running():
        run(context.paths, "daemon-reload")
        if enable:
            run(context.paths, "enable", context.paths.unit)
            if is_new:  # who has switched it off since, meant it
                run(context.paths, "enable", "--now", context.paths.prune_timer)
            if has_watchdog:
                run(context.paths, "enable", context.paths.watchdog_unit)
    return written


def uninstall(context: Context) -> list[str]:
    """Stop and disable the agent, remove the unit files; return them."""
    folder, removed = unit_dir(context), []
    if is_running():
        run(context.paths, "disable", "--now", context.paths.watchdog_unit, check=False)
        run(context.paths, "disable", "--now", context.paths.unit, context.paths.prune_timer, check=False)
    for template in (*UNITS, WATCHDOG):
        path = f"{folder}/{rename(template, context.paths.name)}"
        for file in (f"{path}.d/{DROP_IN}", path):
            if os.path.exists(file):
                os.unlink(file)
                removed.append(file)
        if os.path.isdir(f"{path}.d") and not os.listdir(f"{path}.d"):
            os.rmdir(f"{path}.d")
    if is_running():
        run(context.paths, "daemon-reload")
    return removed


def rename(text: str, name: str) -> str:
    """Name our units after the agent."""
    for unit in (*UNITS, WATCHDOG):
        text = text.replace(unit, unit.replace("agent", name, 1)) if name != "agent" else text
    return text


def render(template: str, context: Context) -> str:
    """Return the unit file of `systemd/` for this agent and scope."""
    name = context.paths.name
    text = _template(template)
    if name != "agent":
        text = rename(text, name).replace("agentctl/agent\n", f"agentctl/{name}\n").replace('"agent"', f'"{name}"')
    if context.paths.scope != SYSTEM:
        text = text.replace("WantedBy=multi-user.target", "WantedBy=default.target")
        text = "\n".join(line for line in text.split("\n") if not line.startswith(NOT_FOR_USERS))
    return text


# A user manager has not the rights for these, and would refuse to start the unit.
NOT_FOR_USERS = ("OOMScoreAdjust=-", "Nice=-", "Protect", "Private", "ReadWritePaths=", "CapabilityBoundingSet=",
                 "IPAddress")  # fmt: skip


def drop_in(template: str, context: Context) -> str:
    """Say what agent.toml and this installation add to a unit."""
    part = PARTS.get(template)
    lines = [
        f"# Written by 'agentctl install' from {context.paths.config_path}; changes here are lost.",
        "",
        "[Service]",
        "ExecStart=",
    ]
    if part in ("runner", "rollback") and context.is_mounted:
        lines[2:2] = ["[Unit]", f"RequiresMountsFor={_quoted(context.code_dir, has_variables=False)}", ""]
    if part in ("runner", "rollback") and context.is_contained:
        lines[2:2] = ["[Unit]", "Wants=docker.service", "After=docker.service", ""]
    if part:
        flags = "-I" if template == WATCHDOG else "-I -S"  # it alone needs site packages
        lines.append(f"ExecStart={_quoted(sys.executable)} {flags} {_quoted(ENTRY_PATH)} {part} {context.paths.name}")
    else:
        lines.append(
            f"ExecStart={_quoted(sys.executable)} -I -S {_quoted(PACKAGE_DIR + '/rescue.py')} {context.paths.name}"
        )
    if context.paths.root:
        lines.append(f"Environment=AGENTCTL_ROOT={_quoted(context.paths.root, has_variables=False)}")
    if template == "agent.service":
        lines += _agent_settings(context)
    if template == WATCHDOG and context.paths.scope == SYSTEM:
        lines += _watchdog_settings(context)
    return "\n".join(lines) + "\n"


def _agent_settings(context: Context) -> list[str]:
    settings = context.config
    stop = settings.agent.stop_grace + STOP_MARGIN_SECONDS
    lines = [
        f"WatchdogSec={settings.heartbeat.timeout:g}s",
        f"TimeoutStartSec={settings.agent.ready_timeout:g}s",
        f"TimeoutStopSec={stop:g}s",
    ]
    names = [n for n in settings.agent.pass_environment if n in os.environ]
    if context.paths.scope != SYSTEM and "PATH" in os.environ:
        names = ["PATH", *[n for n in names if n != "PATH"]]
    lines += [f"Environment={_quoted(n + '=' + os.environ[n], has_variables=False)}" for n in names]
    return lines


def _watchdog_settings(context: Context) -> list[str]:
    """Let it write its data, and see what lies in /tmp where something of the agent's does."""
    paths = context.paths
    lines = [f"ReadWritePaths={_quoted('-' + paths.data_dir, has_variables=False)}"]
    is_in_tmp = any(path.startswith(("/tmp/", "/var/tmp/")) for path in (paths.data_dir, context.state_dir))
    return [*lines, "PrivateTmp=no"] if is_in_tmp else lines


def _quoted(text: str, *, has_variables: bool = True) -> str:
    """Quote for a unit file: `%` is a specifier, and in a command `$` a variable."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    plain = plain.replace("$", "$$") if has_variables else plain
    return f'"{plain}"' if any(c in text for c in " \t'\"") else plain


def _template(name: str) -> str:
    try:
        return shipped.read("agentctl.units", name)
    except OSError as error:
        raise AgentctlError(f"the unit template {name} is not installed: {error}", "install agentctl again") from None
