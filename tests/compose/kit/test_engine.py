"""The test engine itself: it ends with all that it ran, and it can be crashed and come back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from compose.images import start_engine
from integration.world import wait_until
from kit import deadline
from kit.engine import BASE, Engine


def ours(folder: Path) -> list[str]:
    """List the processes that name the engine's folder, and the mounts of this machine that do."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in words and int(pid) != os.getpid():
            found.append(words.decode())
    return found + [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


def sleeper(engine: Engine) -> int:
    """Start a container that sleeps; return its process id out here."""
    name = engine.docker("run", "--detach", "--init", "--volume", "kept:/v", BASE, "sleep", "1000").stdout.strip()
    return int(engine.ask("{{.State.Pid}}", name))


def test_an_engine_ends_with_everything_it_ran():
    engine = start_engine()
    try:
        pid = sleeper(engine)
        assert os.path.exists(f"/proc/{pid}") and ours(engine.folder)
    finally:
        engine.close()
    assert not os.path.exists(f"/proc/{pid}")
    assert ours(engine.folder) == [] and not engine.folder.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{engine.folder.name}"))


def test_an_engine_ends_with_who_started_it():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\nfrom kit.engine import Engine\n"
        "print(Engine().start().folder, flush=True); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    )
    tests = str(Path(__file__).resolve().parents[2])
    folder = Path(deadline.run([sys.executable, "-c", code, tests], stdout=subprocess.PIPE, text=True).stdout.strip())
    try:
        wait_until(lambda: ours(folder) == [], "the engine to end", 120)
    finally:
        deadline.run(["rm", "-rf", "--one-file-system", folder], check=True)


def test_a_killed_engine_comes_back_with_its_volumes_and_images(engine):
    pid = sleeper(engine)
    (engine.volume_path("kept") / "note").write_text("mine")
    engine.kill()
    assert not engine.is_up() and os.path.exists(f"/proc/{pid}"), "what ran in the container goes on without the engine"
    engine.start()
    assert (engine.volume_path("kept") / "note").read_text() == "mine"
    assert engine.ask("{{.Id}}", BASE)
    engine.docker("rm", "--force", *engine.containers())
