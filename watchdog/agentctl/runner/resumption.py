"""How a relaunched agent goes on: start or resume, its session's id and files, and the message that tells it why.

For agents that keep their own sessions (`[resume]`). The message goes in at most once a launch: it is on record
before it is sent, and a launch that dies is another launch.
"""

from __future__ import annotations

import os
import time

from ..config.context import Context
from ..core import durable
from ..core.errors import AgentctlError, CommandFailed
from ..ledger import models
from ..ledger.database import Ledger
from ..ledger.models import CurrentLaunch, Generation, Incident, Launch
from ..state import agent_state
from ..state.snapshots.patterns import Patterns, fixed_folder
from . import heartbeat

SESSION, MESSAGE = "{session}", "{message}"
LONGEST_REASON, LONGEST_PENDING, MOST_PENDING = 300, 300, 5  # tmux takes no command of more than 16 KB
CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")  # no argument has a NUL; the others are keys
DRAWN_AT_LATEST_SECONDS, LOOK_SECONDS = 20.0, 0.2
ENTER_AFTER_SECONDS = 0.3  # a terminal program that sees text and Enter at once takes them for a paste


class Resumption:
    """What one launch starts, and the message it is to be told ('' for none) and how."""

    __slots__ = ("argv", "by", "expected", "message", "session")

    def __init__(self, argv: list[str], session: str, message: str, by: str, expected: str = "") -> None:
        self.argv, self.session, self.message, self.by = argv, session, message, by
        self.expected = expected  # the session that is resumed, until the agent has told which one it is in


def plan(context: Context, ledger: Ledger, launch: CurrentLaunch) -> Resumption:
    """Choose start or resume, and put the message on record where there is one."""
    settings = context.config
    session = read_session(context)
    earlier = ledger.launches_but(launch.id, 2)
    is_resumed = _has_session(context, session) and not _is_in_vain(ledger, launch, earlier)
    if not is_resumed and _uses(settings.agent.command, SESSION):
        session = new_session_id()
        keep_session(context, session)
    message = ""
    if is_resumed and settings.resume.message != "none":
        message = compose(*_facts(context, ledger, launch, earlier))
    argv = settings.agent.resume_command if is_resumed and settings.agent.resume_command else settings.agent.command
    if message and settings.resume.message == "argument":
        record(ledger, launch, message)
    return Resumption(
        fill(argv, session, message), session, message, settings.resume.message, session if is_resumed else ""
    )


def is_unresumable(earlier: list[Launch], generation: Generation) -> bool:
    """Tell whether a good generation was resumed in vain: it ended at its last two starts, so its session is why. Pure.

    `earlier` are the launches before this one, newest first.
    """
    ends = [
        row
        for row in earlier[:2]
        if row.generation == generation.number
        and row.exit_status
        and row.end == models.FAILED
        and row.trigger == "crash-at-start"
    ]
    return generation.status == "good" and len(ends) == 2


def fill(argv: list[str], session: str, message: str) -> list[str]:
    """Put session and message into a command; a word that is nothing but an absent one is left out."""
    words = [w for w in argv if not (w == MESSAGE and not message) and not (w == SESSION and not session)]
    return [w.replace(SESSION, session).replace(MESSAGE, message) for w in words]


def compose(last: Launch | None, incident: Incident | None, brief_path: str, pending: list[str]) -> str:
    """Write the message on one line: why it was restarted, what was undone, what is pending. Pure."""
    if last is None:
        return ""
    parts = [f"[agentctl] You were restarted: {_why(last)}."]
    if incident is not None and incident.generation_to is not None and brief_path:
        before, now = incident.generation_from, incident.generation_to
        moved = (
            "Your state went back to what it was with this code"
            if before == now
            else f"Your code went back from generation {before} to generation {now}"
        )
        parts.append(f"{moved}; read {brief_path} first, it says what was undone and where it is.")
    if pending:
        more = f" (and {len(pending) - MOST_PENDING} more)" if len(pending) > MOST_PENDING else ""
        shown = [p if len(p) <= LONGEST_PENDING else f"{p[:LONGEST_PENDING]}..." for p in pending[:MOST_PENDING]]
        parts.append(f"Still to do: {'; '.join(shown)}{more}.")
    parts.append("Go on where you were.")
    return " ".join(" ".join(parts).translate(CONTROLS).split())


