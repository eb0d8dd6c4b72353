"""The story of the runner, main process of the agent's unit: guard, launch in tmux, relay, tell how it ended.

What systemd watches is this process, and it sends a keepalive only when a heartbeat came from the agent.
Its exit status is the agent's: 0 only for a stop that was asked for.
"""

from __future__ import annotations

import _signal as signal  # `signal` and `sqlite3` import what costs 5 ms each and is not used
import _sqlite3 as sqlite3
import os
import time

from ..config.context import Lock, find_paths
from ..core import fast_json
from ..core.errors import EXIT_FAILED, EXIT_LOCK_HELD, AgentctlError, LaunchRefused, LockHeld, TooNew, in_words
from ..core.paths import AgentPaths
from ..generations import rebuild_ledger
from ..generations.agent_context import AgentContext
from ..host import disk_space
from ..host.journald import Journal, open_journal
from ..host.sd_notify import Notifier
from ..ledger import incidents, models, writers
from ..ledger.database import Ledger
from ..ledger.models import CurrentLaunch
from . import launch, launch_off_record
from .launch_loop import STOP_SIGNALS, LaunchLoop
from .launch_result import LaunchResult
from .preparation import Preparation

EXIT_ASKED = 75  # the agent asked to be restarted; systemd has to see a failure, or nobody would


def main(name: str) -> int:
    """Run the agent once, from guard to end; return the unit's exit status."""
    notifier = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    paths = find_paths(name)
    journal = open_journal(name, paths)
    signal.signal(signal.SIGTERM, lambda *_: _stop_unbegun(paths))  # first: who sees the mark may stop us
    mark(paths)
    try:
        context = AgentContext.open(name, lenient=True)
        if context.complaint:
            journal.error(f"agent.toml is broken, going on with the last valid settings: {context.complaint}")
        os.makedirs(context.paths.runtime_dir, mode=0o755, exist_ok=True)
        with Lock(context.paths.agent_lock_path, f"agent '{name}'").take():
            return _run(context, notifier, journal)
    except LockHeld as error:
        journal.error(f"{error.message}. Hint: {error.hint}")
        return EXIT_LOCK_HELD
    except (AgentctlError, OSError, sqlite3.Error) as error:
        notifier.status(str(error))
        journal.error(in_words(error))
        return getattr(error, "exit_code", EXIT_FAILED)
    finally:
        unmark(paths)


