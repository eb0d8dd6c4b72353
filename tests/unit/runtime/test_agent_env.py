"""The environment the agent gets: the contract's variables, and nothing of ours by accident."""

from types import SimpleNamespace

import pytest

from agentctl.config.context import Context
from agentctl.ledger.models import CurrentLaunch
from agentctl.runtime import agent_env

OURS = {"PATH": "/own", "LANG": "C.UTF-8", "HOME": "/home/me", "USER": "me", "PYTHONPATH": "/ours", "SECRET": "no",
        "NOTIFY_SOCKET": "/systemd", "AGENT_NAME": "another", "MINE": "yes"}  # fmt: skip


@pytest.fixture
def context(home):
    return Context.open("agent")


@pytest.fixture
def build(home, context):
    home.generation(3)
    launch = CurrentLaunch(
        id="L1", generation=home.ledger.generation(3), snapshot="000003", incident="", started_at=5.0
    )
    return lambda ours=OURS: agent_env.build_environment(context, launch, dict(ours))


def test_the_contract_is_kept(home, build):
    env = build()
    assert (env["AGENT_NAME"], env["AGENT_GENERATION"], env["AGENT_LAUNCH_ID"]) == ("agent", "3", "L1")
    assert env["AGENT_COMMIT"].startswith("03") and env["AGENT_CODE_DIR"] == str(home.code)
    assert env["NOTIFY_SOCKET"] == home.paths.notify_socket_path and env["WATCHDOG_USEC"] == "60000000"
    assert env["AGENT_API_URL"].startswith("http+unix://%2F") and "/" not in env["AGENT_API_URL"][12:]
    assert env["AGENTCTL_ROOT"] == str(home.root)
    assert env["AGENT_TOKEN_FILE"] == home.paths.token_path


def test_nothing_of_ours_comes_along_but_what_is_named(context, build):
    env = build()
    assert (env["PATH"], env["LANG"], env["HOME"], env["USER"]) == ("/own", "C.UTF-8", "/home/me", "me")
    assert not {"PYTHONPATH", "SECRET", "MINE"} & env.keys()
    context.config.agent.pass_environment.append("MINE")
    assert build()["MINE"] == "yes"
    assert build({})["PATH"] == agent_env.DEFAULT_PATH


def test_the_settings_win_over_us_and_the_contract_over_them(context, build):
    context.config.agent.environment.update(LANG="de_DE", AGENT_NAME="mine")
    env = build()
    assert (env["LANG"], env["AGENT_NAME"]) == ("de_DE", "agent")


def test_another_user_has_its_own_home(context, build):
    context.user = SimpleNamespace(home="/home/robin", name="robin", uid=1, gid=1, is_us=False)
    env = build()
    assert [env[name] for name in ("HOME", "USER", "LOGNAME", "SHELL")] == ["/home/robin", "robin", "robin", "/bin/sh"]


def test_a_brief_and_something_to_resume_are_told_where_they_are_there(home, context, build):
    assert not {"AGENT_BRIEF_FILE", "AGENT_RESUMED"} & build().keys()
    state = home.root / "data/agent/state"
    context.state_dir = str(state)
    state.mkdir(parents=True)
    (state / "BRIEF.md").write_text("# You were rolled back\n")
    (state / "history.jsonl").write_text("torn")
    assert "AGENT_RESUMED" not in build()
    (state / "history.jsonl").write_text('{"id": "1"}\n')
    env = build()
    assert (env["AGENT_BRIEF_FILE"], env["AGENT_RESUMED"]) == (f"{state}/BRIEF.md", "1")


@pytest.mark.parametrize(
    ("resume", "resumed", "chosen"),
    [([], "1", ["start"]), (["resume"], "1", ["resume"]), (["resume"], "", ["start"])],
)
def test_which_command_is_started(resume, resumed, chosen):
    agent = SimpleNamespace(command=["start"], resume_command=resume)
    context = SimpleNamespace(config=SimpleNamespace(agent=agent))
    assert agent_env.choose_command(context, {"AGENT_RESUMED": resumed} if resumed else {}) == chosen


@pytest.mark.parametrize(
    ("store", "message", "command", "keeps"),
    [([], "none", ["x"], False), (["~/x"], "none", ["x"], True), ([], "argument", ["x"], True),
     ([], "none", ["x", "--resume={session}"], True)],
)  # fmt: skip
def test_most_agents_keep_no_sessions(store, message, command, keeps):
    settings = SimpleNamespace(resume=SimpleNamespace(store=store, message=message),
                               agent=SimpleNamespace(command=command, resume_command=[]))  # fmt: skip
    assert agent_env.keeps_own_sessions(settings) is keeps