def _why(last: Launch) -> str:
    if last.end == models.REBOOTED:
        return "the machine went down while you ran"
    if last.end in (models.STOPPED, models.ASKED):
        return "a restart was asked for" if last.end == models.ASKED else "you were stopped and started again"
    reason = last.reason or last.trigger or "you ended"
    return reason[:LONGEST_REASON].rstrip(". ")


def _is_in_vain(ledger: Ledger, launch: CurrentLaunch, earlier: list[Launch]) -> bool:
    """Start instead of resuming where resuming was no use, and where the rung says that the task is not to go on."""
    if launch.incident:
        attempts = ledger.attempts(launch.incident)
        if attempts and attempts[-1].rung == "golden without the task":
            return True
    return is_unresumable(earlier, launch.generation)


def _facts(context: Context, ledger: Ledger, launch: CurrentLaunch, earlier: list[Launch]) -> tuple:
    incident = ledger.incident(launch.incident) if launch.incident else None
    brief_path = context.brief_path if os.path.exists(context.brief_path) else ""
    return earlier[0] if earlier else None, incident, brief_path, agent_state.pending_actions(context)


def compose_interrupt(silent_seconds: float, key: str) -> str:
    """Write the message that follows the key which ended a turn. Pure."""
    return (
        f"[agentctl] You were busy for {silent_seconds:.0f} seconds without any progress, so {key} was pressed to "
        "end your turn. Look what held you up, and go on in smaller steps."
    )


def tell_after_ready(session) -> None:
    """Type the message into the agent's terminal, once it is ready and its screen is drawn."""
    told = session.resumption
    if told.message and told.by == "keys":
        _type_when_drawn(session, time.monotonic(), session.context.config.resume.after)


def _type_when_drawn(session, ready_at: float, after: float) -> None:
    """Terminal programs throw away what was typed before they drew their screen; some draw it long after the start."""
    drawn_at, now = session.feed.drawn_at, time.monotonic()
    longest = ready_at + after + DRAWN_AT_LATEST_SECONDS  # some draw nothing at all
    due_at = longest if drawn_at is None else min(max(ready_at, drawn_at) + after, longest)
    if now < due_at:
        session.loop.set_timer(
            "message", min(due_at - now, LOOK_SECONDS), lambda: _type_when_drawn(session, ready_at, after)
        )
    else:
        type_message(session, session.resumption.message)


def type_message(session, message: str) -> None:
    """Put a message on record and type it; what cannot be recorded is not sent, as it might be sent again."""
    try:
        record(session.ledger, session.launch, message)
    except (AgentctlError, OSError) as error:
        session.journal.warning(f"agentctl: it is not told why, as that could not be written down: {error}")
        return
    if _at_keyboard(session, session.tmux.type, message):
        session.loop.set_timer(
            "message", ENTER_AFTER_SECONDS, lambda: _at_keyboard(session, session.tmux.press, "Enter")
        )


def _at_keyboard(session, act, what: str) -> bool:
    """Do one thing at the terminal; one that is gone by now is the session's own affair."""
    try:
        act(session.pane_name, what)
    except CommandFailed as error:
        session.journal.warning(f"agentctl: the message could not be typed: {error.message}")
        return False
    return True


def record(ledger: Ledger, launch: CurrentLaunch, message: str) -> None:
    """Put a message on record, durable, before it is sent."""
    ledger.event("message", f"launch {launch.id}: {message}")


# -- the session's id ---------------------------------------------------------------------------------------


