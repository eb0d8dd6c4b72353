"""A `.git` that git cannot work in: what hinders goes aside, nothing is deleted, and git works in it again."""

import json
import os

import pytest

from agentctl.generations import repair_git_folder
from integration.world import git, make_repository, write
from kit import modes

OID = "1" * 40


@pytest.fixture
def code(tmp_path):
    made = make_repository(tmp_path / "code", {"agent.py": "print(1)\n"})
    git(made, "branch", "idea")
    return made


@pytest.fixture
def repair(code, tmp_path):
    def run(*, is_thorough=False):
        said = repair_git_folder.repair(str(code / ".git"), str(tmp_path / "aside"), "main", is_thorough)
        return json.loads(said)

    return run


def aside(tmp_path):
    return sorted(os.listdir(tmp_path / "aside")) if (tmp_path / "aside").exists() else []


def test_a_sound_one_is_left_as_it_is(code, repair, tmp_path):
    head = git(code, "rev-parse", "HEAD")
    found = repair(is_thorough=True)
    assert found == {"set_aside": [], "branch_at": head, "head": head, "logged": head, "anchors": {}, "misled": ""}
    assert aside(tmp_path) == []


def a_fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def a_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("index.lock", lambda path: path.write_text("")),
        ("refs/heads/main.lock", lambda path: path.write_text("")),
        ("objects/maintenance.lock", lambda path: path.write_text("")),
        ("rebase-merge", lambda path: path.mkdir()),
        ("commondir", lambda path: path.write_text("/elsewhere\n")),
        ("shallow", lambda path: path.write_text("junk\n")),
        ("objects/info/alternates", lambda path: path.write_text("/nowhere\n")),
        ("index", a_folder),
        ("HEAD", a_folder),
        ("HEAD", lambda path: path.write_text("junk")),
        ("HEAD", a_fifo),
        ("refs/heads/idea", a_fifo),
        ("refs/heads/main", lambda path: path.write_text("junk")),
        ("info/exclude", a_fifo),
    ],
)
def test_what_hinders_goes_aside_and_git_works_again(code, repair, tmp_path, name, harm):
    head = git(code, "rev-parse", "HEAD")
    harm(code / ".git" / name)
    found = repair()
    assert found["set_aside"] == [name] and aside(tmp_path) == [name.replace("/", "%")]
    assert git(code, "symbolic-ref", "HEAD") == "refs/heads/main"
    git(code, "update-ref", "refs/heads/main", head)
    git(code, "reset", "-q", "--hard", head)
    assert git(code, "status", "--porcelain") == ""


def test_nothing_that_was_aside_before_is_overwritten(code, repair, tmp_path):
    for text in ("one", "two"):
        write(code / ".git", {"index.lock": text})
        repair()
    assert [(tmp_path / "aside" / name).read_text() for name in aside(tmp_path)] == ["one", "two"]


def test_commits_that_only_a_merge_knew_are_told(code, repair):
    write(code / ".git", {"MERGE_HEAD": f"{OID}\n{'2' * 40}\n", "rebase-merge/autostash": "3" * 40})
    assert repair()["anchors"] == {"merge-head": OID, "merge-head-2": "2" * 40, "autostash": "3" * 40}


def test_replacements_go_and_other_packed_refs_stay(code, repair, tmp_path):
    first = git(code, "rev-parse", "HEAD")
    write(code, {"agent.py": "print(2)\n"})
    git(code, "commit", "-q", "-am", "second")
    git(code, "replace", "HEAD", first)
    git(code, "pack-refs", "--all")
    repair()
    assert git(code, "show", "HEAD:agent.py") == "print(2)"
    assert git(code, "rev-parse", "idea") == first and "packed-refs" in aside(tmp_path)


def test_the_owner_gets_the_rights_back(code, repair):
    for name in ("objects", "refs/heads", "HEAD"):
        (code / ".git" / name).chmod(0)
    with modes.binding():
        repair()
    for name in ("objects", "refs/heads"):
        assert (code / ".git" / name).stat().st_mode & 0o777 == 0o700
    assert git(code, "status", "--porcelain") == ""


def test_objects_that_are_no_files_are_found_by_the_thorough_look_only(code, repair, tmp_path):
    folder = code / ".git/objects/ab" / ("c" * 38)
    folder.mkdir(parents=True)
    assert repair()["set_aside"] == []
    assert repair(is_thorough=True)["set_aside"] == [f"objects/ab/{'c' * 38}"]


def test_a_log_loses_what_names_a_lost_commit_and_stays_a_chain(code, tmp_path):
    first = git(code, "rev-parse", "HEAD")
    for number in (2, 3):
        write(code, {"agent.py": f"print({number})\n"})
        git(code, "commit", "-q", "-am", f"commit {number}")
    second, third = git(code, "rev-parse", "HEAD~1"), git(code, "rev-parse", "HEAD")
    git_dir, log = str(code / ".git"), code / ".git/logs/HEAD"
    log.write_text(log.read_text() + "torn\n")
    moved = repair_git_folder.repair_logs(git_dir, str(tmp_path / "aside"), json.dumps([second]))
    assert sorted(moved.splitlines()) == ["logs/HEAD", "logs/refs/heads/main"]
    ids = [line.split()[:2] for line in log.read_text().splitlines()]
    assert ids == [["0" * 40, first], [first, third]]
    assert git(code, "log", "-g", "--format=%H", "HEAD").split() == [third, first]
    assert repair_git_folder.repair_logs(git_dir, str(tmp_path / "aside"), "[]") == ""


def test_settings_are_written_anew_without_what_could_mislead(tmp_path):
    settings = ["core.bare\ntrue", "extensions.worktreeconfig\ntrue", "include.path\nx",
                'user.name\nA "quoted" \\ name', "remote.origin.url\nhttps://x", "branch.a.b.merge\nrefs/heads/a.b",
                "alias.multi\none\ntwo"]  # fmt: skip
    listed = "".join(f"{setting}\0" for setting in settings)
    made = make_repository(tmp_path / "new", {"x": "1"})
    write(made / ".git", {"config": repair_git_folder.compose_settings(listed)})
    for name, value in (
        ("user.name", 'A "quoted" \\ name'),
        ("remote.origin.url", "https://x"),
        ("branch.a.b.merge", "refs/heads/a.b"),
        ("alias.multi", "one\ntwo"),
        ("core.bare", "false"),
    ):
        assert git(made, "config", "--local", name) == value
    names = git(made, "config", "--local", "--list", "--name-only").split()
    assert not [name for name in names if name.startswith(("extensions.", "include."))]
