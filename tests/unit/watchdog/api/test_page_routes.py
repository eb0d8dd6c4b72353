"""The page's forms and buttons: each does what it says, and what is no form or button of the page is refused."""

import asyncio
from types import SimpleNamespace

import pytest

from agentctl.watchdog.api import page_routes
from agentctl.watchdog.api.auth import Refused


@pytest.fixture
def press(monkeypatch):
    """Press a button; return what was done and what was noted."""
    done, notes = [], []
    for verb in ("restart", "ask_rollback", "pause"):
        monkeypatch.setattr(page_routes.actions, verb, lambda *words, verb=verb: done.append((verb, *words[1:])))

    async def at_once(function, *words):
        return function(*words)

    def send(body, kind="application/x-www-form-urlencoded"):
        async def read():
            return body

        server = SimpleNamespace(context="context", note=lambda verb, text: notes.append((verb, text)))
        call = SimpleNamespace(server=server, request=SimpleNamespace(content_type=kind), body=read, blocking=at_once,
                               peer=SimpleNamespace(name="turn"))  # fmt: skip
        return asyncio.run(page_routes.act(call))

    send.done, send.notes = done, notes
    return send


@pytest.mark.parametrize(
    ("body", "done", "verb"),
    [
        (b"verb=restart", ("restart", None, ""), "restart"),
        (b"verb=rollback&generation=3", ("ask_rollback", "3", "asked for by turn, on the page"), "rollback"),
        (b"verb=resume", ("pause", None), "resume"),
    ],
)
def test_a_button_does_what_it_says_and_it_is_noted_who_pressed_it(press, body, done, verb):
    answer = press(body)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert press.done == [done] and press.notes == [(verb, "asked for by turn, on the page")]


def test_a_pause_has_an_end(press, monkeypatch):
    monkeypatch.setattr(page_routes.time, "time", lambda: 1000.0)
    press(b"verb=pause")
    assert press.done == [("pause", 1000.0 + page_routes.PAUSE_SECONDS)]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"verb=uninstall", "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 400),
        (b"verb=rollback", "application/x-www-form-urlencoded", 400),
        (b"verb=rollback&generation=-1", "application/x-www-form-urlencoded", 400),
        (b"verb=rollback&generation=1;2", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % n for n in range(50)), "application/x-www-form-urlencoded", 400),
        (b"\xff=\xff", "application/x-www-form-urlencoded", 400),
        (b'{"verb": "restart"}', "application/json", 415),
    ],
)
def test_what_is_no_button_of_the_page_does_nothing(press, body, kind, status):
    with pytest.raises(Refused) as refused:
        press(body, kind)
    assert refused.value.status == status and press.done == press.notes == []


@pytest.mark.parametrize("name", page_routes.KINDS)
def test_each_part_of_the_page_is_there(name):
    call = SimpleNamespace(request=SimpleNamespace(path=f"/{name}"))
    answer = asyncio.run(page_routes.static(call))
    assert answer.text and answer.content_type == page_routes.KINDS[name]
