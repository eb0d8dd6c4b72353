"""agent.toml: reading, the compiled copy, writing it anew."""

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentctl.config import toml_edit, toml_file
from kit import deadline, modes
from unit.toml_samples import MINIMAL

ROOT = Path(__file__).parents[3]


# --- reading


def test_attributes(path):
    path.write_text(MINIMAL + '[heartbeat]\ntimeout = "5s"\nfrom = "http"\n')
    loaded = toml_file.load(str(path))
    assert (loaded.agent.code, loaded.heartbeat.timeout) == ("/srv/agent", 5.0)
    assert (loaded.heartbeat.from_, loaded.rollback.window) == ("http", 1800.0)
    assert toml_file.to_dict(loaded)["heartbeat"]["timeout"] == "5s"
    assert toml_file.to_dict(loaded)["offline"] == {"after": "3m", "grace": "1m"}


def test_a_misspelt_attribute_is_no_silent_none(path):
    with pytest.raises(AttributeError):
        _ = toml_file.load(str(path)).heartbeat.timout


def test_several_mistakes_in_one_error(path):
    path.write_text('[agent]\nname = "X"\n[heartbeat]\ntimout = "5s"\ntimeout = 5\n')
    with pytest.raises(toml_file.ConfigError) as caught:
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
    with pytest.raises(toml_file.ConfigError) as caught:
        toml_file.load(str(path))
    assert words in str(caught.value)


def test_unreadable(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", ".", "fifo"):
        with pytest.raises(toml_file.ConfigError) as caught:
            toml_file.load(str(tmp_path / name))
        assert "cannot be read" in str(caught.value)


def test_forbidden(path):
    path.chmod(0)
    with modes.binding(), pytest.raises(toml_file.ConfigError, match="Permission denied"):
        toml_file.load(str(path))


def test_a_byte_order_mark_is_no_mistake(path):
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert toml_file.load(str(path)).agent.code == "/srv/agent"


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    target = tmp_path_factory.mktemp("any") / "agent.toml"
    target.write_bytes(data)
    with pytest.raises(toml_file.ConfigError):
        toml_file.load(str(target))


# --- the compiled copy


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "compiled.json"


@pytest.fixture
def parses(monkeypatch):
    """Count how often TOML was parsed."""
    counted, parse = [], toml_file.parse
    monkeypatch.setattr(toml_file, "parse", lambda *a: counted.append(1) or parse(*a))
    return counted


def both(path, cache):
    return toml_file.load_compiled(str(path), str(cache))


def test_compiled_once(path, cache, parses):
    path.write_text(MINIMAL + 'ready = "5s"\n')
    first, second = both(path, cache), both(path, cache)
    assert len(parses) == 1
    assert (first.values, first.given) == (second.values, second.given)
    assert (second.agent.ready, second.heartbeat.timeout) == (5.0, 60.0)
    assert toml_file.to_dict(second) == toml_file.to_dict(toml_file.load(str(path)))


def test_compiled_again_after_a_change(path, cache, parses):
    both(path, cache)
    toml_edit.set_value(str(path), "heartbeat.timeout", "5s")
    parses.clear()
    assert both(path, cache).heartbeat.timeout == 5.0
    assert both(path, cache).heartbeat.timeout == 5.0
    assert len(parses) == 1


def test_same_size_and_time_but_another_content(path, cache):
    both(path, cache)
    before = path.stat()
    path.write_text(MINIMAL.replace("/srv/agent", "/opt/agent"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert both(path, cache).agent.code == "/opt/agent"


def without(name):
    return lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != name})


def with_(**changes):
    return lambda text: json.dumps(json.loads(text) | changes)


def less_one_setting(text):
    copy = json.loads(text)
    del copy["values"]["heartbeat.timeout"]
    return json.dumps(copy)


DAMAGE = [lambda _: "", lambda _: "[]", lambda text: text[:50], lambda _: "\0", less_one_setting]
DAMAGE += [without("stamp"), without("given"), with_(format=0), with_(values=[]), with_(given=5)]
DAMAGE += [lambda _: "[" * 100_000, with_(stamp=None)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_copy_is_replaced(path, cache, parses, damage):
    both(path, cache)
    whole = cache.read_text()
    cache.write_text(damage(whole))
    assert both(path, cache).heartbeat.timeout == 60.0
    assert len(parses) == 2
    assert json.loads(cache.read_text()) == json.loads(whole)


def test_a_copy_that_others_can_write_is_not_believed(path, cache):
    both(path, cache)
    cache.write_text(cache.read_text().replace("/srv/agent", "/evil"))
    cache.chmod(0o666)
    assert both(path, cache).agent.code == "/srv/agent"


def test_the_copy_is_no_more_readable_than_the_file(path, cache):
    path.chmod(0o600)
    both(path, cache)
    assert cache.stat().st_mode & 0o777 == 0o600


def test_a_copy_that_cannot_be_written_is_no_failure(path, tmp_path):
    assert both(path, tmp_path / "no" / "folder").agent.code == "/srv/agent"


def test_no_copy_of_a_broken_file(path, cache):
    path.write_text("[agent]\n")
    with pytest.raises(toml_file.ConfigError):
        both(path, cache)
    assert not cache.exists()


@pytest.mark.parametrize("breakage", [lambda path: path.write_text("["), os.unlink])
def test_last_valid(path, cache, breakage):
    loaded, error = toml_file.load_last_valid(str(path), str(cache))
    assert (loaded.agent.code, error) == ("/srv/agent", "")
    breakage(path)
    loaded, error = toml_file.load_last_valid(str(path), str(cache))
    assert loaded.agent.code == "/srv/agent"
    assert "has 1 mistake" in error


def test_no_last_valid(path, cache):
    path.write_text("[")
    with pytest.raises(toml_file.ConfigError):
        toml_file.load_last_valid(str(path), str(cache))


# --- writing


def test_write_says_only_what_is_not_default(path):
    values = {
        "agent": {"code": "/a", "command": ["x"], "name": "bob", "branch": "main"},
        "heartbeat": {"timeout": "1m", "longest_wait": "20m"},
        "state": {"dir": "/var/lib/agentctl/bob/state"},
    }
    toml_file.write(str(path), values)
    assert tomllib.loads(path.read_text()) == {
        "agent": {"code": "/a", "command": ["x"], "name": "bob"},
        "heartbeat": {"longest_wait": "20m"},
    }
    assert toml_file.load(str(path)).state.dir == "/var/lib/agentctl/bob/state"


def test_write_refuses_mistakes(path):
    with pytest.raises(toml_file.ConfigError):
        toml_file.write(str(path), {"agent": {"code": "x"}})
    assert path.read_text() == MINIMAL


# --- cost


def test_the_import_is_cheap(path, cache):
    both(path, cache)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from agentctl.config import toml_file as config\n"
        "config.load_compiled(sys.argv[2], sys.argv[3])\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "watchdog"), str(path), str(cache)]
    loaded = set(deadline.run(argv, check=True, capture_output=True, text=True).stdout.split())
    forbidden = {"tomllib", "tomli_w", "dataclasses", "subprocess", "difflib", "shlex", "typing"}
    assert not loaded & (forbidden | {"pathlib", "logging", "asyncio", "click"})
