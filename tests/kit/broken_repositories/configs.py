"""The repository's configuration: broken, or leading git somewhere else."""

import os

from .refs import KINDS, make
from .subject import broken

JUNK = {"empty": b"", "nul": b"\0" * 300, "junk": b"[core\n=\n", "huge": b"#" * 3_000_000 + b"\n[core\n"}


@broken(each=JUNK)
def content(subject, data):
    subject.write({".git/config": data})


@broken()
def missing(subject):
    os.unlink(subject.dot_git / "config")


@broken(each=KINDS)
def config_is(subject, kind):
    make(subject, "config", kind)


SETTINGS = {
    "future-version": {"core.repositoryformatversion": "99"},
    "unknown-extension": {"core.repositoryformatversion": "1", "extensions.strange": "true"},
    "other-hashes": {"core.repositoryformatversion": "1", "extensions.objectformat": "sha256"},
    "other-refs": {"core.repositoryformatversion": "1", "extensions.refstorage": "reftable"},
    "partial-clone": {"core.repositoryformatversion": "1", "extensions.partialclone": "origin"},
    "bare": {"core.bare": "true"},
    "worktree-nowhere": {"core.worktree": "/nonexistent"},
    "worktree-elsewhere": {"core.worktree": "/usr"},
    "autocrlf": {"core.autocrlf": "true", "core.safecrlf": "true"},
    "autocrlf-input": {"core.autocrlf": "input"},
    "no-modes": {"core.filemode": "false", "core.symlinks": "false", "core.ignorecase": "true"},
    "no-reflogs": {"core.logallrefupdates": "false"},
    "sparse": {"core.sparsecheckout": "true"},
    "excludes": {"core.excludesfile": "/nonexistent/x", "core.attributesfile": "/nonexistent/y"},
    "fsck-strict": {"fsck.missingEmail": "error", "transfer.fsckObjects": "true"},
    "not-a-number": {"core.compression": "junk", "core.bigFileThreshold": "junk"},
    "not-a-bool": {"core.filemode": "perhaps"},
    "abbreviated": {"core.abbrev": "4", "log.showSignature": "true", "status.showUntrackedFiles": "no"},
}  # fmt: skip


@broken(each=SETTINGS)
def setting(subject, settings):
    for key, value in settings.items():
        subject.git("config", "-f", ".git/config", key, value)


@broken()
def include_of_a_fifo(subject):
    os.mkfifo(subject.dot_git / "more")
    subject.git("config", "-f", ".git/config", "include.path", "more")


@broken()
def include_of_a_fifo_elsewhere(subject):
    os.mkfifo(subject.code / "more.cache")
    text = f'[includeIf "gitdir:{subject.code}/"]\n\tpath = ../more.cache\n'
    with open(subject.dot_git / "config", "a") as file:
        file.write(text)


@broken(each={"nowhere": "nowhere", "itself": "config"})
def include_of(subject, target):
    subject.git("config", "-f", ".git/config", "include.path", target)


@broken()
def include_of_junk(subject):
    subject.write({".git/more": "[core\n=\n"})
    subject.git("config", "-f", ".git/config", "include.path", "more")


@broken()
def include_that_makes_it_bare(subject):
    subject.write({".git/more": "[core]\n\tbare = true\n\tworktree = /usr\n"})
    subject.git("config", "-f", ".git/config", "include.path", "more")


@broken()
def worktree_config(subject):
    subject.git("config", "extensions.worktreeConfig", "true")
    subject.write({".git/config.worktree": "[core]\n\tbare = true\n\tworktree = /nonexistent\n"})


@broken(each={"nowhere": "/nonexistent\n", "junk": "\0\0", "itself": ".\n"})
def common_dir(subject, content):
    subject.write({".git/commondir": content})


@broken(each={"exclude": "info/exclude", "attributes": "info/attributes", "sparse": "info/sparse-checkout",
              "grafts": "info/grafts"})  # fmt: skip
def fifo_at(subject, name):
    path = subject.dot_git / name
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.unlink()
    os.mkfifo(path)


@broken()
def everything_is_excluded(subject):
    subject.write({".git/info/exclude": "*\n"})
    subject.write({"unseen.py": "excluded\n"})
