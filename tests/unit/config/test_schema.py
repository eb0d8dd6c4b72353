"""The table of settings: durations, every kind's limits, every mistake by name and all at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.config import schema

REQUIRED = {"agent": {"code": "/srv/agent", "command": ["python3", "agent.py"]}}


def document(**sections):
    """Return a valid document with the sections' settings added."""
    made = {name: dict(content) for name, content in REQUIRED.items()}
    for name, content in sections.items():
        made[name] = made.get(name, {}) | content
    return made


def mistakes(**sections):
    return [str(mistake) for mistake in schema.validate(document(**sections))[1]]


# --- durations


# --- the table


def test_defaults_are_valid_and_as_designed():
    values, wrong = schema.validate(REQUIRED)
    assert wrong == []
    assert values.keys() == schema.BY_KEY.keys()
    expected = {"heartbeat.timeout": 60, "heartbeat.longest_wait": 900, "agent.ready": "auto", "heartbeat.from": "auto"}
    expected |= {"agent.ready_timeout": 90, "probation.tries": 2, "rollback.per_day": 10}
    expected |= {"state.dir": "/var/lib/agentctl/agent/state", "state.keep": ["history.jsonl"]}
    assert {key: values[key] for key in expected} == expected


def test_every_setting_is_described():
    for setting in schema.TABLE:
        assert setting.sentence.endswith("."), setting.key
        assert setting.applies in (schema.AT_ONCE, schema.RESTART, schema.INSTALL)
        assert setting.section in schema.SECTIONS
        setting.kind.check(setting.example)


def test_defaults_are_not_shared():
    for value in schema.validate(REQUIRED)[0].values():
        if isinstance(value, list):
            value.append("mine")
        if isinstance(value, dict):
            value["MINE"] = "mine"
    assert "mine" not in str(schema.validate(REQUIRED))


def test_the_state_folder_follows_the_name():
    values, wrong = schema.validate(document(agent={"name": "bob"}))
    assert (wrong, values["state.dir"]) == ([], "/var/lib/agentctl/bob/state")


GOOD = [
    ("agent.ready", "5s", 5.0),
    ("agent.ready", ["true"], ["true"]),
    ("agent.code", "/srv//agent/./", "/srv/agent"),
    ("agent.branch", "feature/x-1", "feature/x-1"),
    ("agent.command", ["sh", "-c", "echo\nhello"], ["sh", "-c", "echo\nhello"]),
    ("agent.environment", {"LANG": "C.UTF-8"}, {"LANG": "C.UTF-8"}),
    ("probation.duration", "0s", 0.0),
    ("probation.required", [["make", "test"]], [["make", "test"]]),
    ("state.extra", ["~/.claude/projects/**", "/opt/x*"], ["~/.claude/projects/**", "/opt/x*"]),
    ("watchdog.listen", "127.0.0.1:8642", "127.0.0.1:8642"),
    ("watchdog.listen", "[::1]:1", "[::1]:1"),
]


@pytest.mark.parametrize(("key", "value", "meant"), GOOD)
def test_allowed(key, value, meant):
    section, name = key.split(".")
    values, wrong = schema.validate(document(**{section: {name: value}}))
    assert (list(map(str, wrong)), values[key]) == ([], meant)


