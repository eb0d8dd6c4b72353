"""`agentctl logs`: the journal of all units of an agent, merged; without systemd the kept file.

journalctl does the work. Refuses filters that a plain file cannot answer.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque

import click

from .. import wording as format
from ..errors import AgentctlError, UsageError
from ..machine import systemd
from ..paths import USER, Places

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
    places = ctx.obj.station(lenient=True).places
    path = f"{places.data_dir}/agent.log"
    if uses_file(places, path):
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
    argv = journal_argv(places, follow, lines, since, fields, ctx.obj.as_json)
    sys.stdout.flush()
    os.execv(JOURNALCTL, argv)


def uses_file(places: Places, path: str) -> bool:
    """Tell whether the runtime is `direct`: its file is there, and systemd does not hold the agent."""
    return os.path.exists(path) and not systemd.has_unit(places)


def journal_argv(places: Places, follow: bool, lines: int | None, since: str, fields: dict, as_json: bool) -> list[str]:
    """Return the journalctl call: any of the units, and all of the fields that have a value."""
    argv = [JOURNALCTL, *(["--user"] if places.scope == USER else [])]
    for unit in (places.unit, places.rollback_unit, places.rescue_unit):
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
    click.echo(format.clean(line.rstrip("\n")))
