"""The rows of the ledger: the one place where each is made, and where its life is written on.

A writer takes plain values, the instant among them. It decides nothing, and opens no transaction: which rows belong
together is said by who calls, and so is the event that tells people of it.
"""

from __future__ import annotations

from .database import Ledger

# -- generations ------------------------------------------------------------------------------------------------


def add_generation(
    ledger: Ledger,
    number: int,
    *,
    vault_commit: str,
    commit_id: str,
    tree: str,
    branch: str,
    status: str,
    source: str,
    created_at: float,
    tries_left: int,
    **more: object,
) -> None:
    """Record a generation that the vault holds; one that is good is the newest that is."""
    if status == "good" and not more.get("blessing"):
        more["blessing"] = ledger.next_blessing()
    ledger.insert(
        "generations",
        number=number,
        vault_commit=vault_commit,
        commit_id=commit_id,
        tree=tree,
        branch=branch,
        status=status,
        source=source,
        created_at=created_at,
        tries_left=tries_left,
        **more,
    )


def bless(ledger: Ledger, number: int, *, at: float, reason: str, snapshot: str) -> None:
    """Call a generation good; that lifts a condemnation, and nobody has to confirm it any more."""
    ledger.update(
        "generations",
        {"number": number},
        status="good",
        blessed_at=at,
        blessing=ledger.next_blessing(),
        reason=reason,
        condemned_at=None,
        snapshot=snapshot,
        confirm_by=None,
    )


def condemn(ledger: Ledger, number: int, *, at: float, reason: str) -> None:
    """Call a generation bad: its tree is not launched again."""
    ledger.update("generations", {"number": number}, status="condemned", condemned_at=at, reason=reason)


def bring_back(ledger: Ledger, number: int, *, tries_left: int) -> None:
    """Give a condemned generation another trial, as an undo does."""
    ledger.update(
        "generations",
        {"number": number},
        status="candidate",
        condemned_at=None,
        reason="brought back by undo",
        confirm_by=None,
        tries_left=tries_left,
    )


def set_tries(ledger: Ledger, number: int, tries_left: int) -> None:
    """Say how many launches a candidate has left."""
    ledger.update("generations", {"number": number}, tries_left=tries_left)


def set_snapshot(ledger: Ledger, number: int, snapshot: str) -> None:
    """Say which state belongs to a generation."""
    ledger.update("generations", {"number": number}, snapshot=snapshot)


def forget_snapshot(ledger: Ledger, snapshot: str) -> None:
    """Let no generation name a snapshot that goes."""
    ledger.db.execute("UPDATE generations SET snapshot='' WHERE snapshot=?", (snapshot,))


def set_image(ledger: Ledger, number: int, image: str, inputs: str) -> None:
    """Say which image a generation runs in, and what that was built from."""
    ledger.update("generations", {"number": number}, image=image, image_inputs=inputs)


def set_promotion(ledger: Ledger, number: int, *, change: str, on_failure: str) -> None:
    """Say which change a generation came from, and what its failure is to lead to."""
    ledger.update("generations", {"number": number}, change=change, on_failure=on_failure)


def set_deadline(ledger: Ledger, number: int, confirm_by: float | None) -> None:
    """Say until when somebody has to confirm a generation; None lifts it."""
    ledger.update("generations", {"number": number}, confirm_by=confirm_by)


def set_golden(ledger: Ledger, number: int | None) -> None:
    """Make one generation golden and no other; with None no one is."""
    ledger.db.execute("UPDATE generations SET is_golden = (number IS ?)", (number,))


def let_go(ledger: Ledger, number: int) -> None:
    """Say that a generation is pruned: its line is all that stays of it."""
    ledger.update("generations", {"number": number}, vault_commit="", snapshot="")


# -- launches ---------------------------------------------------------------------------------------------------


def begin_launch(
    ledger: Ledger, launch_id: str, generation: int, *, at: float, boot_id: str, snapshot: str = "", incident: str = ""
) -> None:
    """Record a launch before anything of it starts."""
    ledger.insert(
        "launches",
        id=launch_id,
        generation=generation,
        started_at=at,
        boot_id=boot_id,
        snapshot=snapshot,
        incident=incident,
    )


def add_no_launch(
    ledger: Ledger, launch_id: str, generation: int, *, at: float, boot_id: str, end: str, trigger: str, reason: str
) -> None:
    """Record a launch that ended as it began: it was refused, or could not be begun."""
    ledger.insert(
        "launches",
        id=launch_id,
        generation=generation,
        started_at=at,
        boot_id=boot_id,
        ended_at=at,
        end=end,
        trigger=trigger,
        reason=reason,
    )


def set_ready(ledger: Ledger, launch_id: str, at: float) -> None:
    """Say since when a launch is ready."""
    ledger.update("launches", {"id": launch_id}, ready_at=at)


def set_first_beat(ledger: Ledger, launch_id: str, at: float) -> None:
    """Say when a launch beat for the first time."""
    ledger.update("launches", {"id": launch_id}, first_beat_at=at)


def set_life(ledger: Ledger, launch_id: str, life: str) -> None:
    """Say what kinds of life a launch has shown."""
    ledger.update("launches", {"id": launch_id}, life=life)