def read_session(context: Context) -> str:
    """Return the id of the agent's session as last known, '' if none is."""
    data = (durable.read(context.paths.session_path) or b"").decode("utf-8", "replace").strip()
    return data if heartbeat.is_session_id(data) else ""


def hear_session(session, told: str) -> None:
    """Keep what the agent says of its session; if it is in another one than was resumed, say so."""
    resumed = session.resumption
    expected = resumed.expected if resumed is not None else ""
    if expected and heartbeat.is_session_id(told):
        resumed.expected = ""  # from here on it may change its session as it likes
        if told != expected:
            note = f"session {expected} was to be resumed, the agent is in {told}"
            session.life.notes.append(note)
            session.journal.warning(f"agentctl: {note}")
            session.record(lambda: session.ledger.event("session", f"launch {session.launch.id}: {note}"))
    session.told_session = told
    session.record(lambda: keep_session(session.context, session.told_session))  # the newest, once there is room


def keep_session(context: Context, session: str) -> None:
    """Keep the id of the session that runs: chosen by us, or told by a hook."""
    if heartbeat.is_session_id(session) and session != read_session(context):
        durable.write(context.paths.session_path, session.encode(), 0o600)


def new_session_id() -> str:
    """Return a random UUID (version 4); `uuid` would cost 10 ms of import."""
    raw = bytearray(os.urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _has_session(context: Context, session: str) -> bool:
    """Tell whether there is a session to resume: its store says so, else a task or a history."""
    proof = context.config.resume.proof or context.config.resume.store
    if not proof:
        from ..runtime.agent_env import has_something_to_resume

        return has_something_to_resume(context)
    return has_any(with_session(proof, session), context.state_dir, context.home)


def with_session(patterns: list[str], session: str) -> list[str]:
    """Return the patterns with the session's id in them; those that want one while none is known not."""
    return [p.replace(SESSION, session) for p in patterns if session or SESSION not in p]


def _uses(argv: list[str], word: str) -> bool:
    return any(word in w for w in argv)


# -- session store ---------------------------------------------------------------------------------
# The files in which an agent keeps its own sessions: is there one, and when did it last grow.
# Patterns are relative to the state folder or begin with `/` or `~/`. It only looks at names, sizes and times.


MOST_ENTRIES = 100_000  # a pattern that means a whole disk must not hold up a launch


def newest_change(patterns: list[str], state_dir: str, home: str) -> tuple[int, int, int]:
    """Return (newest mtime in ns, number of files, their bytes): it changes when any of the files does.

    What was committed to an SQLite database may be in its write-ahead log alone for a long time.
    """
    newest = count = size = 0
    for path in find(patterns, state_dir, home):
        for file in (path, f"{path}-wal"):
            try:
                found = os.stat(file)
            except OSError:
                continue
            newest, count, size = max(newest, found.st_mtime_ns), count + 1, size + found.st_size
    return newest, count, size


def has_any(patterns: list[str], state_dir: str, home: str) -> bool:
    """Tell whether any file is meant by the patterns."""
    return next(find(patterns, state_dir, home), None) is not None


def find(patterns: list[str], state_dir: str, home: str):
    """Yield the files that the patterns mean."""
    by_folder: dict[str, list[str]] = {}
    for pattern in (f"{home}{given[1:]}" if given.startswith("~/") else given for given in patterns):
        folder, rest = fixed_folder(pattern) if pattern.startswith("/") else (state_dir, pattern)
        by_folder.setdefault(folder, []).append(rest)
    left = MOST_ENTRIES
    for folder, rest in by_folder.items():
        wanted = Patterns(rest)
        for top, folders, files in os.walk(folder):
            left -= len(folders) + len(files)
            if left < 0:
                return
            below = top[len(folder) :].strip("/")
            yield from (f"{top}/{name}" for name in sorted(files) if wanted.matches(f"{below}/{name}"))
