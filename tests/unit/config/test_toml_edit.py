"""Careful editing of agent.toml: one setting changes, and no other line of the file."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.config import reference, schema, toml_edit, toml_file
from agentctl.core import durable
from agentctl.core.errors import ConfigError, UsageError
from unit.toml_samples import COMMENTED, MINIMAL


def changed_lines(before, after):
    old, new = before.split("\n"), after.split("\n")
    return [line for line in old if line not in new], [line for line in new if line not in old]


EDITS = [
    (
        "heartbeat.timeout",
        "5s",
        ['timeout = "30s"    # "60s" was # too long'],
        ['timeout = "5s"    # "60s" was # too long'],
    ),
    (
        "agent.name",
        "al",
        ['name = "bob"                 # short'],
        ['name = "al"                 # short'],
    ),
    (
        "state.keep",
        "history.jsonl 'x y'",
        ['keep = ["history.jsonl", "a#b"]  # stays'],
        ['keep = ["history.jsonl", "x y"]  # stays'],
    ),
    (
        "state.keep",
        '["[a]*"]',
        ['keep = ["history.jsonl", "a#b"]  # stays'],
        ['keep = ["[a]*"]  # stays'],
    ),
    ("heartbeat.progress", "required", [], ['progress = "required"']),
    ("heartbeat.command", "sh -c 'exit 0'", [], ['command = ["sh", "-c", "exit 0"]']),
    ("probation.tries", "3", [], ["[probation]", "tries = 3"]),
    ("probation.required", '[["make"]]', [], ["[probation]", 'required = [["make"]]']),
    ("agent.environment", '{A = "b"}', [], ['environment = { A = "b" }']),
    ("agent.ready", "5s", [], ['ready = "5s"']),
    ("agent.ready", '["test", "-e", "x"]', [], ['ready = ["test", "-e", "x"]']),
]  # fmt: skip


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize(("key", "text", "gone", "come"), EDITS)
def test_set_changes_one_line(path, key, text, gone, come, ending):
    path.write_bytes(COMMENTED.replace("\n", ending).encode())
    change = toml_edit.set_value(str(path), key, text)
    raw = path.read_bytes().decode()
    assert raw.count("\n") == raw.count(ending)
    assert changed_lines(COMMENTED, raw.replace(ending, "\n")) == (gone, come)
    section, name = key.split(".")
    assert tomllib.loads(raw)[section][name] == change.new
    assert change.kept_path == ""
    assert os.listdir(path.parent) == ["agent.toml"]


def test_a_setting_joins_its_section(path):
    path.write_text(COMMENTED)
    toml_edit.set_value(str(path), "heartbeat.from", "http")
    expected = 'too long\nfrom = "http"\n# progress'
    assert expected in path.read_text()


def test_set_over_several_lines_keeps_the_old_file(path):
    path.write_text(COMMENTED)
    change = toml_edit.set_value(str(path), "agent.command", "python3 other.py")
    assert change.kept_path == f"{path}.before"
    assert Path(change.kept_path).read_text() == COMMENTED
    after = path.read_text()
    assert 'code = "/srv/agent"\ncommand = ["python3", "other.py"]\n\n# ---- life' in after


HARD = [
    'agent = { code = "/srv/agent", command = ["x"] }\nheartbeat = { timeout = "9s" }\n',
    '["agent"]\ncode = "/srv/agent"\ncommand = ["x"]\n[ "heartbeat" ]\n"timeout" = "9s"',
    'agent.code = "/srv/agent"\nagent.command = ["x"]\nheartbeat.timeout = "9s"\n',
    '[agent]\ncode = "/srv/agent"\ncommand = ["""\ntimeout = "9s"\n[heartbeat]\n"""]\n[heartbeat]\ntimeout = """9s"""',
    (
        '[agent]\ncode = "/srv/agent"\ncommand = ["x"]\n[agent.environment]\ntimeout = "9s"\n'
        '[heartbeat]\ntimeout =\t"9s"#\n'
    ),
    MINIMAL[:-1],
    "\ufeff" + MINIMAL,
]


@pytest.mark.parametrize("text", HARD)
@pytest.mark.parametrize(
    ("key", "value"),
    [("heartbeat.timeout", "5s"), ("agent.environment", '{A = "#"}'), ("offline.grace", "9s")],
)
def test_however_it_is_written_only_that_setting_changes(path, text, key, value):
    path.write_text(text)
    document = tomllib.loads(text.lstrip("\ufeff"))
    change = toml_edit.set_value(str(path), key, value)
    section, name = key.split(".")
    document.setdefault(section, {})[name] = change.new
    assert tomllib.loads(path.read_text().lstrip("\ufeff")) == document
    if change.kept_path:
        assert Path(change.kept_path).read_text() == text


@given(
    lines=st.lists(st.sampled_from(COMMENTED.split("\n")[10:] + ["[[x", '"""', "'''", "]"]), max_size=9),
    setting=st.sampled_from(schema.TABLE),
)
def test_set_never_touches_another_setting(tmp_path_factory, lines, setting):
    target = tmp_path_factory.mktemp("set") / "agent.toml"
    text = "\n".join([MINIMAL, *lines])
    target.write_text(text)
    try:
        change = toml_edit.set_value(str(target), setting.key, _as_argument(setting.example))
    except ConfigError:
        assert target.read_text() == text
        return
    before, after = tomllib.loads(text), tomllib.loads(target.read_text())
    assert after.pop(setting.section) == before.pop(setting.section, {}) | {setting.name: change.new}
    assert after == before


