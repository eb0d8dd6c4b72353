"""Refs: broken, gone, moved, in each other's way, or leading somewhere else."""

import os
import shutil

from .subject import BAD, broken

JUNK = {"empty": b"", "nul": b"\0" * 41, "junk": b"junk\n", "of-no-object": b"1" * 40 + b"\n", "half": b"abcdef",
        "to-itself": b"ref: refs/heads/main\n", "to-nowhere": b"ref: refs/heads/nowhere\n"}  # fmt: skip


def make(subject, name, kind):
    """Put something that is no file at a path of .git."""
    path = subject.dot_git / name
    if path.exists():
        path.unlink()
    if kind == "folder":
        subject.write({f".git/{name}/x/y": "in the way"})
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        os.symlink(kind, path)


KINDS = {"folder": "folder", "empty-folder": "empty folder", "fifo": "fifo", "link-to-idea": "idea",
         "link-to-nowhere": "nowhere", "link-outside": "/etc/passwd"}  # fmt: skip


@broken(each=JUNK)
def main(subject, content):
    subject.write({".git/refs/heads/main": content})


@broken(each=KINDS)
def main_is(subject, kind):
    make(subject, "refs/heads/main", kind)


@broken(each=JUNK, loses="fresh")
def branch(subject, content):
    subject.write({".git/refs/heads/fresh": content})


@broken(each=KINDS, loses="fresh")
def branch_is(subject, kind):
    make(subject, "refs/heads/fresh", kind)


@broken(each=JUNK)
def packed_refs(subject, content):
    subject.git("pack-refs", "--all")
    packed = (subject.dot_git / "packed-refs").read_bytes()
    subject.write({".git/packed-refs": packed + content if content else packed})


@broken(loses="idea fresh stash tags", each={"empty": b"", "nul": b"\0" * 400, "junk": b"junk\n" * 9})
def packed_refs_are(subject, content):
    subject.git("pack-refs", "--all")
    subject.write({".git/packed-refs": content})


@broken(each=KINDS)
def packed_refs_is(subject, kind):
    make(subject, "packed-refs", kind)


@broken()
def main_is_gone(subject):
    subject.git("switch", "-q", "-c", "topic")
    subject.git("branch", "-q", "-D", "main")


@broken()
def main_is_renamed(subject):
    subject.git("branch", "-m", "main", "trunk")


@broken()
def main_is_moved_by_force(subject):
    """HEAD is elsewhere, and what main had is on no other branch; without a change there it would be good code."""
    subject.clean()
    subject.write({"only.txt": "only on main\n"})
    subject.commit("only on main")
    subject.keep("only on main")
    subject.git("switch", "-q", "-c", "topic", "fresh")
    subject.write({"behaviour.py": BAD})


@broken(loses="head")
def main_is_moved_back(subject):
    subject.git("update-ref", "refs/heads/main", subject.good)


@broken()
def tag_called_main(subject):
    subject.git("tag", "main", "idea")


@broken()
def file_called_main(subject):
    subject.write({"main": "a file\n", "HEAD": "a file\n"})


@broken()
def branch_below_main(subject):
    subject.git("switch", "-q", "-c", "topic")
    subject.git("branch", "-q", "-D", "main")
    subject.git("branch", "main/below")


@broken(each={"rescue": "rescue", "odd-names": "x'y\"z$(touch)", "deep": "/".join("d" * 9 for _ in range(12))})
def branch_called(subject, name):
    subject.git("branch", name, "idea")


@broken(each={"junk": b"junk\n", "empty": b"", "nul": b"\0" * 300})
def reflogs(subject, content):
    for name in ("HEAD", "refs/heads/main", "refs/heads/fresh"):
        subject.write({f".git/logs/{name}": content})


@broken()
def reflogs_are_gone(subject):
    shutil.rmtree(subject.dot_git / "logs/refs/heads")
    os.unlink(subject.dot_git / "logs/HEAD")


@broken(each={"folder": "folder", "fifo": "fifo", "link": "/etc/passwd"})
def reflog_is(subject, kind):
    make(subject, "logs/HEAD", kind)
    make(subject, "logs/refs/heads/main", kind)


@broken(loses="stash")
def stash_log_is_junk(subject):
    subject.write({".git/logs/refs/stash": "junk\n"})


@broken(loses="idea fresh stash tags head")
def all_refs_lost_and_pruned(subject):
    for name in ("refs", "logs"):
        shutil.rmtree(subject.dot_git / name)
    os.makedirs(subject.dot_git / "refs/heads")
    for name in ("packed-refs", "ORIG_HEAD", "index"):
        if (subject.dot_git / name).exists():
            os.unlink(subject.dot_git / name)
    subject.own()
    subject.git("gc", "-q", "--prune=now")


@broken(loses="idea fresh stash tags")
def refs_are(subject):
    shutil.rmtree(subject.dot_git / "refs")


@broken(loses="idea fresh stash tags")
def refs_are_a_file(subject):
    shutil.rmtree(subject.dot_git / "refs")
    subject.write({".git/refs": "a file"})


@broken()
def replaced_commit(subject):
    subject.git("replace", subject.good, subject.bad)


@broken()
def replaced_blob(subject):
    subject.git("replace", f"{subject.good}:behaviour.py", f"{subject.bad}:behaviour.py")
    subject.git("pack-refs", "--all")


@broken()
def grafts(subject):
    subject.write({".git/info/grafts": f"{subject.good} {subject.bad}\n"})


@broken(loses="history")
def shallow(subject):
    subject.write({".git/shallow": subject.good + "\n"})


@broken(each={"junk": b"junk\n", "nul": b"\0" * 41})
def shallow_is(subject, content):
    subject.write({".git/shallow": content})


@broken()
def shallow_is_a_fifo(subject):
    os.mkfifo(subject.dot_git / "shallow")
