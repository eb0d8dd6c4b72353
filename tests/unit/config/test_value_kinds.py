"""What a value may be, kind by kind: what is taken becomes what the program uses, what is not is refused in words."""

import pytest

from agentctl.config import value_kinds
from agentctl.config.value_kinds import Argv, Choice, Duration, Listed, Size, Unfit, Variables, Whole

TAKEN = [
    (Choice("yes", "no"), "no", "no"),
    (Whole(1, 5), 1, 1),
    (Whole(1, 5), 5, 5),
    (Duration("1s", "1h"), "1s", 1.0),
    (Duration("1s", "1h"), "1h", 3600.0),
    (Size(), "0", 0),
    (Size(), "1K", 1024),
    (Size(), "20G", 20 << 30),
    (Size(), "999T", 999 << 40),
    (Argv(), [], []),
    (Argv(may_be_empty=False), ["a", ""], ["a", ""]),
    (Listed(Whole(0, 9), "digits"), [1, 2], [1, 2]),
    (Variables(), {"A": "", "b_1": "x\ny"}, {"A": "", "b_1": "x\ny"}),
    (value_kinds.Ready(), "notify", "notify"),
    (value_kinds.Ready(), "100ms", 0.1),
    (value_kinds.Ready(), ["true"], ["true"]),
    (value_kinds.PATH, "/a//b/./c/", "/a/b/c"),
    (value_kinds.STATE_FILE, "", ""),
    (value_kinds.LISTEN, "unix", "unix"),
    (value_kinds.LISTEN, "localhost:65535", "localhost:65535"),
    (value_kinds.LOCAL_URL, "http://127.0.0.1:80/", "http://127.0.0.1:80/"),
    (value_kinds.LOCAL_URL, "", ""),
    (value_kinds.PREFIXES, ["feature/", "a/b/"], ["feature/", "a/b/"]),
    (value_kinds.TMUX_KEY, "C-c", "C-c"),
    (value_kinds.OUTSIDE, ["~/x/**", "/x"], ["~/x/**", "/x"]),
    (value_kinds.ANYWHERE, ["~/x/**", "/x", "x"], ["~/x/**", "/x", "x"]),
    (value_kinds.CODE_PATHS, [".gitignore", "a/.github"], [".gitignore", "a/.github"]),
    (value_kinds.ENGINE, "unix:///run/docker.sock", "unix:///run/docker.sock"),
    (value_kinds.ENGINE, "tcp://10.0.0.1:2375", "tcp://10.0.0.1:2375"),
    (value_kinds.IMAGE, "python:3.12-slim", "python:3.12-slim"),
    (value_kinds.IMAGE, "registry.example:5000/A/b@sha256:00", "registry.example:5000/A/b@sha256:00"),
    (value_kinds.MAYBE_PATH, "", ""),
]
REFUSED = [
    (Choice("yes", "no"), ["", "Yes", "yes ", True, None]),
    (Whole(1, 5), [0, 6, 1.0, "1", True, None]),
    (Duration("1s", "1h"), ["999ms", "1h1ms", "", "soon", 5, 5.0, None]),
    (Size(), ["", "5", "1000K", "5k", "K", "-1K", "1.5G", "5GB", "٣G", 5, None]),
    (Argv(may_be_empty=False), [[], "a b", {}, None]),
    (Listed(Whole(0, 9), "digits"), [5, "12", {}, None]),
    (Variables(), [[], "A=b", {"": "x"}, {"1A": "x"}, {"AGENT_NAME": "x"}, {"A": 1}, {"A": "\0"}]),
    (value_kinds.Ready(), ["", "Notify", "99ms", "2h", [], [""], 5, None]),
    (value_kinds.PATH, ["", "/", "a", "/a/../b", "/a\n", "/\x7f", None]),
    (value_kinds.STATE_FILE, [".", "/a", "~/a", "a/..", 5]),
    (value_kinds.LISTEN, ["", "0.0.0.0:80", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:000080", "[::1]", "::1:80"]),
    (value_kinds.LOCAL_URL, ["https://127.0.0.1:80/", "http://127.0.0.1:80", "http://unix/", "http://example.org:80/",
                             "http://127.0.0.1/", "http://127.0.0.1:80/a b"]),
    (value_kinds.PREFIXES, [["feature"], ["/"], ["a b/"], ["-x/"], [".a/"], "a/"]),
    (value_kinds.TMUX_KEY, ["C c", "é", "x" * 17, 5]),
    (value_kinds.OUTSIDE, [["x"], ["~"], ["~/../x"], ["/"]]),
    (value_kinds.CODE_PATHS, [[".git"], ["a/.git/b"], ["/a"], ["~/a"], [""]]),
    (value_kinds.ENGINE, ["", "unix://", "unix:///", "http://x:1", "tcp://x", "tcp://:1", "tcp://x:y"]),
    (value_kinds.IMAGE, ["-x", "a b", "a\n", "ü", "x" * 256, 5]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "meant"), TAKEN)
def test_what_is_taken(kind, value, meant):
    assert kind.check(value) == meant


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in REFUSED for value in values])
def test_what_is_refused_in_words(kind, value):
    with pytest.raises(Unfit, match=r"^must be "):
        kind.check(value)


@pytest.mark.parametrize(
    ("kind", "value", "where", "item"),
    [
        (Argv(), ["a", 5], "[1]", 5),
        (Argv(), ["", "a"], "[0]", ""),
        (Listed(Whole(0, 9), "digits"), [1, 12, 13], "[1]", 12),
        (value_kinds.COMMANDS, [["a"], ["b", 5]], "[1][1]", 5),
        (Variables(), {"A": "x", "B C": "secret"}, ".B C", None),
        (Variables(), {"A": 5}, ".A", None),
    ],
)
def test_the_wrong_one_of_several_is_named(kind, value, where, item):
    with pytest.raises(Unfit) as refused:
        kind.check(value)
    assert (refused.value.where, refused.value.item) == (where, item)


@pytest.mark.parametrize("kind", [Argv(), Variables(), Listed(Argv(), "commands")])
def test_what_was_checked_is_no_longer_the_callers(kind):
    value = {"A": "x"} if isinstance(kind, Variables) else []
    assert kind.check(value) == value and kind.check(value) is not value
