"""The compiled copy of agent.toml: when it is believed, when it is made anew, what it costs."""

import json
import os
import sys
from pathlib import Path

import pytest

from agentctl.config import load, toml_edit, toml_file
from agentctl.core.errors import ConfigError
from kit import deadline

ROOT = Path(__file__).parents[3]
MINIMAL = '[agent]\ncode = "/srv/agent"\ncommand = ["python3", "agent.py"]\n'


@pytest.fixture
def path(tmp_path):
    target = tmp_path / "agent.toml"
    target.write_text(MINIMAL)
    return target


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
    return load.load_compiled(str(path), str(cache))


def test_compiled_once(path, cache, parses):
    path.write_text(MINIMAL + 'ready = "5s"\n')
    first, second = both(path, cache), both(path, cache)
    assert len(parses) == 1
    assert (first.values, first.given) == (second.values, second.given)
    assert (second.agent.ready, second.heartbeat.timeout) == (5.0, 60.0)
    assert toml_edit.to_dict(second) == toml_edit.to_dict(toml_file.load(str(path)))


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
    with pytest.raises(ConfigError):
        both(path, cache)
    assert not cache.exists()


@pytest.mark.parametrize("breakage", [lambda path: path.write_text("["), os.unlink])
def test_last_valid(path, cache, breakage):
    loaded, error = load.load_last_valid(str(path), str(cache))
    assert (loaded.agent.code, error) == ("/srv/agent", "")
    breakage(path)
    loaded, error = load.load_last_valid(str(path), str(cache))
    assert loaded.agent.code == "/srv/agent"
    assert "has 1 mistake" in error


def test_no_last_valid(path, cache):
    path.write_text("[")
    with pytest.raises(ConfigError):
        load.load_last_valid(str(path), str(cache))


def test_the_import_is_cheap(path, cache):
    both(path, cache)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from agentctl.config import load\n"
        "load.load_compiled(sys.argv[2], sys.argv[3])\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT / "watchdog"), str(path), str(cache)]
    loaded = set(deadline.run(argv, check=True, capture_output=True, text=True).stdout.split())
    forbidden = {"tomllib", "tomli_w", "dataclasses", "subprocess", "difflib", "shlex", "typing"}
    assert not loaded & (forbidden | {"pathlib", "logging", "asyncio", "click"})