def mark(paths: AgentPaths) -> None:
    """Leave a mark until the launch is on record: were we killed, nothing else would tell that one was wanted."""
    try:
        os.close(os.open(paths.launching_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError:
        return  # no folder for it: then there is no unit that would start the recovery process


def unmark(paths: AgentPaths) -> None:
    """Take the mark away."""
    if os.path.exists(paths.launching_path):
        os.unlink(paths.launching_path)


def _stop_unbegun(paths: AgentPaths) -> None:
    """End by the SIGTERM that came before a launch was on record: a stop, or a rollback on its way, is no failure."""
    unmark(paths)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _run(context: AgentContext, notifier: Notifier, journal: Journal) -> int:
    if os.path.exists(context.paths.rescued_path):
        ledger, begun = launch_off_record.begin_after_rescue(context, journal.warning)
    else:
        with Preparation(notifier, context.config.agent.ready_timeout):
            disk_space.look_ahead(context, journal.warning)
            ledger, begun = _open_and_begin(context, journal)
    unmark(context.paths)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # the try is spent: a stop has to be recorded as one
    journal.set_fields(AGENTCTL_LAUNCH_ID=begun.id, AGENTCTL_GENERATION=str(begun.generation.number))
    left_out = ledger.meta("left_out")
    if left_out:
        journal.warning(f"agentctl: the watchdog's copy of the tree lacks what git could not take: {left_out}")
    session = _session_of(context)(context, ledger, begun, notifier, journal)
    ending = session.run()
    was_stopped = ending.end == models.STOPPED
    _blame(ledger, begun, ending)
    disk_space.with_room(context, lambda: _record(context, ledger, begun, ending, journal), journal.warning)
    if was_stopped:
        session.snapshot_at_stop()
        return 0
    return exit_status(ending)


def _open_and_begin(context: AgentContext, journal: Journal) -> tuple[Ledger, CurrentLaunch]:
    """Begin a launch on record; where the records are too new for us, beside them: an agent does not wait for that."""
    try:
        ledger = disk_space.with_room(
            context, lambda: rebuild_ledger.open_or_rebuild(context, journal.warning), journal.warning
        )
    except TooNew as error:
        return launch_off_record.begin_beside(context, error, journal.warning)
    return ledger, _begin(context, ledger, journal)


def _session_of(context: AgentContext) -> type[LaunchLoop]:
    """A container is another kind of session; nobody else pays for its import."""
    if not context.is_contained:
        return LaunchLoop
    from .container_loop import ContainerLoop

    return ContainerLoop


def _blame(ledger: Ledger, begun: CurrentLaunch, ending: LaunchResult) -> None:
    """A stop on the way to a rollback that the watchdog asked for is a failure: the agent was offline."""
    request = ledger.next_request()
    is_blamed = request is not None and (request.verb, request.target) == (models.OFFLINE, begun.id)
    if is_blamed and ending.end == models.STOPPED:
        ending.end, ending.trigger, ending.reason = models.FAILED, models.OFFLINE, request.reason


def _begin(context: AgentContext, ledger: Ledger, journal: Journal) -> CurrentLaunch:
    """Begin a launch; what hinders it is put on record, unless a human started it and sees for himself."""
    try:
        return disk_space.with_room(context, lambda: launch.begin(context, ledger, journal.warning), journal.warning)
    except LaunchRefused:
        raise
    except (AgentctlError, OSError, sqlite3.Error) as error:
        last, is_waited_for = ledger.last_launch(), isinstance(error, disk_space.NoStorage)
        if last is not None and (last.end != models.STOPPED or is_waited_for):
            _record_unlaunched(ledger, last.generation, error)
        raise


def _record_unlaunched(ledger: Ledger, generation: int, error: Exception) -> None:
    """On a full disk this line may have no room either; the recovery process sees for itself then."""
    try:
        incidents.record_unlaunched(ledger, generation, in_words(error))
    except sqlite3.Error:
        return


def exit_status(ending: LaunchResult) -> int:
    """Translate how the agent ended into the unit's exit status, truthfully."""
    if ending.end == models.STOPPED:
        return 0
    if ending.end == models.ASKED:
        return EXIT_ASKED
    if ending.exit_signal:
        return 128 + ending.exit_signal
    return ending.exit_status or 1


def _record(
    context: AgentContext, ledger: Ledger, begun: CurrentLaunch, ending: LaunchResult, journal: Journal
) -> None:
    """Write how it ended: the evidence first, then the line that makes it count."""
    if ending.end not in (models.STOPPED, models.ASKED):
        keep_evidence(context, begun, ending)
    with ledger.transaction():
        _refund(ledger, begun, ending)
        writers.end_launch(
            ledger,
            begun.id,
            ending.end,
            at=ending.at,
            trigger=ending.trigger,
            reason=ending.reason,
            exit_status=ending.exit_status,
            exit_signal=ending.exit_signal,
            ready_at=ending.ready_at,
            first_beat_at=ending.first_beat_at,
            life=ending.life,
        )
    journal.info(f"agentctl: generation {begun.generation.number} ended: {ending.reason}")


def _refund(ledger: Ledger, begun: CurrentLaunch, ending: LaunchResult) -> None:
    """A stop by a human or a reboot is no failure of the agent's, so it does not use up a trial's try."""
    generation = ledger.generation(begun.generation.number)
    is_stop = ending.end == models.STOPPED and not ending.by_agent
    is_of_engine = ending.trigger in (models.ENGINE_AWAY, models.NO_ROOM)
    if (is_stop or is_of_engine) and generation.status == "candidate":
        writers.set_tries(ledger, generation.number, generation.tries_left + 1)


def keep_evidence(context: AgentContext, begun: CurrentLaunch, ending: LaunchResult) -> None:
    """Leave what the runner alone knows where the recovery process finds it; never stand in the way of the end."""
    folder = context.launch_dir(begun.id)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(f"{folder}/pane.txt", "w", encoding="utf-8", errors="replace") as file:
            file.write("\n".join(ending.lines) + "\n")
        with open(f"{folder}/evidence.json", "w", encoding="utf-8") as file:
            file.write(fast_json.dumps(ending.facts()))
    except OSError:
        return


def stamp(seconds: float | None) -> str:
    """Write an instant as RFC 3339 in UTC."""
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
