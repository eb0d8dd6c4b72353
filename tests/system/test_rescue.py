"""The rollback routine itself is broken: the rescue puts a good tree in place and the agent runs all the same."""

import pytest
from boxed_world import World


@pytest.fixture
def world(box):
    made = World(box, "sos").make().start()
    yield made
    made.shell("rm -rf /etc/systemd/system/sos-rollback.service.d/99-broken.conf; systemctl daemon-reload")
    made.stop()


def break_the_routine(world, how):
    folder = f"/etc/systemd/system/{world.name}-rollback.service.d"
    text = f"[Service]\\nExecStart=\\nExecStart={how}\\n"
    world.shell(f"printf '{text}' >{folder}/99-broken.conf; systemctl daemon-reload")


def test_a_broken_routine_is_rescued_once_and_not_for_ever(world):
    good = world.head
    world.wait_steady(last_known_good=1)
    break_the_routine(world, "/bin/false")
    bad = world.commit("crash-at-import")
    world.systemctl("restart", world.name, check=False)
    launch = world.wait_until(
        lambda: (seen := world.status())["phase"] == "steady" and seen["agent"]["alive"] and seen, "the rescue"
    )
    assert launch["generation"] == 1
    assert world.head == good
    assert world.git("status", "--porcelain") == ""
    assert world.git("branch", "--list", "rescue/*")
    assert world.git("cat-file", "-t", bad) == "commit"
    assert "recovery process failed" in world.journal(unit=f"{world.name}-rescue.service")
    world.commit("crash-at-import", version="3")
    world.systemctl("restart", world.name, check=False)
    world.wait_until(
        lambda: "again and again" in world.journal(unit=f"{world.name}-rescue.service"), "the second rescue to refuse"
    )
    assert not world.status()["agent"]["alive"]