BAD = {
    "agent.name": ["", "Agent", "-a", "a b", "a" * 33, "é", "a/b", 5, None, ["a"]],
    "agent.code": ["", "srv/agent", "/", "/srv/../etc", "~/agent", "/srv/a\nb", "/srv/\0", 1],
    "agent.command": [[], "python3 agent.py", [""], ["a", 1], ["a\0"], [["a"]], {}],
    "agent.user": ["", "a b", "-a", "a:b", "a" * 32],
    "agent.branch": ["", "-x", "a..b", "a b", "a/", "/a", "a.lock", "@", "a@{1}", "x/.y", "HEAD"],
    "agent.ready": ["", "soon", 5, [], "2h", ["a", 1], True],
    "agent.ready_timeout": ["0s", 90, "90", 1.5, "2d", True],
    "agent.stop_grace": ["0s", "2h"],
    "agent.environment": [
        {"A=B": "x"},
        {"A": 1},
        {"AGENT_NAME": "x"},
        {"": "x"},
        "A=B",
        {"A": "\0"},
    ],
    "agent.pass_environment": ["PATH", ["NOTIFY_SOCKET"], ["1A"], [""], [1]],
    "heartbeat.from": ["", "Notify", "pane", 1],
    "heartbeat.file": ["/tmp/x", "../x", "a/../b", "~x", 1],
    "probation.heartbeats": [-1, "5", 1.0, True, float("inf")],
    "probation.tries": [0, 101],
    "probation.required": ["make", ["make"], [[]], [["make", 1]]],
    "state.dir": ["state", "/"],
    "state.restore": ["*.db", ["/etc/*"], ["../*"], ["a/../../b"], [""], [1], ["."]],
    "state.extra": [["sessions"], ["~/../x"], ["~"], ["/"]],
    "environment.paths": [[".git"], ["a/.git/b"], ["/x"], [".."], ["."]],
    "rollback.attempts": [0],
    "offline.after": ["0s"],
    "watchdog.listen": [
        "0.0.0.0:80",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "unix:/x",
        ":1",
    ],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_refused(key, value):
    section, name = key.split(".")
    found = schema.validate(document(**{section: {name: value}}))[1]
    assert [mistake.key.startswith(key) for mistake in found] == [True]
    assert "must be" in found[0].allowed


def test_the_wrong_item_is_named():
    assert mistakes(state={"keep": ["a", "../b"]}) == [
        'state.keep[1] = "../b": must be a relative pattern without ".."'
    ]
    assert mistakes(probation={"required": [["a"], ["b", 2]]})[0].startswith("probation.required[1][1] = 2: ")


def test_a_duration_without_unit_is_explained():
    assert 'with its unit, such as "60s"' in mistakes(heartbeat={"timeout": 60})[0]


def test_a_secret_is_not_repeated():
    assert "hunter2" not in "".join(mistakes(agent={"environment": {"A B": "hunter2"}}))


UNKNOWN = [
    ({"heartbeat": {"timout": "5s"}}, "heartbeat.timout", "did you mean heartbeat.timeout?"),
    ({"agent": {"timeout": "5s"}}, "agent.timeout", "did you mean heartbeat.timeout?"),
    ({"agent": {"qqq": 1}}, "agent.qqq", "known: name, code, command"),
    ({"hartbeat": {}}, "[hartbeat]", "unknown section; did you mean heartbeat?"),
    ({"zzz": {}}, "[zzz]", "unknown section; known: agent, heartbeat"),
    ({"tries": 3}, "tries", "did you mean probation.tries?"),
    ({"zzz": 3}, "zzz", "unknown setting; known: agent, heartbeat"),
    ({"state": "/x"}, "state", "must be a section: [state]"),
]


@pytest.mark.parametrize(("extra", "key", "words"), UNKNOWN)
def test_unknown(extra, key, words):
    made = document(**{k: v for k, v in extra.items() if isinstance(v, dict)})
    found = schema.validate(made | {k: v for k, v in extra.items() if not isinstance(v, dict)})[1]
    assert [mistake.key for mistake in found] == [key]
    assert words in found[0].allowed


CONTRADICTIONS = [
    ({"heartbeat": {"timeout": "15m"}}, "heartbeat.timeout", "less than heartbeat.longest_wait"),
    ({"heartbeat": {"longest_wait": "60s"}}, "heartbeat.timeout", "(1m)"),
    ({"heartbeat": {"from": "file"}}, "heartbeat.file", "required by"),
    ({"heartbeat": {"from": "command"}}, "heartbeat.command", "required by"),
    (
        {"heartbeat": {"from": "output", "progress": "required"}},
        "heartbeat.progress",
        "cannot be seen",
    ),
    ({"state": {"dir": "/srv/agent"}}, "state.dir", "must not be agent.code"),
    ({"state": {"dir": "/srv"}}, "state.dir", "or hold it"),
    ({"state": {"restore": ["a", "b"], "keep": ["b"]}}, "state.restore", "also in state.keep"),
]


@pytest.mark.parametrize(("sections", "key", "words"), CONTRADICTIONS)
def test_contradiction(sections, key, words):
    found = schema.validate(document(**sections))[1]
    assert [mistake.key for mistake in found] == [key]
    assert words in found[0].allowed


@pytest.mark.parametrize("state", ["/srv/agent/state", "/srv/agent-state", "/srv/agen"])
def test_no_contradiction(state):
    assert mistakes(state={"dir": state}) == []


def test_all_mistakes_at_once():
    wrong = {"agnt": {}, "agent": {"name": "X"}, "probation": {"tries": 0}, "state": {"dir": "x"}}
    assert [mistake.key for mistake in schema.validate(wrong)[1]] == [
        "[agnt]",
        "agent.name",
        "agent.code",
        "agent.command",
        "probation.tries",
        "state.dir",
    ]


def test_a_mistake_cannot_write_to_the_terminal():
    assert "\x1b" not in "".join(mistakes(agent={"\x1b[2J": "\x1b[2J"}))
    assert str(schema.Mistake("a.b", "\udcff", "no")).isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(schema.TABLE), JSON)
def test_any_value_is_taken_or_refused_with_a_reason(setting, value):
    found = schema.validate(document(**{setting.section: {setting.name: value}}))[1]
    assert all(str(mistake) for mistake in found)
