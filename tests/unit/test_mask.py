"""Secrets do not leave: those that were given, exactly, and what looks like one."""

from __future__ import annotations

import json

import pytest

from agentctl.conversation.mask import MASKED, Masker, given

SECRET = 'pa"ss\\word-12345'


def test_what_was_given_is_masked_in_text_and_in_json():
    masker = Masker([SECRET, "short"])
    assert masker.exact(f"x {SECRET} y") == f"x {MASKED} y"
    assert json.loads(masker.exact(json.dumps({"said": f"it is {SECRET}!"}))) == {"said": f"it is {MASKED}!"}
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


@pytest.mark.parametrize("text", ["a task-force met", "risk-averse", "sk-short", "the key is under the mat", ""])
def test_words_stay(text):
    assert Masker([]).all(text) == text


def test_variables_are_secret_by_their_names():
    found = given({"OPENAI_API_KEY": "one", "DB_PASSWORD": "two", "GITHUB_TOKEN": "three", "LANG": "C", "PATH": "/bin"})
    assert found == ["one", "two", "three"]
