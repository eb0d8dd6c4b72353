"""Lock files that a killed git leaves: each alone, all together, and some that are no files."""

import os

from .subject import broken

NAMES = [
    "index", "HEAD", "config", "config.worktree", "packed-refs", "shallow", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD",
    "refs/heads/main", "refs/heads/idea", "refs/heads/a/b", "refs/tags/v1", "refs/stash", "logs/HEAD",
    "logs/refs/heads/main", "objects/maintenance", "objects/info/commit-graph", "objects/pack/multi-pack-index",
    "objects/info/commit-graphs/commit-graph-chain", "info/sparse-checkout", "gc.pid", "refs/heads/rescue/x",
]  # fmt: skip


@broken(each={name.replace("/", "-"): name for name in NAMES})
def lock(subject, name):
    subject.write({f".git/{name}.lock": ""})


@broken()
def all_locks(subject):
    subject.write({f".git/{name}.lock": "" for name in NAMES})


@broken()
def lock_is_a_folder(subject):
    subject.write({".git/index.lock/full/of": "things", ".git/refs/heads/main.lock/x": ""})


@broken()
def lock_is_a_fifo(subject):
    for name in ("index", "HEAD", "config", "packed-refs", "refs/heads/main"):
        os.mkfifo(subject.dot_git / f"{name}.lock")


@broken()
def lock_leads_nowhere(subject):
    os.symlink("/nonexistent/lock", subject.dot_git / "index.lock")


@broken()
def gc_is_at_work(subject):
    subject.write({".git/gc.pid": f"1 {os.uname().nodename}\n", ".git/objects/pack/tmp_pack_abc": "half",
                   ".git/objects/tmp_obj_abc": "half"})  # fmt: skip


@broken()
def locked_worktree(subject):
    subject.git("worktree", "add", "-q", str(subject.code.parent / "beside"), "idea")
    subject.git("worktree", "lock", str(subject.code.parent / "beside"))
    subject.write({".git/worktrees/beside/index.lock": "", ".git/worktrees/beside/HEAD.lock": ""})
