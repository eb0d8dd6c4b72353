"""Render a status for people: at most 80 columns, is it well first. Pure: `now` is an argument."""

from __future__ import annotations

from ..wording import ago, duration, local, wrap

LABEL_WIDTH = 12


def render(document: dict, now: float) -> str:
    """Return the text of a status."""
    lines = wrap(_headline(document), rest="  ")
    for problem in document["problems"]:
        lines += wrap(problem["message"], _label("problem"))
        if problem["hint"]:
            lines += wrap(problem["hint"], _label("hint"))
    lines += _row("running" if document["agent"]["alive"] else "in place", _generation(document))
    lines += _row("container", _container(document["agent"]))
    lines += _row("since", _since(document, now))
    lines += _row("heartbeat", _heartbeat(document, now))
    lines += _row("watchdog", _watchdog(document, now))
    lines += _row("good", _good(document))
    for number, sentence in enumerate(document["next"]):
        lines += _row("" if number else "next", sentence)
    lines += _row("incident", _incident(document["last_incident"], now))
    over = "; ".join(f"{kind}: {told}" for kind, told in document["over_budget"].items())
    lines += _row("budget", over and f"{over} (agentctl prune)")
    return "\n".join(lines)


def _label(text: str) -> str:
    return f"  {text}".ljust(LABEL_WIDTH)


def _row(label: str, text: str) -> list[str]:
    return wrap(text, _label(label)) if text else []


def _headline(document: dict) -> str:
    if document["well"]:
        return f"{document['name']} is well: {document['phase']}"
    phase, because = document["phase"], document["because"]
    told = because if because.startswith(phase) else f"{phase}: {because}"
    return f"{document['name']} is NOT well: {told}"


def _generation(document: dict) -> str:
    if document["generation"] is None:
        return ""
    told = f"generation {document['generation']}"
    if document["generation_status"]:
        told += f" ({document['generation_status']})"
    if document["commit"]:
        told += f", commit {document['commit'][:12]}"
    return told + (f" on {document['branch']}" if document["branch"] else "")


def _container(agent: dict) -> str:
    if not agent["container"]:
        return ""
    return f"{agent['container'][:12]} of image {agent['image'].removeprefix('sha256:')[:12]}"


def _since(document: dict, now: float) -> str:
    if document["started_at"] is not None:
        at = document["started_at"]
        pid = document["agent"]["pid"]
        process = f", process {pid}" if pid else ""
        return f"{local(at)} ({ago(at, now)}){process}, launch {document['launch_id']}"
    at = document["stopped_at"]
    return f"stopped {local(at)} ({ago(at, now)})" if at is not None else ""


def _heartbeat(document: dict, now: float) -> str:
    at, limit = document["last_heartbeat_at"], document["heartbeat_limit_seconds"]
    allowed = f" (limit {duration(limit)})" if limit else ""
    if at is None:
        return f"none yet{allowed}" if document["agent"]["alive"] else ""
    told = f"{ago(at, now)}{allowed}"
    if document["agent"]["alive"]:
        told += f", {document['heartbeats']} so far" if document["heartbeats"] else ""
        told += f", {document['agent']['phase']}" if document["agent"]["phase"] else ""
    return told


def _watchdog(document: dict, now: float) -> str:
    told = document["watchdog"]
    if not told["running"]:
        return ""
    if told["at"] is None:
        return "has not looked yet"
    why = f": {told['reason']}" if told["reason"] else ""
    seconds = told["offline_in_seconds"]
    is_close = told["state"] in ("late", "grace") and seconds is not None and seconds > 0
    return f"{told['state']}{why}, looked {ago(told['at'], now)}" + (
        f"; offline in {duration(seconds)}" if is_close else "")  # fmt: skip


def _good(document: dict) -> str:
    good, golden = document["last_known_good"], document["golden"]
    if good is None:
        return ""
    return f"last known good: generation {good}" + (f"; golden: {golden}" if golden else "")


def _incident(incident: dict | None, now: float) -> str:
    if incident is None:
        return ""
    move = ""
    if incident["from"] is not None and incident["to"] is not None:
        move = f", {incident['from']} -> {incident['to']}"
        if incident["from"] == incident["to"]:
            move = f", {incident['to']} again"
    outcome = incident["outcome"] or "not over yet"
    seconds = f" in {duration(incident['seconds'])}" if incident["outcome"] == "recovered" else ""
    when = ago(incident["at"], now)
    return f"{when}: {incident['trigger']}{move}: {outcome}{seconds} (agentctl why)"
