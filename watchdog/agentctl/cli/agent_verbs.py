"""`agentctl status`, `start`, `stop`, `restart`, `attach`, `supervise`, `watchdog`, `logs`: the running agent."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque

import click

from ..core import text
from ..core.errors import AgentctlError, UsageError
from ..core.paths import USER, AgentPaths
from ..ledger.models import GOOD_STAYS
from ..recovery import policy
from ..runtime import systemd
from .status_quick import show_status

WAIT_SECONDS = 150.0


@click.command()
@click.pass_context
def status(ctx: click.Context) -> None:
    """Say whether the agent is well, what runs, since when, and what happens next.

    Exit status 0: well, that is, steady or on probation, alive, and its heartbeat is fresh. 3: not.
    """
    ctx.exit(show_status(ctx.obj.name, ctx.obj.as_json))


@click.command()
@click.pass_context
def start(ctx):
    """Start the agent's unit."""
    context = ctx.obj.context()
    _refuse_halted(context)
    _need_unit(context)
    systemd.act(context.paths, "start")
    click.echo(f"started {context.paths.name}")


@click.command()
@click.pass_context
def stop(ctx):
    """Stop the agent; it saves first, and this is no failure."""
    context = ctx.obj.context()
    supervisor = supervisor_pid(context)
    if supervisor:
        os.kill(supervisor, signal.SIGTERM)
        _wait(lambda: supervisor_pid(context) == 0, "the supervisor to end")
    else:
        _need_unit(context)
        systemd.act(context.paths, "stop")
    click.echo(f"stopped {context.paths.name}")


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait for the new launch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def restart(ctx, no_wait, as_json):
    """Save, snapshot state, restart; works from inside the agent too."""
    from ..config.context import find_paths
    from ..runtime import runner_client

    name = ctx.obj.name
    launch_id = os.environ.get("AGENT_LAUNCH_ID", "") if os.environ.get("AGENT_NAME") == name else ""
    socket = runner_client.socket_inside(name) or find_paths(name).api_socket_path
    asked_at = time.time()
    answer = runner_client.ask(socket, "POST", "/restart", {"launch_id": launch_id})
    if not (no_wait or launch_id):  # called from inside, the caller does not live to see the new launch
        _wait(
            lambda: runner_client.has_new_launch(socket, answer["launch_id"]) or _halted(ctx.obj.context()),
            "the new launch",
        )
        _refuse_halted(ctx.obj.context())
        _tell_rollback(ctx.obj.context(), asked_at)
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps({"restarted": True, "from_launch": answer["launch_id"]}))
    else:
        click.echo("restart asked for" if no_wait or launch_id else f"restarted {name}")


@click.command()
@click.option("--read-only", is_flag=True, help="Look, do not type.")
@click.pass_context
def attach(ctx, read_only):
    """Open the agent's tmux session (detach with C-b d)."""
    from ..runner.launch_loop import SESSION_NAME
    from ..runtime.tmux import Tmux

    context = ctx.obj.context()
    if context.is_contained:
        from ..runtime.container.attached import attach as attach_container

        attach_container(context, read_only=read_only)
    tmux = Tmux(context.paths.tmux_socket_path, context.user, {})
    if not tmux.has_server():
        raise AgentctlError(
            f"agent '{context.paths.name}' has no session: it is not running", "agentctl status; agentctl logs"
        )
    argv = tmux.attach_argv(SESSION_NAME, read_only=read_only)
    os.execve(argv[0], argv, {**os.environ, "TMUX": ""})


def supervisor_pid(context) -> int:
    """Return the pid of the agent's foreground supervisor, 0 if none runs."""
    from ..config.context import Lock

    try:
        with open(context.paths.supervisor_pid_path, encoding="ascii") as file:
            pid = int(file.read())
    except (OSError, ValueError):
        return 0
    try:
        Lock(f"{context.paths.data_dir}/supervise.lock", "supervise").take().release()
    except AgentctlError:
        return pid
    return 0


