"""What `init` leaves with the agent: the gate as a pre-commit hook, and the protocol for changing itself.

Nothing that is there already is replaced, and `git status` stays as clean as it was: the hook is git's own place for
it, the document is named in `.git/info/exclude`. To be called as the agent's user.
"""

from __future__ import annotations

import os
import shutil

from ..core import durable
from ..core.errors import AgentctlError
from ..core.fast_json import quoted
from ..generations import worktree

GATE = "change check --staged"
HOOK = """#!/bin/sh
# agentctl: the gate of 'agentctl change check' on what is staged. Written by 'agentctl init'; may be removed.
# 'git commit --no-verify' gets past this, not past 'agentctl change promote'.
agentctl={ctl}
[ -x "$agentctl" ] && [ -r {config} ] || exit 0
{variables}
if command -v pre-commit >/dev/null 2>&1; then
    [ -n "$PRE_COMMIT_HOME" ] || PRE_COMMIT_HOME={home}
    export PRE_COMMIT_HOME
    exec pre-commit run --hook-stage pre-commit --config {yaml}
fi
exec "$agentctl" --name {name} change check --staged
"""
YAML = """# Local hooks only: nothing is fetched. Written by 'agentctl init' for its pre-commit hook.
repos:
- repo: local
  hooks:
  - id: agentctl
    name: agentctl change check --staged
    entry: {entry}
    language: system
    always_run: true
    pass_filenames: false
    verbose: true
"""


def install(code_dir: str, name: str, config_path: str, ctl: str, variables: dict[str, str]) -> str:
    """Write hook and document where nothing stands in the way; return what a person should know, line by line."""
    return "\n".join([*_write_document(code_dir), *_write_hook(code_dir, name, config_path, ctl, variables)])


def _write_document(code_dir: str) -> list[str]:
    path, exclude = f"{code_dir}/{FILE_NAME}", f"{code_dir}/.git/info/exclude"
    if os.path.lexists(path):
        return [f"{FILE_NAME} is there already and stays; 'agentctl protocol' prints ours"]
    known = (durable.read(exclude) or b"").decode("utf-8", "surrogateescape")
    if f"/{FILE_NAME}" not in known.splitlines():
        os.makedirs(os.path.dirname(exclude), exist_ok=True)
        gap = "" if not known or known.endswith("\n") else "\n"
        durable.write(exclude, f"{known}{gap}/{FILE_NAME}\n".encode("utf-8", "surrogateescape"))
    durable.write(path, TEXT.encode())
    return [f"{FILE_NAME} tells the agent how to change itself (not committed; git ignores it)"]


def _write_hook(code_dir: str, name: str, config_path: str, ctl: str, variables: dict[str, str]) -> list[str]:
    git_dir, hooks = f"{code_dir}/.git", _find_hooks(code_dir)
    path, folder = f"{hooks}/pre-commit", f"{git_dir}/agentctl"
    gate = f"{_quoted(ctl)} --name {name} {GATE}"
    if not f"{hooks}/".startswith(f"{git_dir}/"):
        return [_tell_elsewhere(hooks, gate)]
    if os.path.lexists(path):
        return [f"{path} is there already and stays; add to it: {gate}"]
    os.makedirs(folder, exist_ok=True)
    os.makedirs(hooks, exist_ok=True)
    yaml = f"{folder}/pre-commit.yaml"
    durable.write(yaml, YAML.format(entry=quoted(gate)).encode("utf-8", "surrogateescape"))
    lines = "\n".join(f"export {key}={_quoted(value)}" for key, value in variables.items()) or ":"
    text = HOOK.format(
        ctl=_quoted(ctl),
        config=_quoted(config_path),
        variables=lines,
        home=_quoted(f"{folder}/pre-commit"),
        yaml=_quoted(yaml),
        name=name,
    )
    durable.write(path, text.encode("utf-8", "surrogateescape"), 0o755)
    how = "through pre-commit" if shutil.which("pre-commit") else "as a plain git hook (pre-commit is not installed)"
    return [f"commits are gated {how}: syntax and linter of what is staged"]


def _find_hooks(code_dir: str) -> str:
    """Return the folder in which git looks for hooks; where it does not say, the usual one."""
    try:
        return worktree.find_hooks(code_dir)
    except AgentctlError:
        return f"{code_dir}/.git/hooks"


def _tell_elsewhere(hooks: str, gate: str) -> str:
    """Say what a person can do where hooks are part of the code, or of all repositories: they are not ours to write."""
    folder, last = os.path.split(hooks)
    is_husky = (os.path.basename(folder), last) == (
        ".husky",
        "_",
    )  # it writes that folder anew, and calls what is above
    path = f"{folder if is_husky else hooks}/pre-commit"
    present = durable.read(path)
    if present is not None and GATE.encode() in present:
        return f"commits are gated by {path} (core.hooksPath)"
    todo = f"add to {path}" if present is not None else f"make {path} an executable script (#!/bin/sh) that runs"
    return f"commits are not gated: by core.hooksPath git looks for hooks in {hooks} only. To gate them, {todo}: {gate}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# -- protocol --------------------------------------------------------------------------------------
# The protocol that an agent follows to change itself, as a document: short, exact, every command in it is tested.


FILE_NAME = "SELF_MODIFICATION.md"

TEXT = """# How to change yourself

You run from this repository, under agentctl. If you break yourself, you are rolled back to the last good generation
and told why. Do not edit the running tree. Make every change like this, one step after the other; each command says
what comes next, and an error ends with a hint that is the next command. `--json` after any command gives JSON.

1. **Begin.** You get a branch in a worktree of its own; its path is printed.

   ```sh
   agentctl change start feature/NAME --about "what you are trying to do, in one sentence"
   ```

   Use `hotfix/NAME` for a repair. Edit only in that worktree, add tests, commit there (in the worktree: `git add -A`,
   `git commit -m "what and why"`).

2. **Check.** Syntax, linter, tests of what is committed. Mend, commit, check again until it passes.

   ```sh
   agentctl change check feature/NAME
   ```

3. **Try.** The new version runs beside you, with a copy of your state and `AGENT_TRIAL=1`. It has to become ready and
   beat.

   ```sh
   agentctl change try feature/NAME
   ```

4. **Review.** Read the difference against your intention and the checklist, then write down what you think.

   ```sh
   agentctl change review feature/NAME
   agentctl change review feature/NAME --note "what I looked at, what I think"
   ```

   If `promote` says that somebody has to approve, ask your human. You cannot approve it yourself.

5. **Save, then promote.** Write your task and your history to disk first: you are stopped and started anew as the new
   version.

   ```sh
   agentctl change promote feature/NAME
   ```

   With `--confirm-within 10m` it goes back by itself unless `agentctl confirm` comes in time, however well it looks.

   Once you have committed, `agentctl change go feature/NAME --note "what I looked at, what I think"` does steps 2 to 5
   and stops at the first thing that is missing.

6. **After the restart** read `$AGENT_BRIEF_FILE` if it is set: then you were rolled back, and it says what happened,
   where your work is and what to do. The same tree is refused a second time; mend it in the worktree and go on at
   step 2.
   Otherwise you are on probation: work on as usual. Look where you stand, then tick the change off in your task:

   ```sh
   agentctl change list --all
   agentctl status
   ```

Whenever you do not know what comes next: `agentctl change list`. To give a change up (the branch and the reason stay):

```sh
agentctl change abandon feature/NAME --reason "why"
```

Why were you rolled back? `agentctl why` tells the whole story. To start anew without a change: `agentctl restart`.
"""