def end_launch(
    ledger: Ledger, launch_id: str, end: str, *, at: float, trigger: str, reason: str, **how: object
) -> None:
    """Say how a launch ended; `how` has what else only its runner knows."""
    ledger.update("launches", {"id": launch_id}, ended_at=at, end=end, trigger=trigger, reason=reason, **how)


def excuse_launch(ledger: Ledger, launch_id: str, generation: int) -> None:
    """Let a launch that failed count as stopped, and give its generation a try if it has none left."""
    ledger.update("launches", {"id": launch_id}, end="stopped")
    ledger.db.execute("UPDATE generations SET tries_left = max(tries_left, 1) WHERE number = ?", (generation,))


# -- incidents, attempts, steps ---------------------------------------------------------------------------------


def open_incident(
    ledger: Ledger,
    incident_id: str,
    *,
    at: float,
    trigger: str,
    reason: str,
    launch: str = "",
    generation_from: int | None = None,
) -> None:
    """Record a failure, or a person's wish, that something will be done about."""
    ledger.insert(
        "incidents",
        id=incident_id,
        at=at,
        trigger=trigger,
        reason=reason,
        launch=launch,
        generation_from=generation_from,
    )


def set_origin(
    ledger: Ledger, incident_id: str, *, generation_from: int, trigger: str, launch: str, reason: str
) -> None:
    """Say what led to the first move of an incident: not its first stumble."""
    ledger.update(
        "incidents", {"id": incident_id}, generation_from=generation_from, trigger=trigger, launch=launch, reason=reason
    )


def set_decision(ledger: Ledger, incident_id: str, decision: str, generation_to: int | None) -> None:
    """Say what was decided, and which generation it leads to."""
    ledger.update("incidents", {"id": incident_id}, generation_to=generation_to, decision=decision)


def set_reason(ledger: Ledger, incident_id: str, reason: str) -> None:
    """Say anew why an incident is one."""
    ledger.update("incidents", {"id": incident_id}, reason=reason)


def set_evidence(ledger: Ledger, incident_id: str, text: str) -> None:
    """Replace an incident's evidence by this JSON."""
    ledger.update("incidents", {"id": incident_id}, evidence=text)


def end_incident(ledger: Ledger, incident_id: str, outcome: str, *, at: float, **facts: object) -> None:
    """Say how an incident ended."""
    ledger.update("incidents", {"id": incident_id}, outcome=outcome, ended_at=at, **facts)


def add_attempt(
    ledger: Ledger, incident: str, number: int, *, at: float, rung: str, target: int | None, reason: str, is_open: bool
) -> None:
    """Write down an attempt; one that is open is an intent, and is carried out whoever dies."""
    last = ledger.last_launch()
    ledger.insert(
        "attempts",
        launch=last.id if last is not None else "",
        incident=incident,
        number=number,
        at=at,
        rung=rung,
        target=target,
        reason=reason,
        is_open=int(is_open),
    )


def note_asked(ledger: Ledger, launch_id: str, *, at: float, target: int | None, reason: str) -> None:
    """Count a self-restart as an attempt that is no incident's; noted twice, it is counted once."""
    ledger.db.execute(
        "INSERT OR IGNORE INTO attempts (incident, number, at, rung, target, reason, is_open, launch) "
        "VALUES (?, 1, ?, 'asked', ?, ?, 0, ?)",
        (f"asked-{launch_id}", at, target, reason, launch_id),
    )


def close_attempt(ledger: Ledger, incident: str, number: int, **facts: object) -> None:
    """Say that an attempt is over: nothing of it is left to be done."""
    ledger.update("attempts", {"incident": incident, "number": number}, is_open=0, **facts)


def begin_step(ledger: Ledger, incident: str, attempt: int, name: str, *, at: float) -> None:
    """Record a step before it is done."""
    ledger.insert("steps", incident=incident, attempt=attempt, name=name, started_at=at)


def end_step(ledger: Ledger, incident: str, attempt: int, name: str, *, at: float, detail: str) -> None:
    """Say that a step is done, and what later ones need of it."""
    ledger.update("steps", {"incident": incident, "attempt": attempt, "name": name}, ended_at=at, detail=detail)


# -- requests ---------------------------------------------------------------------------------------------------


def add_request(ledger: Ledger, verb: str, target: str, *, at: float, author: str, reason: str) -> int:
    """Write down what somebody wants of the recovery process; return its number."""
    return ledger.insert("requests", at=at, verb=verb, target=target, author=author, reason=reason)


def end_all(ledger: Ledger, *, at: float) -> None:
    """Close every intent, launch and request: a rescue has put a good tree in place, and none of them will end."""
    ledger.db.execute("UPDATE attempts SET is_open=0 WHERE is_open=1")
    ledger.db.execute("UPDATE launches SET end='lost', ended_at=? WHERE end=''", (at,))
    ledger.db.execute("UPDATE requests SET incident='rescued' WHERE incident=''")


def answer_request(ledger: Ledger, number: int, incident: str) -> None:
    """Say what a request led to: an incident's id, or why there is none."""
    ledger.update("requests", {"number": number}, incident=incident)
