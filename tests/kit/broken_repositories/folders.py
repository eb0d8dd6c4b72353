"""`.git` and the code folder themselves: gone, replaced, locked up, or somewhere else."""

import os
import shutil
import socket

from .subject import broken

ALL = "idea fresh stash tags head"


def take_away(subject, name="away"):
    """Move .git out of the tree; return where it is."""
    away = subject.code.parent / name
    os.rename(subject.dot_git, away)
    return away


@broken(loses=ALL)
def git_is_gone(subject):
    shutil.rmtree(subject.dot_git)


@broken(loses=ALL)
def git_is_empty(subject):
    shutil.rmtree(subject.dot_git)
    subject.dot_git.mkdir()


@broken(loses=ALL)
def git_is_junk(subject):
    shutil.rmtree(subject.dot_git)
    subject.write({".git": b"\0junk"})


@broken(loses=ALL)
def git_is_another_one(subject):
    shutil.rmtree(subject.dot_git)
    subject.git("init", "-q", "-b", "main")


@broken()
def git_is_a_file(subject):
    subject.write({".git": f"gitdir: {take_away(subject)}\n"})


@broken(loses=ALL)
def git_is_a_file_to_nowhere(subject):
    shutil.rmtree(subject.dot_git)
    subject.write({".git": "gitdir: /nonexistent\n"})


@broken()
def git_is_a_link(subject):
    os.symlink(take_away(subject), subject.dot_git)


@broken()
def git_is_a_relative_link(subject):
    take_away(subject)
    os.symlink("../away", subject.dot_git)


@broken(loses=ALL)
def git_is_a_link_to_nowhere(subject):
    shutil.rmtree(subject.dot_git)
    os.symlink("/nonexistent", subject.dot_git)


@broken(loses=ALL)
def git_is_a_fifo(subject):
    shutil.rmtree(subject.dot_git)
    os.mkfifo(subject.dot_git)


@broken(loses=ALL)
def git_is_a_socket(subject):
    shutil.rmtree(subject.dot_git)
    here = os.getcwd()
    os.chdir(subject.code)
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(".git")
    finally:
        os.chdir(here)


@broken()
def inside_an_outer_repository(subject):
    outer = subject.code.parent
    subject.git("init", "-q", str(outer), folder=outer)
    subject.write({".gitignore": "*\n"}, folder=outer)


@broken(loses=ALL)
def gone_inside_an_outer_repository(subject):
    inside_an_outer_repository(subject)
    shutil.rmtree(subject.dot_git)


@broken(loses=ALL + " tree")
def code_is_gone(subject):
    shutil.rmtree(subject.code)


@broken(loses=ALL + " tree")
def code_is_empty(subject):
    shutil.rmtree(subject.code)
    subject.code.mkdir()


@broken(loses=ALL + " tree")
def code_and_slots_are_gone(subject):
    shutil.rmtree(subject.code)
    shutil.rmtree(subject.code.parent / f".{subject.code.name}.agentctl")
    subject.code.mkdir()


@broken(loses=ALL + " tree")
def code_is_a_file(subject):
    shutil.rmtree(subject.code)
    subject.code.write_text("a file\n")


@broken(loses=ALL + " tree")
def code_is_a_fifo(subject):
    shutil.rmtree(subject.code)
    os.mkfifo(subject.code)


@broken(loses=ALL)
def code_is_a_link(subject):
    os.rename(subject.code, subject.code.parent / "moved")
    os.symlink(subject.code.parent / "moved", subject.code)


@broken(loses=ALL + " tree")
def code_is_a_link_to_nowhere(subject):
    shutil.rmtree(subject.code)
    os.symlink("/nonexistent", subject.code)


MODES = {"000": 0o000, "0555": 0o555, "0444": 0o444}


@broken(each=MODES)
def mode_of_git(subject, mode):
    subject.dot_git.chmod(mode)


@broken(each=MODES)
def mode_of_the_code(subject, mode):
    subject.code.chmod(mode)


@broken(each={f"{name}-{text}": (name, mode) for name in ("refs/heads", "objects", "refs", "logs")
              for text, mode in MODES.items()})  # fmt: skip
def mode_inside_git(subject, case):
    os.chmod(subject.dot_git / case[0], case[1])


@broken(each={f"{name}-{text}": (name, mode) for name in ("HEAD", "config", "index", "refs/heads/main", "logs/HEAD")
              for text, mode in (("000", 0), ("0444", 0o444))})  # fmt: skip
def mode_of_a_file(subject, case):
    os.chmod(subject.dot_git / case[0], case[1])


@broken()
def all_of_git_is_read_only(subject):
    for top, folders, files in os.walk(subject.dot_git, topdown=False):
        for name in files:
            os.chmod(f"{top}/{name}", 0o444)
        for name in folders:
            os.chmod(f"{top}/{name}", 0o555)
    subject.dot_git.chmod(0o555)
