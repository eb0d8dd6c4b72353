"""agent.toml: reading, the compiled copy, writing it anew."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.config import toml_edit, toml_file
from agentctl.core.errors import ConfigError
from kit import modes
from unit.toml_samples import MINIMAL

ROOT = Path(__file__).parents[3]


# --- reading


def test_attributes(path):
    path.write_text(MINIMAL + '[heartbeat]\ntimeout = "5s"\nfrom = "http"\n')
    loaded = toml_file.load(str(path))
    assert (loaded.agent.code, loaded.heartbeat.timeout) == ("/srv/agent", 5.0)
    assert (loaded.heartbeat.from_, loaded.rollback.window) == ("http", 1800.0)
    assert toml_edit.to_dict(loaded)["heartbeat"]["timeout"] == "5s"
    assert toml_edit.to_dict(loaded)["offline"] == {"after": "3m", "grace": "1m"}


def test_a_misspelt_attribute_is_no_silent_none(path):
    with pytest.raises(AttributeError):
        _ = toml_file.load(str(path)).heartbeat.timout


def test_several_mistakes_in_one_error(path):
    path.write_text('[agent]\nname = "X"\n[heartbeat]\ntimout = "5s"\ntimeout = 5\n')
    with pytest.raises(ConfigError) as caught:
        toml_file.load(str(path))
    keys = [mistake.key for mistake in caught.value.mistakes]
    assert keys == [
        "heartbeat.timout",
        "agent.name",
        "agent.code",
        "agent.command",
        "heartbeat.timeout",
    ]
    for mistake in caught.value.mistakes:
        assert str(mistake) in str(caught.value)
    assert (caught.value.exit_code, str(path) in str(caught.value)) == (1, True)


UNPARSABLE = [
    (b'[agent]\nname = "x\n', "line 2, column"),
    (b"[agent]\nname = x\n", "line 2, column 8"),
    (b'[agent]\ncode = "/a"\ncode = "/b"\n', "line 3"),
    (b"[agent]\n[agent]\n", "twice"),
    (b'[agent]\nname = "\xff"\n', "not UTF-8 (at line 2, column 9)"),
    (b"x = " + b"[" * 100_000, "nested too deeply"),
    (b"x = " + b"9" * 5000, "digits"),
    (b"#" * (toml_file.LIMIT_BYTES + 1), "larger than"),
    (b"\0", "line 1"),
]


@pytest.mark.parametrize(("data", "words"), UNPARSABLE, ids=[words for _, words in UNPARSABLE])
def test_unparsable(path, data, words):
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        toml_file.load(str(path))
    assert words in str(caught.value)


def test_unreadable(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", ".", "fifo"):
        with pytest.raises(ConfigError) as caught:
            toml_file.load(str(tmp_path / name))
        assert "cannot be read" in str(caught.value)


def test_forbidden(path):
    path.chmod(0)
    with modes.binding(), pytest.raises(ConfigError, match="Permission denied"):
        toml_file.load(str(path))


def test_a_byte_order_mark_is_no_mistake(path):
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert toml_file.load(str(path)).agent.code == "/srv/agent"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    target = tmp_path_factory.mktemp("any") / "agent.toml"
    target.write_bytes(data)
    with pytest.raises(ConfigError):
        toml_file.load(str(target))


# --- writing


def test_write_says_only_what_is_not_default(path):
    values = {
        "agent": {"code": "/a", "command": ["x"], "name": "bob", "branch": "main"},
        "heartbeat": {"timeout": "1m", "longest_wait": "20m"},
        "state": {"dir": "/var/lib/agentctl/bob/state"},
    }
    toml_edit.write(str(path), values)
    assert tomllib.loads(path.read_text()) == {
        "agent": {"code": "/a", "command": ["x"], "name": "bob"},
        "heartbeat": {"longest_wait": "20m"},
    }
    assert toml_file.load(str(path)).state.dir == "/var/lib/agentctl/bob/state"


def test_write_refuses_mistakes(path):
    with pytest.raises(ConfigError):
        toml_edit.write(str(path), {"agent": {"code": "x"}})
    assert path.read_text() == MINIMAL
