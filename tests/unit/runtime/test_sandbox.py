"""What a trial is kept away from: which folders are put aside, and the copy of the state that it gets instead."""

import pytest

from agentctl.runtime import sandbox


@pytest.mark.parametrize(
    ("patterns", "there", "wanted"),
    [
        ([], [], []),
        (["a/**"], ["a"], ["a"]),
        (["a/*.json", "a/b/*"], ["a/b"], ["a"]),
        (["a/**", "ab/**"], ["a", "ab"], ["a", "ab"]),
        (["gone/**", "a/**"], ["a"], ["a"]),
        (["a/x.conf"], ["a"], ["a"]),
    ],
)
def test_folders_outside_are_those_that_are_there_none_inside_another(tmp_path, patterns, there, wanted):
    for name in there:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    found = sandbox.outside([f"{tmp_path}/{pattern}" for pattern in patterns])
    assert found == [f"{tmp_path}/{name}" for name in wanted]


def test_the_copy_of_the_state_is_what_the_state_was(tmp_path):
    state, folder = tmp_path / "state", tmp_path / "trial"
    (state / "config").mkdir(parents=True)
    (state / "config/a").write_text("one")
    folder.mkdir()
    plan = {"state": str(state), "folder": str(folder)}
    sandbox.take_state(plan, [])
    (state / "config/a").write_text("changed meanwhile")
    sandbox.bring_state(plan, [])
    assert (folder / "state/config/a").read_text() == "one"
    assert (state / "config/a").read_text() == "changed meanwhile"


def test_where_there_is_no_state_the_copy_is_empty(tmp_path):
    plan = {"state": str(tmp_path / "nothing"), "folder": str(tmp_path)}
    sandbox.take_state(plan, [])
    sandbox.bring_state(plan, [])
    assert list((tmp_path / "state").iterdir()) == []


def test_what_the_kernel_refuses_is_said(monkeypatch):
    def refuse():
        raise PermissionError(1, "Operation not permitted", "a mount namespace")

    monkeypatch.setattr(sandbox.mount_namespace, "enter", refuse)
    assert sandbox.seclude({}) == "a mount namespace: Operation not permitted"
