"""Secrets do not leave: those that were given, exactly, and what looks like one."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from agentctl.state.mask import MASKED, Masker, given
from agentctl.watchdog.api import agent_routes, status_page

SECRET = 'pa"ss\\word-12345'


def test_what_was_given_is_masked_in_text_and_in_json():
    masker = Masker([SECRET, "short"])
    assert masker.exact(f"x {SECRET} y") == f"x {MASKED} y"
    assert json.loads(masker.exact(json.dumps({"said": f"it is {SECRET}!"}))) == {"said": f"it is {MASKED}!"}
    german = Masker(['pä"ss-word']).exact(json.dumps({"said": 'pä"ss-word'}, ensure_ascii=False))
    assert json.loads(german) == {"said": MASKED}
    assert masker.exact("a short word stays") == "a short word stays"
    assert Masker([]).exact(SECRET) == SECRET


def test_the_longer_of_two_secrets_goes_first():
    assert Masker(["abcdefgh", "abcdefghijkl"]).exact("abcdefghijkl") == MASKED


@pytest.mark.parametrize(
    "text",
    ["sk-proj-abcdefghijklmnop1234", "ghp_" + "a1" * 15, "github_pat_" + "b" * 30, "AKIA" + "A1" * 8,
     "xoxb-1234567890-abcdef", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop",
     "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(text):
    assert Masker([]).all(f"before {text} after") == f"before {MASKED} after"
    assert Masker([]).exact(text) == text


def test_a_key_on_many_lines_of_the_terminal_is_masked_whole():
    lines = ["$ cat key", "-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBg", "-----END PRIVATE KEY-----", "$"]

    async def blocking(function, *arguments):
        return lines

    call = SimpleNamespace(blocking=blocking, server=SimpleNamespace(context=None, masker=Masker([])))
    assert asyncio.run(agent_routes.pane(call)) == (200, {"lines": ["$ cat key", MASKED, "$"]})


@pytest.mark.parametrize("shift", range(-len(SECRET), 1, 4))
def test_a_secret_across_the_end_of_what_the_page_shows_is_masked(shift):
    to = status_page.PageWriter(Masker([SECRET]), 0.0)
    text = "x" * (status_page.MOST_TEXT + shift) + SECRET + "y" * status_page.MOST_TEXT
    assert to.start(text).endswith(" ...") and SECRET[:3] not in to.start(text).replace("&quot;", '"')
    assert SECRET[-3:] not in to.end("y" * status_page.MOST_TEXT + SECRET + "x" * (status_page.MOST_TEXT + shift))
    assert to.start("short <b>") == to.end("short <b>") == "short &lt;b&gt;"


def test_masked_json_lines_are_the_same_messages():
    """A key that begins and never ends is no reason to leave out what others said."""
    said = ["hello", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "ü \ud800", {"deep": [f"x {SECRET}", 12345678901]}, "bye"]
    lines = [json.dumps({"id": str(number), "content": one}).encode() + b"\n" for number, one in enumerate(said)]
    shown = [json.loads(line) for line in Masker([SECRET, "12345678901"]).lines(lines).splitlines()]
    assert [one["id"] for one in shown] == ["0", "1", "2", "3", "4"]
    assert [one["content"] for one in shown] == ["hello", MASKED, "ü \ud800", {"deep": [f"x {MASKED}", MASKED]}, "bye"]
    assert Masker([SECRET]).lines([lines[0], lines[2]]).encode() == lines[0] + lines[2]


@pytest.mark.parametrize("text", ["a task-force met", "risk-averse", "sk-short", "the key is under the mat", ""])
def test_words_stay(text):
    assert Masker([]).all(text) == text


def test_variables_are_secret_by_their_names():
    found = given({"OPENAI_API_KEY": "one", "DB_PASSWORD": "two", "GITHUB_TOKEN": "three", "LANG": "C", "PATH": "/bin"})
    assert found == ["one", "two", "three"]
