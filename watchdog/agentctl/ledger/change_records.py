"""The record of changes in the ledger: who may write what. The only writer of the table `changes`.

Called by who may write the ledger, and by the runner for the agent's user, who may not. What the agent says of its
own checks is its word; approvals, condemned trees and the deadline of a confirmation are not its to write.
"""

from __future__ import annotations

import time

from ..config.context import Context
from ..core import fast_json
from ..core.errors import AgentctlError
from ..core.record import Record
from . import models, writers
from .database import Ledger
from .models import ChangeRecord, Generation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RECORDS = {"check": "checked", "try": "tried", "review": "reviewed"}
LONGEST_RECORD = 12_000  # what the runner takes in one request is 16 KiB
LONGEST_TEXT = 1000
MOST_LISTED = 40
LONGEST_CONFIRM_SECONDS = 30 * 86400.0
IDS = ("commit", "tree", "main", "merge")


class Author:
    """Who asks, and whether that is the agent itself (its user, or a process below it)."""

    __slots__ = ("is_agent", "name")

    def __init__(self, name: str, *, is_agent: bool) -> None:
        self.name, self.is_agent = name, is_agent


def handle(context: Context, ledger: Ledger, request: dict[str, Any], author: Author) -> dict[str, Any]:
    """Carry out one request on the records; raise AgentctlError where it is refused."""
    verb = _text(request, "verb", 20)
    if verb == "list":
        return _list(ledger)
    if verb == "confirm":
        return _confirm(context, ledger, author)
    name = _text(request, "name", 100)
    models.check_name(name, context.config.change.prefixes)
    if verb == "look":
        return _look(ledger, name, request)
    if verb == "start":
        return _start(ledger, name, request, author)
    row = ledger.change(name)
    if row is None:
        raise AgentctlError(f"there is no change '{name}'", "agentctl change list; agentctl change start begins one")
    if verb in RECORDS:
        return _record(ledger, row, RECORDS[verb], request, author)
    if (
        verb == "promote"
        and author.is_agent
        and context.config.change.review == "human"
        and request.get("on_failure", "rollback") != "rollback"
    ):
        raise AgentctlError(
            f"cannot promote '{name}' with --on-failure {request['on_failure']}: this is the agent "
            "itself, and change.review is human",
            "without it, or by somebody else, outside the agent",
        )
    doers = {"approve": _approve, "abandon": _abandon, "promote": _promote}
    if verb not in doers:
        raise AgentctlError(f"there is no request '{verb}'", "agentctl change --help")
    return doers[verb](ledger, row, request, author)


def condemned_with(ledger: Ledger, tree: str) -> Generation | None:
    """Return the newest generation that was condemned with this tree, or None."""
    return next((g for g in ledger.generations_of_tree(tree) if g.status == "condemned"), None)


def list_pending(ledger: Ledger) -> list[str]:
    """Name the changes whose promotion waits for the recovery process or is under way there."""
    targets = [int(request.target) for request in ledger.waiting_requests("promote")]
    attempt = ledger.open_attempt()
    if attempt is not None and attempt.rung == "promote" and attempt.target is not None:
        targets.append(attempt.target)
    found = [ledger.generation(target) for target in targets]
    return [generation.change if generation else "" for generation in found]


def set_snapshot(ledger: Ledger, name: str, snapshot: str) -> None:
    """Note the state that a change departed from."""
    ledger.update("changes", {"name": name}, snapshot=snapshot)


def set_generation(ledger: Ledger, name: str, number: int) -> None:
    """Note the candidate that a change became."""
    ledger.update("changes", {"name": name}, generation=number)


def set_promoted(ledger: Ledger, name: str, at: float) -> None:
    """Say that a change is in place."""
    ledger.update("changes", {"name": name}, status=models.PROMOTED, ended_at=at)


def put_back(ledger: Ledger, name: str, why: str) -> None:
    """Open a change again whose promotion came to nothing, with the reason; within a transaction."""
    ledger.update("changes", {"name": name}, status=models.OPEN, reason=f"not promoted: {why}")
    ledger.event("change", f"{name}: not promoted: {why}")


def _list(ledger: Ledger) -> dict[str, Any]:
    """The changes, and what it takes to tell what became of each: generations, moves of code, the newest launch."""
    last, moves = ledger.last_launch(), ledger.incidents(MOST_LISTED)
    known = ("number", "commit_id", "tree", "status", "reason", "confirm_by")
    return {
        "changes": [_public(ledger, row) for row in ledger.changes()[-MOST_LISTED:]],
        "generations": [_some(generation, *known) for generation in ledger.generations()[-MOST_LISTED:]],
        "moves": [m.to_dict() for m in moves if m.decision.startswith((models.ROLLBACK, models.UNDO))],
        "launch": last.to_dict() if last else None,
    }


