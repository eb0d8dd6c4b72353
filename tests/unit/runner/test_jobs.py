"""The required checks of a probation: run where the agent lives, and the first that fails is told."""

from types import SimpleNamespace

import pytest

from agentctl.runner import jobs


@pytest.fixture
def context(tmp_path):
    probation = SimpleNamespace(check_timeout=20.0)
    return SimpleNamespace(config=SimpleNamespace(probation=probation), is_contained=False, user=None,
                           code_dir=str(tmp_path), state_dir="/state")  # fmt: skip


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([], ""),
        ([["true"], ["true"]], ""),
        ([["true"], ["false"]], "check failed: /usr/bin/env -- false: exit status 1"),
        ([["sh", "-c", "echo no >&2; exit 3"], ["sh", "-c", "echo never >ran"]],
         "check failed: /usr/bin/env -- sh -c echo no >&2; exit 3: exit status 3: no"),
        ([["no-such-program-here"]], "check failed: /usr/bin/env -- no-such-program-here: exit status 127"),
    ],
)  # fmt: skip
def test_the_first_that_fails_is_told_and_no_later_one_is_run(context, tmp_path, checks, said):
    assert jobs.failing_check(context, checks).startswith(said) and bool(jobs.failing_check(context, checks)) == bool(
        said
    )
    assert not (tmp_path / "ran").exists()


def test_a_check_runs_in_the_code_and_knows_the_two_folders_and_nothing_of_ours(context, tmp_path, monkeypatch):
    monkeypatch.setenv("OURS", "secret")
    script = "pwd >seen; env | grep -E '^(AGENT|OURS)' | sort >>seen"
    assert jobs.failing_check(context, [["sh", "-c", script]]) == ""
    wanted = [str(tmp_path), f"AGENT_CODE_DIR={tmp_path}", "AGENT_STATE_DIR=/state"]
    assert (tmp_path / "seen").read_text().split() == wanted


def test_one_that_hangs_is_ended(context):
    context.config.probation.check_timeout = 0.2
    assert "check failed" in jobs.failing_check(context, [["sleep", "1000"]])