def _tell_rollback(context, since: float) -> None:
    """Raise AgentctlError where what was to be started did not hold, and something else runs now."""
    with context.ledger(read_only=True) as ledger:
        incident = next((i for i in ledger.incidents() if i.at >= since and i.decision.startswith("rollback")), None)
        refused = ledger.generation(incident.generation_from) if incident else None
    if incident is not None and refused is not None and incident.decision.endswith(GOOD_STAYS):
        raise AgentctlError(
            f"generation {refused.number} was not launched, generation {incident.generation_to} stays: "
            f"{incident.reason}",
            policy.tell_way_in(refused),
        )
    if incident is not None:
        raise AgentctlError(
            f"the restart did not hold: generation {incident.generation_from} was rolled back "
            f"to {incident.generation_to}: {incident.reason}",
            f"agentctl why {incident.id}",
        )


def _halted(context) -> str:
    with context.ledger(read_only=True) as ledger:
        return ledger.meta("halted") or ""


def _refuse_halted(context) -> None:
    halted = _halted(context)
    if halted:
        raise AgentctlError(
            f"agent '{context.paths.name}' is halted: {halted}",
            "'agentctl why' tells the story; 'agentctl resume', 'agentctl rollback N' or 'agentctl bless N' clears it",
        )


def _need_unit(context) -> None:

    if not systemd.has_unit(context.paths):
        raise AgentctlError(
            f"the unit {context.paths.unit} is not installed here",
            "agentctl install, or run it in the foreground: agentctl supervise",
        )


def _wait(is_done, what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            raise AgentctlError(f"waited {WAIT_SECONDS:g}s for {what} in vain", "agentctl status; agentctl logs")
        time.sleep(0.05)


# -- contained -------------------------------------------------------------------------------------
# The verbs inside an agent's container, where there is no ledger: `supervise` (its entry), `status`, `attach`.
# The other verbs are the agent's own, over the runner's API, or somebody's outside.


WORK_INSIDE = ("restart", "hook", "protocol")


def run(words: list[str]) -> int | None:
    """Run a verb of the container's; None if it is none of them."""
    plain = [word for word in words if word not in ("--json", "--read-only")]
    if plain == ["supervise"]:
        from ..runtime.container import entrypoint

        return entrypoint.main()
    if plain == ["status"]:
        from ..runtime.container import health

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
    from ..runtime.container.entrypoint import VARIABLE, read_launch

    try:
        told = read_launch(os.environ[VARIABLE])["env"]
    except AgentctlError:
        return  # another user's; the verb says what it lacks
    for name in ("AGENT_NAME", "AGENT_API_URL", "AGENT_LAUNCH_ID"):
        os.environ.setdefault(name, told[name])


def _attach(*, is_read_only: bool) -> int:
    from ..runtime.container.entrypoint import SESSION_NAME, TMUX_SOCKET
    from ..runtime.tmux import Tmux

    tmux = Tmux(TMUX_SOCKET, None, {})
    if not tmux.has_server():
        raise AgentctlError(
            "the agent has no session in this container: it is not running", "outside: agentctl status; agentctl logs"
        )
    argv = tmux.attach_argv(SESSION_NAME, read_only=is_read_only)
    env = {**os.environ, "TMUX": "", "TERM": os.environ.get("TERM") or "xterm-256color"}
    os.execve(argv[0], argv, env)
    return 0


# -- supervise -------------------------------------------------------------------------------------
# `agentctl supervise`: run the agent in the foreground, without systemd.


@click.command()
@click.pass_context
def supervise(ctx):
    """Run and keep the agent alive in the foreground (runtime `direct`)."""
    from ..runtime import foreground

    context = ctx.obj.context()
    sys.exit(foreground.Supervisor(context, ctx.obj.name, lambda text: click.echo(text, err=True)).run())


# -- watchdog --------------------------------------------------------------------------------------
# `agentctl watchdog`: serve the API, the history and the page, and watch, in the foreground.


@click.command()
@click.pass_context
def watchdog(ctx):
    """Run the agent's watchdog in the foreground; its unit does the same."""
    from ..watchdog import daemon
    from .invocation import check_name

    ctx.exit(daemon.main(check_name(ctx.obj.name)))


# -- logs ------------------------------------------------------------------------------------------
# `agentctl logs`: the journal of all units of an agent, merged; without systemd the kept file.
# journalctl does the work. Refuses filters that a plain file cannot answer.


JOURNALCTL = "/usr/bin/journalctl"
DEFAULT_LINES = 200
LOOK_SECONDS = 0.2


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "lines", type=click.IntRange(0), help=f"The newest N (default {DEFAULT_LINES}).")
@click.option("--launch", default="", metavar="ID", help="Only of one launch.")
@click.option("--generation", type=int, help="Only of one generation.")
@click.option("--since", default="", metavar="TIME", help="As journalctl takes it: '1 hour ago'.")
@click.pass_context
def logs(ctx: click.Context, follow, lines, launch, generation, since) -> None:
    """Show what the agent and its units said, oldest first."""
    paths = ctx.obj.context(lenient=True).paths
    path = f"{paths.data_dir}/agent.log"
    if uses_file(paths, path):
        if launch or generation is not None or since:
            raise UsageError(
                f"{path} knows no launches and no times, so it cannot be filtered",
                "agentctl logs -n N; agentctl why tells of one launch",
            )
        show_file(path, DEFAULT_LINES if lines is None else lines, follow)
        return
    if not os.access(JOURNALCTL, os.X_OK):
        raise AgentctlError(
            f"there is no journal on this machine, and no {path} yet",
            "agentctl supervise writes it while it runs the agent",
        )
    fields = {"AGENTCTL_LAUNCH_ID": launch, "AGENTCTL_GENERATION": generation}
    argv = journal_argv(paths, follow, lines, since, fields, ctx.obj.as_json)
    sys.stdout.flush()
    os.execv(JOURNALCTL, argv)