def _look(ledger: Ledger, name: str, request: dict[str, Any]) -> dict[str, Any]:
    row = ledger.change(name)
    tree = request.get("tree")
    condemned = condemned_with(ledger, tree) if isinstance(tree, str) and tree else None
    known = _some(condemned, "number", "reason", "condemned_at") if condemned else None
    generation = ledger.generation(row.generation) if row else None
    shown = _some(generation, "number", "status", "reason", "confirm_by") if generation else None
    opened, pending = ledger.open_incident(), list_pending(ledger)
    return {
        "change": row.to_dict() if row else None,
        "condemned": known,
        "generation": shown,
        "state": models.tell_state(row, generation) if row else None,
        "is_open": row is not None and models.is_open(row, generation),
        "pending": name in pending,
        "rival": next((other for other in pending if other != name), ""),
        "incident": opened.id if opened else None,
        "is_switching": not pending and bool(ledger.open_attempt() or ledger.next_request()),
        "halted": ledger.meta("halted") or "",
    }


def _start(ledger: Ledger, name: str, request: dict[str, Any], author: Author) -> dict[str, Any]:
    facts = {"base": _id(request, "base"), "worktree": _text(request, "worktree", 1000)}
    about = _text(request, "about", LONGEST_TEXT)
    row = ledger.change(name)
    with ledger.transaction():
        if row is None:
            now, status = time.time(), models.OPEN
            ledger.insert("changes", name=name, about=about, author=author.name, started_at=now, status=status, **facts)
        else:
            is_done = models.tell_state(row, ledger.generation(row.generation)) in (models.ABANDONED, "blessed")
            status = models.OPEN if is_done else row.status
            ledger.update(
                "changes",
                {"name": name},
                status=status,
                reason="",
                **facts,  # with where it departs from now: what it has brought already is not what it is about
                about=about or row.about,
                ended_at=None,
            )
        ledger.event("change", f"{name}: started by {author.name}" + (f": {about}" if about else ""))
    return {"change": _change(ledger, name)}


def _record(ledger: Ledger, row: ChangeRecord, column: str, request: dict[str, Any], author: Author) -> dict[str, Any]:
    """Keep what a check, a trial or a review said of one commit."""
    facts = request.get("facts")
    if not isinstance(facts, dict):
        raise AgentctlError(f"a record of '{row.name}' has to be an object", "agentctl change --help")
    record = {
        **facts,
        "commit": _id(facts, "commit"),
        "tree": _id(facts, "tree"),
        "at": time.time(),
        "by": author.name,
        "by_agent": author.is_agent,
    }
    text = fast_json.dumps(record)
    if len(text) > LONGEST_RECORD:
        raise AgentctlError(f"a record of '{row.name}' is longer than {LONGEST_RECORD} characters")
    verdict = "" if record.get("ok", True) else " (failed)"
    with ledger.transaction():
        ledger.update("changes", {"name": row.name}, **{column: text})
        ledger.event("change", f"{row.name}: {column} at {record['commit'][:12]} by {author.name}{verdict}")
    return {"change": _change(ledger, row.name)}


def _approve(ledger: Ledger, row: ChangeRecord, request: dict[str, Any], author: Author) -> dict[str, Any]:
    if author.is_agent:
        raise AgentctlError(
            f"cannot approve '{row.name}': this is the agent itself",
            "another user has to: sudo agentctl change approve, or outside the agent's session",
        )
    record: dict[str, Any] = {
        "commit": _id(request, "commit"),
        "at": time.time(),
        "by": author.name,
        "note": _text(request, "note", LONGEST_TEXT),
    }
    with ledger.transaction():
        ledger.update("changes", {"name": row.name}, approved=fast_json.dumps(record))
        ledger.event("change", f"{row.name}: {record['commit'][:12]} approved by {author.name}")
    return {"change": _change(ledger, row.name)}


