"""What `init` leaves in the agent's repository: the gate as a pre-commit hook, and the protocol for the agent.

Nothing that is there already is replaced, and `git status` stays as clean as it was: the hook is git's own place for
it, the document is named in `.git/info/exclude`. To be called as the agent's user.
"""

from __future__ import annotations

import os
import shutil

from .. import durable
from . import protocol

HOOK = """#!/bin/sh
# agentctl: the gate of 'agentctl change check' on what is staged. Written by 'agentctl init'; may be removed.
# 'git commit --no-verify' gets past this, not past 'agentctl change promote'.
agentctl={ctl}
[ -x "$agentctl" ] && [ -r {config} ] || exit 0
{variables}
if command -v pre-commit >/dev/null 2>&1; then
    export PRE_COMMIT_HOME="${{PRE_COMMIT_HOME:-{folder}/pre-commit}}"
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
    entry: {ctl} --name {name} change check --staged
    language: system
    always_run: true
    pass_filenames: false
    verbose: true
"""


def install(code_dir: str, name: str, config_path: str, ctl: str, variables: dict[str, str]) -> str:
    """Write hook and document where nothing stands in the way; return what a person should know, line by line."""
    return "\n".join([*_write_document(code_dir), *_write_hook(code_dir, name, config_path, ctl, variables)])


def _write_document(code_dir: str) -> list[str]:
    path, exclude = f"{code_dir}/{protocol.FILE_NAME}", f"{code_dir}/.git/info/exclude"
    if os.path.lexists(path):
        return [f"{protocol.FILE_NAME} is there already and stays; 'agentctl protocol' prints ours"]
    known = (durable.read(exclude) or b"").decode("utf-8", "surrogateescape")
    if f"/{protocol.FILE_NAME}" not in known.splitlines():
        os.makedirs(os.path.dirname(exclude), exist_ok=True)
        gap = "" if not known or known.endswith("\n") else "\n"
        durable.write(exclude, f"{known}{gap}/{protocol.FILE_NAME}\n".encode("utf-8", "surrogateescape"))
    durable.write(path, protocol.TEXT.encode())
    return [f"{protocol.FILE_NAME} tells the agent how to change itself (not committed; git ignores it)"]


def _write_hook(code_dir: str, name: str, config_path: str, ctl: str, variables: dict[str, str]) -> list[str]:
    path, folder = f"{code_dir}/.git/hooks/pre-commit", f"{code_dir}/.git/agentctl"
    if os.path.lexists(path):
        return [f"{path} is there already and stays; add to it: {ctl} --name {name} change check --staged"]
    os.makedirs(folder, exist_ok=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    yaml = f"{folder}/pre-commit.yaml"
    durable.write(yaml, YAML.format(ctl=ctl, name=name).encode())
    lines = "\n".join(f"export {key}={_quoted(value)}" for key, value in variables.items()) or ":"
    text = HOOK.format(
        ctl=_quoted(ctl), config=_quoted(config_path), variables=lines, folder=folder, yaml=_quoted(yaml), name=name
    )
    durable.write(path, text.encode(), 0o755)
    how = "through pre-commit" if shutil.which("pre-commit") else "as a plain git hook (pre-commit is not installed)"
    return [f"commits are gated {how}: syntax and linter of what is staged"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
