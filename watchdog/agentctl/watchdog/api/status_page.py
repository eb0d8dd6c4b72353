"""The status page: one document made here, whole and safe. Pure: facts in, HTML out; every text is escaped and masked.

No script of others, no build, no resource from elsewhere; without our script it still shows everything.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

from ...core.text import ago, clean, duration, stamp

if TYPE_CHECKING:
    from ...recovery.requests import RollbackPlan

SPANS = ("day", "week", "month")
WELL_WORDS = {"well": "is well", "late": "is late", "grace": "is silent", "offline": "is OFFLINE",
              "unknown": "is not known yet", "stopped": "is stopped", "recovering": "is coming back"}  # fmt: skip
MOST_TEXT = 4000
WIDTH, HEIGHT = 1000, 26


class PageWriter:
    """Escapes and masks whatever is put into the page."""

    def __init__(self, masker, now: float) -> None:
        self._masker, self.now = masker, now

    def text(self, value: object) -> str:
        """Return a text that is safe to stand in the page."""
        return escape(self._masker.all(clean(str("" if value is None else value))), quote=True)

    def start(self, value: str) -> str:
        """Return as much of a long text as is shown; a secret across the cut is masked before it is cut."""
        shown = self._masker.all(clean(value[: 2 * MOST_TEXT]))
        return escape(shown if len(value) <= MOST_TEXT else shown[:MOST_TEXT] + " ...", quote=True)

    def end(self, value: str) -> str:
        """Return the last of a long text, likewise."""
        return escape(self._masker.all(clean(value[-2 * MOST_TEXT :]))[-MOST_TEXT:], quote=True)

    def ago(self, at: float | None) -> str:
        """Return how long ago an instant was, with the instant itself behind it."""
        if at is None:
            return "never"
        return f'<time datetime="{stamp(at)}" title="{stamp(at)}">{escape(ago(at, self.now))}</time>'


def render(facts: dict, masker, now: float) -> str:
    """Return the whole page."""
    to = PageWriter(masker, now)
    parts = [
        _head(facts["agent"]["name"], to), '<main id="live">', _status(facts, to), _timeline(facts, to),
        _buttons(facts) if facts["is_admin"] else "", _incidents(facts, to), _generations(facts, to),
        _pane(facts, to), _events(facts, to), "</main>", _conversation(facts, to), FOOT,
    ]  # fmt: skip
    return "\n".join(parts)


def login(name: str, masker, now: float, complaint: str = "") -> str:
    """Return the page that asks for a token."""
    to = PageWriter(masker, now)
    told = f'<p class="bad" role="alert">{to.text(complaint)}</p>' if complaint else ""
    return (
        f'{_head(name, to)}<main><h1>{to.text(name)}</h1>{told}<form method="post" action="/session">'
        '<label for="token">Token</label> <input id="token" name="token" type="password" autocomplete="off" required>'
        '<button>Enter</button></form><p class="small">agentctl token create --scope read, or --scope admin to act</p>'
        f"</main>{FOOT}"
    )


def plan(name: str, found: RollbackPlan, masker, now: float) -> str:
    """Return the page that shows what a rollback would do, and asks once more."""
    to = PageWriter(masker, now)
    rows = [("from generation", found.source), ("to generation", found.to), ("commit", found.commit),
            ("state goes back", ", ".join(found.restores)), ("state stays", ", ".join(found.keeps))]  # fmt: skip
    lists = ""
    for title, named in (
        ("Commits that are undone", found.commits_undone),
        ("Files not committed", found.uncommitted),
    ):
        items = "".join(f"<li>{to.text(item)}</li>" for item in named) or "<li>none</li>"
        lists += f"<h3>{title}</h3><ul>{items}</ul>"
    return (
        f"{_head(name, to)}<main><h1>Roll {to.text(name)} back?</h1>{_table(rows, to)}{lists}"
        "<p>Nothing is deleted: the work is kept on a branch and whole in quarantine.</p>"
        f'<form method="post" action="/act"><input type="hidden" name="generation" value="{to.text(found.to)}">'
        '<button class="danger" name="verb" value="rollback">Roll back</button> <a href="/">No</a></form>'
        f"</main>{FOOT}"
    )


def _head(name: str, to: PageWriter) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>' + to.text(name) + " - agentctl</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="/icon.svg">'
        '<link rel="stylesheet" href="/page.css"><script src="/page.js" defer></script></head><body>'
    )


FOOT = (
    '<footer><form method="post" action="/session/end"><button class="small">Leave</button></form></footer>'
    "</body></html>"
)


def _status(facts: dict, to: PageWriter) -> str:
    agent = facts["agent"]
    state = agent["state"]
    rows = [
        ("why", agent["reason"]), ("since", to.ago(agent["since_at"])),
        ("heartbeat", f"{to.ago(agent['last_heartbeat_at'])}, {agent['heartbeats']} of this launch"),
        ("launch", agent["launch_id"]), ("generation", agent.get("generation")),
        ("phase", agent["phase"]), ("does", agent["status"]),
        ("offline in", duration(agent["offline_in_seconds"]) if agent.get("offline_in_seconds") else ""),
        ("paused", f"until {stamp(agent['paused_until_at'])}" if agent.get("paused_until_at") else ""),
        ("halted", agent.get("halted")), ("problem", agent.get("problem")), ("store", facts["store_problem"]),
        ("up", "" if agent["share_up"] is None else f"{agent['share_up'] * 100:.2f} % of the {agent['span']}"),
    ]  # fmt: skip
    return (f'<h1 class="{to.text(state)}"><span class="lamp" aria-hidden="true"></span>{to.text(agent["name"])} '
            f'{WELL_WORDS.get(state, to.text(state))}</h1>{_table(rows, to, raw=("since", "heartbeat"))}')  # fmt: skip


def _table(rows: list[tuple], to: PageWriter, raw: tuple = ()) -> str:
    lines = [f"<tr><th scope=row>{title}</th><td>{value if title in raw else to.text(value)}</td></tr>"
             for title, value in rows if value not in (None, "")]  # fmt: skip
    return f"<table>{''.join(lines)}</table>"


def _timeline(facts: dict, to: PageWriter) -> str:
    """One picture: what was when, with words for who does not see it."""
    chosen = facts["agent"]["span"]
    links = " ".join(f"<b>{span}</b>" if span == chosen else f'<a href="/?span={span}">{span}</a>' for span in SPANS)
    bars = "".join(
        f'<rect class="{to.text(kind)}" x="{start * WIDTH:.1f}" width="{max((end - start) * WIDTH, 1):.1f}" '
        f'height="{HEIGHT}"><title>{to.text(kind)}{": " if why else ""}{to.text(why)}</title></rect>'
        for kind, start, end, why in facts["slices"]
    )
    total = facts["agent"]["seconds"]
    told = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in total.items() if seconds >= 1) or "nothing yet"
    legend = " ".join(f'<span class="key {kind}">{kind}</span>' for kind in total)
    return (f'<section><h2>Time</h2><p>{links}</p><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" '
            f'role="img" aria-label="{to.text(told)}">{bars}</svg><p class="small">{legend}</p>'
            f'<p class="small">{to.text(told)}</p></section>')  # fmt: skip


def _buttons(facts: dict) -> str:
    is_paused = bool(facts["agent"].get("paused_until_at"))
    pause = (
        '<button name="verb" value="resume">Resume</button>'
        if is_paused
        else '<button name="verb" value="pause">Pause for 1h</button>'
    )
    return ('<form method="post" action="/act" class="acts"><button name="verb" value="restart">Restart</button> '
            f'{pause} <a class="button" href="/plan">Roll back ...</a></form>')  # fmt: skip


def _incidents(facts: dict, to: PageWriter) -> str:
    found = []
    for row in facts["incidents"]:
        outcome = row["outcome"] or "open"
        seconds = f" in {duration(row['seconds'])}" if row["seconds"] is not None else ""
        steps = "".join(f"<li>{to.text(s['name'])}: {'' if s['seconds'] is None else duration(s['seconds'])}</li>"
                        for s in row["steps"])  # fmt: skip
        attempts = "".join(f"<li>{to.text(a['rung'])} &rarr; generation {to.text(a['target'])}: "
                           f"{to.text(a['reason'])}</li>" for a in row["attempts"])  # fmt: skip
        proof = row["evidence"]
        lines = proof.get("stack") or proof.get("last_lines") or ""
        lines = "\n".join(map(str, lines)) if isinstance(lines, list) else str(lines)
        found.append(
            f'<details id="{to.text(row["id"])}"><summary>{to.ago(row["at"])}: {to.text(row["trigger"])}, '
            f"{to.text(row['from'])} &rarr; {to.text(row['to'])}: <b>{to.text(outcome)}</b>{seconds}</summary>"
            f"<p>{to.text(row['reason'])}</p><p>{to.text(row['decision'])}</p><ul>{attempts}</ul><ol>{steps}</ol>"
            f"<pre>{to.end(lines)}</pre></details>"
        )
    return f"<section><h2>Incidents</h2>{''.join(found) or '<p>none</p>'}</section>"


def _generations(facts: dict, to: PageWriter) -> str:
    rows = "".join(
        f'<tr><td>{row["number"]}</td><td class="{to.text(row["status"])}">{to.text(row["status"])}</td>'
        f"<td><code>{to.text(row['commit'][:12])}</code></td><td>{to.ago(row['created_at'])}</td>"
        f"<td>{to.text(row['reason'])}</td></tr>"
        for row in facts["generations"]
    )
    return ('<section><h2>Generations</h2><div class="wide"><table><tr><th scope=col>#</th><th scope=col>status</th>'
            '<th scope=col>commit</th><th scope=col>made</th><th scope=col>reason</th></tr>'
            f"{rows}</table></div></section>")  # fmt: skip


def _pane(facts: dict, to: PageWriter) -> str:
    lines = "\n".join(facts["pane"][-60:])
    return f'<section><h2>Terminal</h2><pre id="pane" tabindex="0">{to.text(lines) or "nothing"}</pre></section>'


def _events(facts: dict, to: PageWriter) -> str:
    items = "".join(f"<li>{to.ago(e['at'])}: <b>{to.text(e['kind'])}</b> {to.text(e['text'])}</li>"
                    for e in facts["events"])  # fmt: skip
    return f"<section><h2>Events</h2><ul>{items or '<li>none</li>'}</ul></section>"


def _conversation(facts: dict, to: PageWriter) -> str:
    items = "".join(
        f"<article><h3>{to.text(m.get('role', '?'))} <small>{to.text(m.get('at', ''))}</small></h3>"
        f"<p>{to.start(_content(m))}</p></article>"
        for m in facts["messages"]
    )
    asked = to.text(facts["words"])
    return ('<section id="conversation"><h2>Conversation</h2><form action="/" role="search">'
            f'<label for="q">Search</label> <input id="q" name="q" value="{asked}"><button>Find</button></form>'
            f"{items or '<p>no messages</p>'}</section>")  # fmt: skip


def _content(message: dict) -> str:
    content = message.get("content", "")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
