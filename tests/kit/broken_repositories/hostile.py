"""Configuration, hooks and attributes that would run something: nothing of it may run on the way back."""

import os

from .subject import broken

HOOKS = ("post-checkout", "post-commit", "post-index-change", "pre-commit", "reference-transaction", "post-rewrite",
         "pre-auto-gc", "post-merge", "fsmonitor-watchman", "update", "post-update", "pre-receive",
         "proc-receive")  # fmt: skip


def witness(subject):
    """Make a program that leaves a mark when it is run; return its path."""
    path, mark = subject.code.parent / "trap.sh", subject.code.parent / "witness"
    path.write_text(f'#!/bin/sh\necho "$0 $*" >>{mark}\ncat 2>/dev/null\nexit 0\n')
    path.chmod(0o755)
    subject.own(path)
    mark.parent.chmod(0o777)
    return str(path)


@broken()
def hooks(subject):
    trap = witness(subject)
    for hook in HOOKS:
        os.symlink(trap, subject.dot_git / "hooks" / f"{hook}") if not os.path.lexists(
            subject.dot_git / "hooks" / hook
        ) else None


COMMANDS = (
    "core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.gitProxy", "core.askPass", "gpg.program",
    "gpg.ssh.program", "diff.external", "diff.x.command", "diff.x.textconv", "filter.x.clean", "filter.x.smudge",
    "filter.x.process", "merge.x.driver", "credential.helper", "sequence.editor", "core.alternateRefsCommand",
    "uploadpack.packObjectsHook", "interactive.diffFilter", "trailer.x.command", "remote.origin.uploadpack",
    "browser.x.cmd", "man.x.cmd", "difftool.x.cmd", "mergetool.x.cmd", "gc.recentObjectsHook", "submodule.sub.update",
)  # fmt: skip


def set_traps(subject, trap, path):
    for key in COMMANDS:
        value = f"!{trap}" if key.startswith(("credential", "submodule")) else trap
        subject.git("config", "-f", path, key, value)
    for word in ("status", "add", "ls-files", "rev-parse", "for-each-ref", "commit", "update-ref", "cat-file", "fsck"):
        subject.git("config", "-f", path, f"alias.{word}", f"!{trap}")
    for key, value in {"filter.x.required": "true", "commit.gpgSign": "true", "tag.gpgSign": "true",
                       "log.showSignature": "true", "core.commitGraph": "true"}.items():  # fmt: skip
        subject.git("config", "-f", path, key, value)
    subject.git("config", "-f", path, "core.hooksPath", str(subject.dot_git / "hooks"))


@broken()
def settings(subject):
    set_traps(subject, witness(subject), ".git/config")


@broken()
def settings_by_include(subject):
    set_traps(subject, witness(subject), str(subject.code.parent / "more"))
    subject.git("config", "-f", ".git/config", "include.path", str(subject.code.parent / "more"))


@broken()
def attributes(subject):
    subject.write({".gitattributes": "* filter=x diff=x merge=x text eol=crlf ident working-tree-encoding=UTF-16\n",
                   ".git/info/attributes": "* filter=x diff=x merge=x\n"})  # fmt: skip
    set_traps(subject, witness(subject), ".git/config")


@broken()
def attributes_in_the_commit(subject):
    subject.write({".gitattributes": "* filter=x diff=x merge=x\n"})
    subject.clean()
    set_traps(subject, witness(subject), ".git/config")


@broken()
def promisor(subject):
    trap = witness(subject)
    for key, value in {"core.repositoryformatversion": "1", "extensions.partialClone": "origin",
                       "remote.origin.promisor": "true", "remote.origin.url": f"ext::{trap} %S",
                       "protocol.ext.allow": "always"}.items():  # fmt: skip
        subject.git("config", "-f", ".git/config", key, value)
    subject.object_path(f"{subject.bad}:behaviour.py").unlink()


@broken()
def programs_in_the_tree(subject):
    """What stands in the current folder must not be taken for the real program."""
    trap = witness(subject)
    for name in ("git", "cp", "rm", "python3", "sh", "git-add", "agentctl"):
        os.symlink(trap, subject.code / name)
