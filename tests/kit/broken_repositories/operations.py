"""Operations of git under way: none of them may be continued, or aborted back to the bad code, afterwards."""

import os

from .subject import broken


def conflicting_branch(subject, name="other"):
    """Make a branch that conflicts with main, from the good commit."""
    subject.clean()
    subject.git("switch", "-q", "-c", name, subject.good)
    subject.write({"behaviour.py": "MODE = 'conflict'\n"})
    subject.commit("in conflict")


@broken()
def merge(subject):
    conflicting_branch(subject)
    subject.git("switch", "-q", "main")
    subject.git("merge", "other", status=1)


@broken()
def merge_with_autostash(subject):
    conflicting_branch(subject)
    subject.git("switch", "-q", "main")
    subject.write({"agent.py": "autostashed\n"})
    subject.keep("autostashed")
    subject.own()
    subject.git("merge", "--autostash", "other", status=1)
    assert (subject.dot_git / "MERGE_AUTOSTASH").exists()


@broken()
def merge_that_only_waits_for_its_commit(subject):
    subject.clean()
    subject.git("merge", "--no-commit", "--no-ff", "-q", "fresh")


@broken()
def squash(subject):
    subject.clean()
    subject.git("merge", "--squash", "-q", "fresh")


@broken(each={"merge": "--merge", "apply": "--apply"})
def rebase(subject, backend):
    conflicting_branch(subject)
    subject.git("rebase", backend, "main", status=1)


@broken()
def rebase_of_main(subject):
    conflicting_branch(subject)
    subject.git("switch", "-q", "main")
    subject.git("rebase", "other", status=1)


@broken(each={"merge": "--merge", "apply": "--apply"})
def rebase_with_autostash(subject, backend):
    conflicting_branch(subject)
    subject.git("switch", "-q", "main")
    subject.write({"agent.py": "autostashed\n"})
    subject.keep("autostashed")
    subject.own()
    subject.git("rebase", backend, "--autostash", "other", status=1)


@broken()
def rebase_that_stopped_to_edit(subject):
    subject.clean()
    subject.git("-c", "sequence.editor=sed -i s/^pick/edit/", "rebase", "-q", "-i", subject.good)


@broken()
def cherry_pick(subject):
    conflicting_branch(subject)
    subject.git("switch", "-q", "main")
    subject.git("cherry-pick", "other", status=1)


@broken()
def cherry_pick_of_several(subject):
    conflicting_branch(subject)
    subject.write({"more.txt": "more\n"})
    subject.commit("more of it")
    subject.git("switch", "-q", "main")
    subject.git("cherry-pick", f"{subject.good}..other", status=1)


@broken()
def revert(subject):
    subject.clean()
    subject.write({"behaviour.py": "MODE = 'worse'\n"})
    subject.commit("worse")
    subject.git("revert", "--no-edit", subject.bad, status=1)


@broken()
def am(subject):
    conflicting_branch(subject)
    patch = subject.git("format-patch", "-1", "--stdout")
    subject.git("switch", "-q", "main")
    subject.git("am", stdin=patch.encode() + b"\n", status=128)


@broken()
def bisect(subject):
    subject.clean()
    for number in range(4):
        subject.write({"count": f"{number}\n"})
        subject.commit(f"step {number}")
    subject.git("bisect", "start", "main", subject.good)


@broken()
def bisect_without_checkout(subject):
    subject.clean()
    subject.git("bisect", "start", "--no-checkout", "main", subject.good)


@broken()
def everything_at_once(subject):
    names = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD", "ORIG_HEAD", "BISECT_HEAD", "AUTO_MERGE")
    subject.write({f".git/{name}": f"{subject.bad}\n" for name in names})
    for name in ("rebase-merge", "rebase-apply", "sequencer"):
        os.makedirs(subject.dot_git / name)
    subject.write({".git/rebase-merge/head-name": "refs/heads/main\n", ".git/rebase-merge/orig-head": subject.bad,
                   ".git/rebase-merge/onto": subject.bad, ".git/sequencer/head": subject.bad,
                   ".git/sequencer/todo": "pick " + subject.bad, ".git/BISECT_START": "main\n",
                   ".git/BISECT_LOG": "git bisect start\n"})  # fmt: skip
