"""HEAD, in every state but a good one."""

import os

from .subject import broken

CONTENTS = {
    "empty": b"", "nul": b"\0" * 41, "junk": b"junk\n", "to-nowhere": b"ref: refs/heads/nowhere\n",
    "outside": b"ref: ../../etc/passwd\n", "to-a-lock": b"ref: refs/heads/main.lock\n", "half": b"ref: refs/he",
    "of-no-object": b"1" * 40 + b"\n", "to-a-tag": b"ref: refs/tags/v1\n", "to-itself": b"ref: HEAD\n",
    "without-newline": b"ref: refs/heads/main", "huge": b"x" * 1_000_000,
}  # fmt: skip


@broken(each=CONTENTS)
def head(subject, content):
    subject.write({".git/HEAD": content})


@broken()
def detached(subject):
    subject.git("switch", "-q", "--detach")
    subject.commit("on no branch")


@broken()
def on_another_branch(subject):
    subject.git("switch", "-q", "-c", "topic")
    subject.commit("on another branch")


@broken()
def on_a_branch_without_commits(subject):
    subject.git("symbolic-ref", "HEAD", "refs/heads/empty")


@broken()
def missing(subject):
    os.unlink(subject.dot_git / "HEAD")


@broken()
def folder(subject):
    os.unlink(subject.dot_git / "HEAD")
    subject.write({".git/HEAD/x": "y"})


@broken()
def fifo(subject):
    os.unlink(subject.dot_git / "HEAD")
    os.mkfifo(subject.dot_git / "HEAD")


@broken(each={"to-main": "refs/heads/main", "to-nowhere": "refs/heads/nowhere", "outside": "/etc/passwd"})
def link(subject, target):
    os.unlink(subject.dot_git / "HEAD")
    os.symlink(target, subject.dot_git / "HEAD")
