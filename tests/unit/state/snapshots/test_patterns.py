"""Globs: a table of what they mean, and properties that hold for any name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.state.snapshots.patterns import Patterns, fixed_folder

TABLE = [
    ("*.db", "a.db", True),
    ("*.db", "x/y/a.db", True),
    ("*.db", "a.db-wal", False),
    ("*.db", "a.db/inside", True),
    ("config/*", "config/a", True),
    ("config/*", "config/a/b/c", True),
    ("config/*", "config", False),
    ("config/*", "x/config/a", False),
    ("/config", "config/a", True),
    ("/config", "x/config", False),
    ("config", "x/config", True),
    ("./config", "config", True),
    ("cache/", "cache/a", True),
    ("cache/", "x/cache/a", True),
    ("cache/", "cache", False),
    ("a/**/z", "a/z", True),
    ("a/**/z", "a/b/c/z", True),
    ("a/**/z", "a/b/c", False),
    ("a/**", "a", False),
    ("a/**", "a/b/c", True),
    ("**/z", "z", True),
    ("**/z", "a/z/deep", True),
    ("**", "anything/at/all", True),
    ("*", ".hidden", True),
    ("?", "ab", False),
    ("?", "\n", True),
    ("a?c", "a/c", False),
    ("[a-c]x", "bx", True),
    ("[a-c]x", "dx", False),
    ("[!a-c]x", "dx", True),
    ("[^a]x", "ax", False),
    ("[]]", "]", True),
    ("[!]]", "]", False),
    ("[a-]", "-", True),
    ("[open", "[open", True),
    (r"\*", "*", True),
    (r"\*", "a", False),
    ("*a*b*c", "xaybzc", True),
    ("*a*b*c", "xaybz", False),
    ("*.jsonl", "history.jsonl\udcff", False),
    ("*\udcff*", "a\udcffb", True),
    ("!x", "!x", True),
    ("/home/*/s.db", "/home/agent/s.db", True),
    ("", "a", False),
    ("/", "a", True),
    ("tail\\", "tail\\", True),
]


@pytest.mark.parametrize(("pattern", "path", "is_match"), TABLE)
def test_table(pattern, path, is_match):
    assert Patterns([pattern]).matches(path) is is_match


names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=()), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..", "**")
)


def quoted(name):
    return "".join("\\" + letter if letter in "*?[\\" else letter for letter in name)


@given(st.lists(names, min_size=1, max_size=5))
def test_a_quoted_path_means_itself_and_what_is_below(parts):
    patterns = Patterns(["/" + "/".join(quoted(part) for part in parts)])
    assert patterns.matches("/".join(parts))
    assert patterns.matches("/".join([*parts, "below"]))
    assert not patterns.matches("/".join([parts[0] + "x", *parts[1:]]))


@given(st.text("ab*?", max_size=8), st.text("ab", min_size=1, max_size=8))
def test_one_name_agrees_with_fnmatch(glob, name):
    import fnmatch

    if "**" not in glob and glob:
        assert Patterns([glob]).matches(name) == fnmatch.fnmatchcase(name, glob)


@given(st.lists(st.text("ab*/?[]!-\\", max_size=8), max_size=3), st.lists(names, max_size=4))
def test_never_fails_and_pruning_agrees(globs, parts):
    patterns = Patterns(globs)
    state = patterns.start()
    for part in parts:
        state = patterns.step(state, part)
    assert not parts or patterns.matches("/".join(parts)) == patterns.is_hit(state)


def test_a_hostile_glob_is_not_slow():
    assert not Patterns(["*a" * 50 + "b"]).matches("a" * 255)
    assert not Patterns(["/" + "**/a/" * 30 + "b"]).matches("/".join(["a"] * 200))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/home/a/.s/**", ("/home/a/.s", "/**")),
        ("/home/a/x.json", ("/home/a", "/x.json")),
        ("/home/*/x", ("/home", "/*/x")),
        ("/*.conf", ("/", "/*.conf")),
    ],
)
def test_fixed_folder(pattern, expected):
    assert fixed_folder(pattern) == expected
