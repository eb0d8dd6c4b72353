"""Where everything of one agent lives: by scope, by the user's own folders, below a root of its own."""

import pytest

from agentctl.core.paths import BESIDE, INSIDE, MOUNTED, SYSTEM, USER, AgentPaths, slots_dir_of

OWN = {"XDG_CONFIG_HOME": "/c", "XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/r"}


@pytest.mark.parametrize(
    ("scope", "environ", "folders"),
    [
        (SYSTEM, {"HOME": "/root"}, ("/etc/agentctl/bob", "/var/lib/agentctl/bob", "/run/agentctl/bob")),
        (SYSTEM, OWN, ("/etc/agentctl/bob", "/var/lib/agentctl/bob", "/run/agentctl/bob")),
        (USER, {"HOME": "/home/u"}, ("/home/u/.config/agentctl/bob", "/home/u/.local/share/agentctl/bob",
                                     "/run/user/7/agentctl/bob")),
        (USER, OWN, ("/c/agentctl/bob", "/d/agentctl/bob", "/r/agentctl/bob")),
        (SYSTEM, {"AGENTCTL_ROOT": "/x", **OWN}, ("/x/etc/bob", "/x/data/bob", "/x/run/bob")),
        (USER, {"AGENTCTL_ROOT": "/x", **OWN}, ("/x/etc/bob", "/x/data/bob", "/x/run/bob")),
    ],
)  # fmt: skip
def test_folders(scope, environ, folders):
    paths = AgentPaths("bob", scope, environ, 7)
    assert (paths.config_dir, paths.data_dir, paths.runtime_dir) == folders


def test_every_path_is_in_one_of_the_three_folders_and_none_is_named_twice():
    paths = AgentPaths("bob", SYSTEM, {}, 0)
    named = [value for name, value in vars(paths).items() if name.endswith(("_path", "_dir"))]
    assert all(path.startswith((paths.config_dir, paths.data_dir, paths.runtime_dir)) for path in named)
    assert len(set(named)) == len(named)


def test_two_agents_share_no_path_and_no_unit():
    one, two = (AgentPaths(name, SYSTEM, {}, 0) for name in ("bob", "eve"))
    assert not {v for n, v in vars(one).items() if n not in ("scope", "root")} & set(vars(two).values())
    units = [{p.unit, p.rollback_unit, p.rescue_unit, p.watchdog_unit, p.prune_timer} for p in (one, two)]
    assert len(units[0]) == 5 and not units[0] & units[1]


@pytest.mark.parametrize(
    ("code", "where", "slots"),
    [
        ("/srv/agent", BESIDE, "/srv/.agent.agentctl"),
        ("/srv/agent/", BESIDE, "/srv/.agent.agentctl"),
        ("/agent", BESIDE, "/.agent.agentctl"),
        ("/srv/agent", INSIDE, "/srv/agent/.agentctl"),
        ("/srv/agent", MOUNTED, "/srv/agent/.agentctl"),
    ],
)
def test_the_slots_are_beside_the_code_or_inside_it(code, where, slots):
    assert slots_dir_of(code, where) == slots