def uses_file(paths: AgentPaths, path: str) -> bool:
    """Tell whether the runtime is `direct`: its file is there, and systemd does not hold the agent."""
    return os.path.exists(path) and not systemd.has_unit(paths)


def journal_argv(
    paths: AgentPaths, follow: bool, lines: int | None, since: str, fields: dict, as_json: bool
) -> list[str]:
    """Return the journalctl call: any of the units, and all of the fields that have a value."""
    argv = [JOURNALCTL, *(["--user"] if paths.scope == USER else [])]
    for unit in (paths.unit, paths.rollback_unit, paths.rescue_unit):
        argv += ["-u", unit]
    matches = [f"{name}={value}" for name, value in fields.items() if value not in ("", None)]
    is_filtered = bool(matches or since)
    if lines is not None or not is_filtered:
        argv += ["-n", str(DEFAULT_LINES if lines is None else lines)]
    elif follow:
        argv += ["--no-tail"]
    argv += ["--follow"] if follow else []
    argv += [f"--since={since}"] if since else []
    return [*argv, "--output=json" if as_json else "--output=short-iso", *matches]


def show_file(path: str, lines: int, follow: bool) -> None:
    """Print the end of the file, and with `follow` what is added, also after it was replaced."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            _print(line)
        while follow:
            line = file.readline()
            if line:
                _print(line)
            elif _is_replaced(file, path):
                return show_file(path, sys.maxsize, follow)
            else:
                time.sleep(LOOK_SECONDS)
    return None


def _is_replaced(file, path: str) -> bool:
    try:
        now = os.stat(path)
    except OSError:
        return False
    return now.st_ino != os.fstat(file.fileno()).st_ino or now.st_size < file.tell()


def _print(line: str) -> None:
    click.echo(text.clean(line.rstrip("\n")))
