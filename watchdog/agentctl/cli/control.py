"""`agentctl start`, `stop`, `restart`, `attach`: the running agent."""

from __future__ import annotations

import json
import os
import signal
import time

import click

from ..errors import AgentctlError

WAIT_SECONDS = 150.0


@click.command()
@click.pass_context
def start(ctx):
    """Start the agent's unit."""
    from ..machine import systemd

    station = ctx.obj.station()
    _refuse_halted(station)
    _need_unit(station)
    systemd.act(station.places, "start")
    click.echo(f"started {station.places.name}")


@click.command()
@click.pass_context
def stop(ctx):
    """Stop the agent; it saves first, and this is no failure."""
    from ..machine import systemd

    station = ctx.obj.station()
    supervisor = supervisor_pid(station)
    if supervisor:
        os.kill(supervisor, signal.SIGTERM)
        _wait(lambda: supervisor_pid(station) == 0, "the supervisor to end")
    else:
        _need_unit(station)
        systemd.act(station.places, "stop")
    click.echo(f"stopped {station.places.name}")


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait for the new launch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def restart(ctx, no_wait, as_json):
    """Save, snapshot state, restart; works from inside the agent too."""
    from ..machine import runner_client
    from ..station import find_places

    name = ctx.obj.name
    launch_id = os.environ.get("AGENT_LAUNCH_ID", "") if os.environ.get("AGENT_NAME") == name else ""
    socket = runner_client.socket_inside(name) or find_places(name).api_socket_path
    asked_at = time.time()
    answer = runner_client.ask(socket, "POST", "/restart", {"launch_id": launch_id})
    if not (no_wait or launch_id):  # called from inside, the caller does not live to see the new launch
        _wait(
            lambda: runner_client.has_new_launch(socket, answer["launch_id"]) or _halted(ctx.obj.station()),
            "the new launch",
        )
        _refuse_halted(ctx.obj.station())
        _tell_rollback(ctx.obj.station(), asked_at)
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"restarted": True, "from_launch": answer["launch_id"]}))
    else:
        click.echo("restart asked for" if no_wait or launch_id else f"restarted {name}")


@click.command()
@click.option("--read-only", is_flag=True, help="Look, do not type.")
@click.pass_context
def attach(ctx, read_only):
    """Open the agent's tmux session (detach with C-b d)."""
    from ..machine.tmux import Tmux
    from ..running.session import SESSION_NAME

    station = ctx.obj.station()
    if station.is_contained:
        from ..running.attached import attach as attach_container

        attach_container(station, read_only=read_only)
    tmux = Tmux(station.places.tmux_socket_path, station.user, {})
    if not tmux.has_server():
        raise AgentctlError(
            f"agent '{station.places.name}' has no session: it is not running", "agentctl status; agentctl logs"
        )
    argv = tmux.attach_argv(SESSION_NAME, read_only=read_only)
    os.execve(argv[0], argv, {**os.environ, "TMUX": ""})


def supervisor_pid(station) -> int:
    """Return the pid of the agent's foreground supervisor, 0 if none runs."""
    from ..station import Lock

    try:
        with open(station.places.supervisor_pid_path, encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return 0
    try:
        Lock(f"{station.places.data_dir}/supervise.lock", "supervise").take().release()
    except AgentctlError:
        return pid
    return 0


def _tell_rollback(station, since: float) -> None:
    """Raise AgentctlError where what was to be started did not hold, and something else runs now."""
    with station.ledger(read_only=True) as ledger:
        incident = ledger.one(
            "SELECT * FROM incidents WHERE at>=? AND decision LIKE 'rollback%' ORDER BY at DESC LIMIT 1", since
        )
    if incident is not None:
        raise AgentctlError(
            f"the restart did not hold: generation {incident['generation_from']} was rolled back "
            f"to {incident['generation_to']}: {incident['reason']}",
            f"agentctl why {incident['id']}",
        )


def _halted(station) -> str:
    with station.ledger(read_only=True) as ledger:
        return ledger.meta("halted") or ""


def _refuse_halted(station) -> None:
    halted = _halted(station)
    if halted:
        raise AgentctlError(
            f"agent '{station.places.name}' is halted: {halted}",
            "'agentctl why' tells the story; 'agentctl resume', 'agentctl rollback N' or 'agentctl bless N' clears it",
        )


def _need_unit(station) -> None:
    from ..machine import systemd

    if not systemd.has_unit(station.places):
        raise AgentctlError(
            f"the unit {station.places.unit} is not installed here",
            "agentctl install, or run it in the foreground: agentctl supervise",
        )


def _wait(is_done, what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise AgentctlError(f"waited {WAIT_SECONDS:g}s for {what} in vain", "agentctl status; agentctl logs")
        time.sleep(0.05)
