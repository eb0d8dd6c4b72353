"""A change that makes its lock file something else: the rollback reads it, and is not stopped by it."""

import json

import pytest

from integration.world import World, write


@pytest.mark.parametrize("what", ["folder", "link to itself"])
def test_it_is_another_lock_file_and_no_more(monkeypatch, what):
    build = ["sh", "-c", "mkdir -p .venv && cp uv.lock .venv/version"]
    world = World(
        monkeypatch,
        {"environment": {"paths": [".venv"], "lockfiles": ["uv.lock"], "build": build}, "probation": {"tries": 1}},
    )
    try:
        write(world.code, {".venv/version": "one"})
        world.commit({"uv.lock": "one"})
        world.adopt().start()
        first = world.until_beating(1)
        world.stop()
        (world.code / "uv.lock").unlink()
        if what == "folder":
            write(world.code, {"uv.lock/part": "two"})
        else:
            (world.code / "uv.lock").symlink_to("uv.lock")
        world.mode("crash", "a bad change")
        world.start()
        world.until_beating(1, after=first["id"])
        incident = world.until_outcome("recovered")
        (step,) = world.all("SELECT detail FROM steps WHERE incident=? AND name='environment'", incident["id"])
        assert json.loads(step["detail"]) and "rescue" not in world.log
        assert (world.code / ".venv/version").read_text() == "one"
    finally:
        world.end()