def _as_argument(value):
    return value if isinstance(value, str) else toml_edit.toml(value)


@pytest.mark.parametrize("setting", schema.TABLE, ids=lambda setting: setting.key)
def test_every_setting_can_be_set(path, setting):
    text = reference.sample()
    path.write_text(text)
    toml_edit.set_value(str(path), setting.key, _as_argument(setting.example))
    assert path.read_text() == text


BAD_SETS = [
    ("heartbeat.timeout", "1h", "must be less than heartbeat.longest_wait"),
    ("heartbeat.timeout", "60", "must be a duration"),
    ("probation.tries", "two", "must be a whole number"),
    ("agent.command", "python3 'agent.py", "must be a command"),
    ("agent.command", '["python3"', "must be a command"),
    ("agent.environment", "A=B", "must be a table"),
    ("agent.name", "\udcff", "must be a name"),
    ("heartbeat.from", "file", "heartbeat.file"),
]


@pytest.mark.parametrize(("key", "text", "words"), BAD_SETS)
def test_set_refuses_what_would_be_a_mistake(path, key, text, words):
    with pytest.raises(ConfigError, match=words):
        toml_edit.set_value(str(path), key, text)
    assert path.read_text() == MINIMAL


def test_set_refuses_an_unknown_setting(path):
    with pytest.raises(UsageError, match=r"did you mean heartbeat\.timeout"):
        toml_edit.set_value(str(path), "heartbeat.timout", "5s")


def test_set_can_mend_the_one_mistake(path):
    path.write_text(MINIMAL + "[heartbeat]\ntimeout = 1979-05-27\n")
    change = toml_edit.set_value(str(path), "heartbeat.timeout", "5s")
    assert path.read_text() == MINIMAL + '[heartbeat]\ntimeout = "5s"\n'
    assert toml_edit.toml(change.old) == '"1979-05-27"'


def test_set_keeps_mode_and_symbolic_link(path, tmp_path):
    path.chmod(0o640)
    (tmp_path / "link.toml").symlink_to(path)
    toml_edit.set_value(str(tmp_path / "link.toml"), "heartbeat.timeout", "5s")
    assert (tmp_path / "link.toml").is_symlink()
    assert (path.stat().st_mode & 0o777, toml_file.load(str(path)).heartbeat.timeout) == (0o640, 5.0)


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError):
        toml_edit.set_value(str(path), "heartbeat.timeout", "5s")
    assert (path.read_text(), os.listdir(path.parent)) == (MINIMAL, ["agent.toml"])


ADVICE = [
    ("probation.tries", "3", "at once", "counts at once"),
    ("agent.command", "x", "restart", "agentctl restart"),
    ("heartbeat.timeout", "5s", "install", "agentctl install"),
    ("offline.grace", "5s", "restart", "agent-watchdog.service"),
]


@pytest.mark.parametrize(("key", "text", "applies", "words"), ADVICE)
def test_advice(path, key, text, applies, words):
    change = toml_edit.set_value(str(path), key, text)
    assert change.applies == applies
    assert words in change.advice
