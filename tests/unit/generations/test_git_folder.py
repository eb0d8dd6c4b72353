"""The agent's `.git` read as files: what would make git wait or mislead it, and what its refs and logs say."""

import os

import pytest

from agentctl.generations import git_folder

ONE, TWO = "1" * 40, "2" * 64


@pytest.fixture
def git_dir(tmp_path):
    """A `.git` that is whole, as far as it is looked at."""
    folder = tmp_path / "code/.git"
    for name in ("refs/heads", "logs/refs/heads", "info", "objects/info", "objects/pack", "objects/ab"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    (folder / "config").write_text("[core]\n\tbare = false\n\trepositoryformatversion = 0\n")
    (folder / "refs/heads/main").write_text(f"{ONE}\n")
    return str(folder)


def put(git_dir, name, text):
    path = os.path.join(git_dir, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# -- what git would wait at ---------------------------------------------------------------------------------------


def test_a_whole_one_hangs_nobody_and_misleads_nobody(git_dir):
    assert git_folder.what_hangs(git_dir) == git_folder.why_misled(git_dir) == ""
    assert git_folder.find_special_objects(git_dir) == git_folder.find_waiting_objects(git_dir) == []


@pytest.mark.parametrize("name", ["HEAD", "index", "refs/heads/topic", "refs/heads/deep/er", "info/exclude",
                                  "objects/info/alternates", "logs/HEAD"])  # fmt: skip
def test_a_fifo_where_git_reads_is_found(git_dir, name):
    path = os.path.join(git_dir, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    os.mkfifo(path)
    assert git_folder.find_special(git_dir) == [name] and git_folder.what_hangs(git_dir) == name


def test_a_link_hangs_by_what_it_leads_to(git_dir, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("/nowhere", f"{git_dir}/refs/heads/dangling")
    assert git_folder.what_hangs(git_dir) == ""
    os.symlink(tmp_path / "fifo", f"{git_dir}/refs/heads/waiting")
    assert git_folder.what_hangs(git_dir) == "refs/heads/waiting"


def test_objects_that_are_no_files(git_dir):
    put(git_dir, "objects/ab/" + "c" * 38, "x")
    os.mkfifo(f"{git_dir}/objects/ab/{'d' * 38}")
    os.mkdir(f"{git_dir}/objects/ab/{'e' * 38}")
    fifo, folder = (f"objects/ab/{letter * 38}" for letter in "de")
    assert sorted(git_folder.find_special_objects(git_dir)) == [fifo, folder]
    assert git_folder.find_waiting_objects(git_dir) == [fifo], "git does not wait at a folder"
    assert git_folder.find_waiting_object(git_dir) == fifo


def test_an_included_file_that_is_no_file_hangs(git_dir):
    put(git_dir, "config", '[include]\n\tpath = more\n[includeIf "gitdir:/"]\n\tpath = last\n')
    put(git_dir, "more", "[include]\npath = config\npath = ../fifo\n")  # in a circle, and out of it
    assert git_folder.what_hangs(git_dir) == ""
    os.mkfifo(f"{git_dir}/../fifo")
    found = git_folder.what_hangs(git_dir)
    assert found == os.path.normpath(f"{git_dir}/../fifo") == git_folder.why_misled(git_dir)


# -- settings -----------------------------------------------------------------------------------------------------


def test_settings_as_they_are_read(git_dir):
    put(git_dir, "config", '; no\n# no\n[Core]\n\tBare\n  WorkTree = "../x y"\n[remote "origin"] url = a=b\n[]\nz=1\n')
    assert git_folder.read_settings(f"{git_dir}/config") == [
        ("core", "bare", "true"),
        ("core", "worktree", "../x y"),
        ("remote", "url", "a=b"),
        ("", "z", "1"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[core]\nbare = true", "core.bare=true"),
        ("[core]\nbare", "core.bare=true"),
        ("[core]\nbare = no", ""),
        ("[core]\nworktree = /elsewhere", "core.worktree=/elsewhere"),
        ("[core]\nworktree = ..", ""),
        ("[core]\nrepositoryformatversion = 1", ""),
        ("[core]\nrepositoryformatversion = 99", "core.repositoryformatversion=99"),
        ("[extensions]\nobjectformat = sha1", ""),
        ("[extensions]\nobjectformat = sha256", "extensions.objectformat=sha256"),
        ("[extensions]\nrefstorage = reftable", "extensions.refstorage=reftable"),
        ("[extensions]\nworktreeConfig = true", ""),
        ("[extensions]\nnobody = true", "extensions.nobody=true"),
        ("\xff[", ""),
    ],
)
def test_which_setting_misleads(git_dir, text, why):
    put(git_dir, "config", text)
    assert git_folder.why_misled(git_dir) == why


def test_an_extension_is_true_where_the_repository_is_so(git_dir):
    put(git_dir, "config", "[extensions]\nobjectformat = sha256\nrefstorage = reftable\n")
    put(git_dir, "objects/ab/" + "c" * 62, "x")
    os.mkdir(f"{git_dir}/reftable")
    assert git_folder.why_misled(git_dir) == ""


# -- refs and logs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "is_one"), [(ONE, True), (TWO, True), ("1" * 39, False), ("G" * 40, False),
                                               ("A" * 40, False), ("", False)])  # fmt: skip
def test_what_an_id_looks_like(text, is_one):
    assert git_folder.is_oid(text) is is_one


def test_refs_are_read_loose_before_packed(git_dir):
    put(git_dir, "packed-refs", f"# pack-refs with: peeled\n{TWO} refs/heads/main\n{TWO} refs/tags/v1\n^{ONE}\n"
                                f"short refs/heads/x\n{ONE} not/a/ref\n")  # fmt: skip
    put(git_dir, "refs/heads/torn", "1234")
    put(git_dir, "refs/heads/main.lock", TWO)
    assert git_folder.read_refs(git_dir) == {"refs/heads/main": ONE, "refs/tags/v1": TWO}
    assert git_folder.read_ref(git_dir, "HEAD") == ONE
    os.unlink(f"{git_dir}/refs/heads/main")
    assert git_folder.read_ref(git_dir, "HEAD") == TWO


@pytest.mark.parametrize(
    "text", ["ref: refs/heads/a\n", "ref: ../../etc/passwd\n", "ref: refs/../HEAD\n", "", "x" * 40]
)
def test_a_ref_that_leads_nowhere_or_round_in_circles_is_none(git_dir, text):
    put(git_dir, "refs/heads/a", text)
    assert git_folder.read_ref(git_dir, "refs/heads/a") == ""


@pytest.mark.parametrize(
    ("text", "is_readable"),
    [
        ("ref: refs/heads/none\n", True),
        (ONE + "\n", True),
        ("ref: HEAD\n", False),
        ("ref: refs/../x\n", False),
        ("ref: refs/heads/a.lock\n", False),
        ("junk", False),
        ("", False),
    ],
)
def test_which_head_git_would_take_for_one(git_dir, text, is_readable):
    put(git_dir, "HEAD", text)
    assert git_folder.is_readable_head(git_dir) is is_readable


def test_a_log_is_read_as_far_as_it_is_one(git_dir):
    put(
        git_dir,
        "logs/HEAD",
        f"{ONE} {TWO} A <a> 1 +0000\tcommit: two\ntorn {ONE}\n{TWO} {ONE} A <a> 2 +0000\treset\n\0",
    )
    assert git_folder.read_log(git_dir, "HEAD") == [(TWO, "commit: two"), (ONE, "reset")]
    assert git_folder.last_logged(git_dir) == ONE
    assert git_folder.read_log(git_dir, "refs/heads/none") == []


def test_nothing_large_and_nothing_that_waits_is_read(git_dir):
    os.mkfifo(f"{git_dir}/fifo")
    put(git_dir, "large", "x" * (git_folder.SMALL_BYTES + 1))
    put(git_dir, "small", "x" * git_folder.SMALL_BYTES)
    assert [git_folder.read_small(f"{git_dir}/{name}") for name in ("fifo", "large", "refs", "none")] == [None] * 4
    assert len(git_folder.read_small(f"{git_dir}/small")) == git_folder.SMALL_BYTES


# -- where it is --------------------------------------------------------------------------------------------------


def test_a_git_that_is_a_file_or_a_link_stands_for_a_folder(git_dir, tmp_path):
    code = tmp_path / "other"
    code.mkdir()
    for text, home in (("gitdir: ../code/.git\n", git_dir), ("gitdir: nowhere\n", ""), ("junk", "")):
        (code / ".git").write_text(text)
        assert git_folder.find_home(str(code / ".git"), str(code)) == home
    (code / ".git").unlink()
    (code / ".git").symlink_to(git_dir)
    assert git_folder.find_home(str(code / ".git"), str(code)) == git_dir


def test_worktrees_inside_the_code_are_told_from_those_elsewhere(git_dir, tmp_path):
    code = str(tmp_path / "code")
    for name, place in (("in", f"{code}/trees/in/.git"), ("out", "/srv/out/.git"), ("git", f"{git_dir}/x/.git"),
                        ("beside", f"{code}-2/.git"), ("torn", "")):  # fmt: skip
        put(git_dir, f"worktrees/{name}/gitdir", f"{place}\n")
    assert git_folder.find_inner_worktrees(git_dir, code) == "trees/in"
