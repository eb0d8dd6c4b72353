"""The index: half-done work in it, and bytes that are no index."""

import os

from .subject import BAD, broken


def index(subject):
    return subject.dot_git / "index"


@broken()
def staged(subject):
    subject.git("add", "-A")


@broken()
def staged_and_no_more(subject):
    subject.write({"agent.py": "staged, then changed back\n"})
    subject.own()
    subject.git("add", "agent.py")
    subject.git("checkout", "-q", "HEAD", "--", "behaviour.py")


@broken()
def intent_to_add(subject):
    subject.git("add", "-N", "dirty.py")


@broken()
def unmerged(subject):
    subject.clean()
    subject.git("switch", "-q", "-c", "other", subject.good)
    subject.write({"behaviour.py": "MODE = 'conflict'\n"})
    subject.commit("in conflict")
    subject.git("read-tree", "-m", "main~1", "main", "other", status=None)
    subject.git("switch", "-q", "main", status=None)


@broken(each={"empty": b"", "nul": b"\0" * 4096, "junk": b"junk\n" * 20, "of-the-future": b"DIRC\0\0\0\x63\0\0\0\1"})
def content(subject, data):
    subject.write({".git/index": data})


@broken(each={"truncated": lambda d: d[: len(d) // 2], "flipped": lambda d: d[:40] + bytes([d[40] ^ 255]) + d[41:],
              "torn": lambda d: d[:-20], "longer": lambda d: d + b"x"})  # fmt: skip
def damaged(subject, change):
    index(subject).write_bytes(change(index(subject).read_bytes()))


@broken()
def missing(subject):
    os.unlink(index(subject))


@broken()
def folder(subject):
    os.unlink(index(subject))
    subject.write({".git/index/x": "y"})


@broken()
def fifo(subject):
    os.unlink(index(subject))
    os.mkfifo(index(subject))


@broken(each={"elsewhere": "/nonexistent/index", "to-the-config": "config", "null": "/dev/null", "zero": "/dev/zero"})
def link(subject, target):
    os.unlink(index(subject))
    os.symlink(target, index(subject))


@broken(each={"skip-worktree": "--skip-worktree", "assume-unchanged": "--assume-unchanged"})
def flag(subject, option):
    subject.write({"agent.py": "hidden from status\n"})
    subject.own()
    subject.git("update-index", option, "agent.py", "lib/deep/tool.py")
    os.unlink(subject.code / "lib/deep/tool.py")


@broken()
def same_stat_edit(subject):
    path = subject.code / "behaviour.py"
    subject.git("update-index", "--refresh", status=None)
    before = path.stat()
    path.write_text(BAD.replace("crash", "chaos"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@broken()
def split(subject):
    subject.git("update-index", "--split-index")
    subject.git("config", "core.splitIndex", "true")


@broken()
def split_without_its_base(subject):
    subject.git("update-index", "--split-index")
    for path in subject.dot_git.glob("sharedindex.*"):
        path.unlink()


@broken()
def sparse(subject):
    subject.clean()
    subject.git("sparse-checkout", "init", "--cone", "--sparse-index")
    subject.git("sparse-checkout", "set", "lib")