def _abandon(ledger: Ledger, row: ChangeRecord, request: dict[str, Any], author: Author) -> dict[str, Any]:
    reason = _text(request, "reason", LONGEST_TEXT)
    if row.name in list_pending(ledger):
        raise AgentctlError(f"cannot abandon '{row.name}': it is being promoted", "agentctl status")
    with ledger.transaction():
        ledger.update("changes", {"name": row.name}, status=models.ABANDONED, reason=reason, ended_at=time.time())
        ledger.event("change", f"{row.name}: abandoned by {author.name}" + (f": {reason}" if reason else ""))
    return {"change": _change(ledger, row.name)}


def _promote(ledger: Ledger, row: ChangeRecord, request: dict[str, Any], author: Author) -> dict[str, Any]:
    """Keep the wish; whether it may be fulfilled is judged anew by who fulfils it."""
    pending = list_pending(ledger)
    if row.name in pending:
        return {"change": row.to_dict()}  # the recovery process goes by what was asked for first
    if pending:
        raise AgentctlError(
            f"cannot promote '{row.name}': change '{pending[0]}' is being promoted",
            f"agentctl change promote {row.name}, when that is in place",
        )
    on_failure, seconds = request.get("on_failure", "rollback"), request.get("confirm_seconds")
    if on_failure not in models.ON_FAILURE:
        raise AgentctlError(f"cannot promote '{row.name}' so", f"--on-failure {'|'.join(models.ON_FAILURE)}")
    if seconds is not None and (type(seconds) not in (int, float) or not 0 < seconds <= LONGEST_CONFIRM_SECONDS):
        raise AgentctlError(
            f"cannot promote '{row.name}' so: not a time for its confirmation", "--confirm-within takes up to 30d"
        )
    wish: dict[str, Any] = {key: _id(request, key) for key in IDS}
    wish |= {
        "on_failure": on_failure,
        "confirm_seconds": seconds,
        "force": bool(request.get("force")),
        "at": time.time(),
        "by": author.name,
        "by_agent": author.is_agent,
    }
    with ledger.transaction():
        ledger.update(
            "changes",
            {"name": row.name},
            promotion=fast_json.dumps(wish),
            status=models.PROMOTING,
            reason="",
            ended_at=None,
        )
        forced = " --force" if wish["force"] else ""
        ledger.event("change", f"{row.name}: promote {wish['commit'][:12]}{forced} asked for by {author.name}")
    return {"change": _change(ledger, row.name)}


def _confirm(context: Context, ledger: Ledger, author: Author) -> dict[str, Any]:
    """Lift the deadline of what runs; raise AgentctlError if there is none, or it is not the caller's to lift."""
    last = ledger.last_launch()
    generation = ledger.generation(last.generation) if last else None
    if generation is None or generation.confirm_by is None or generation.status == "condemned":
        raise AgentctlError("there is nothing to confirm", "agentctl change list; agentctl status")
    if author.is_agent and context.config.change.review == "human":
        raise AgentctlError(
            f"cannot confirm generation {generation.number}: this is the agent itself, and change.review is human",
            "somebody else has to: agentctl confirm, outside the agent",
        )
    if time.time() >= generation.confirm_by:
        raise AgentctlError(
            f"too late to confirm generation {generation.number}: its time is over",
            "agentctl why; agentctl rollback undo --force brings it back",
        )
    with ledger.transaction():
        writers.set_deadline(ledger, generation.number, None)
        ledger.event("confirm", f"generation {generation.number} confirmed by {author.name}")
    return {"generation": generation.number, "change": generation.change, "by": author.name}


def _public(ledger: Ledger, row: ChangeRecord) -> dict[str, Any]:
    """A change as a list shows it."""
    generation = ledger.generation(row.generation)
    shown = _some(row, "name", "about", "author", "started_at", "base", "worktree", "status", "generation", "ended_at")
    reason = generation.reason if generation and generation.status == "condemned" else row.reason
    return {
        **shown,
        "state": models.tell_state(row, generation),
        "reason": reason,
        "is_open": models.is_open(row, generation),
    }


def _change(ledger: Ledger, name: str) -> dict[str, object] | None:
    row = ledger.change(name)
    return row.to_dict() if row else None


def _some(row: Record, *names: str) -> dict[str, object]:
    return {name: getattr(row, name) for name in names}


def _text(request: dict[str, Any], key: str, longest: int) -> str:
    value = request.get(key, "")
    if not isinstance(value, str) or len(value) > longest:
        raise AgentctlError(f"'{key}' has to be a text of at most {longest} characters")
    return value


def _id(request: dict[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or len(value) not in (40, 64) or any(c not in "0123456789abcdef" for c in value):
        raise AgentctlError(f"'{key}' has to be a full object id")
    return value
