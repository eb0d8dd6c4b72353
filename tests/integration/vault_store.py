"""A repository with a vault and a staging of ours beside it, and what git knows of a folder."""

from __future__ import annotations

from pathlib import Path

from agentctl.generations.agent_repo import Repository
from agentctl.generations.tree_capture import CapturedTree, Staging
from agentctl.generations.vault import Vault, create_bare
from integration.world import make_repository
from kit.manifest import manifest


class Store:
    """An agent's repository with a vault and a staging of ours beside it."""

    def __init__(self, folder: Path, files: dict | None = None) -> None:
        self.folder = folder
        self.code = make_repository(folder / "code", files or {"agent.py": "print(1)\n"})
        self.vault = Vault(str(folder / "vault.git"))
        self.vault.create()
        create_bare(str(folder / "staging.git"))
        self.staging = Staging(str(folder / "staging.git"), str(self.code), None)
        self.repository = Repository(str(self.code), None)
        self.count = 0

    def capture(self) -> CapturedTree:
        commit, branch = self.repository.head()
        return self.staging.capture(self.repository.git, commit, branch)

    def keep(self, capture: CapturedTree | None = None) -> str:
        """Bring the tree into the vault; return the vault's commit of it."""
        self.count += 1
        return self.vault.add_generation(
            self.count,
            capture or self.capture(),
            self.staging,
            self.repository.git,
            f"generation {self.count}\n\n{{}}\n",
        )

    def laid_out(self, revision: str) -> Path:
        folder = self.folder / f"out{self.count}"
        folder.mkdir()
        self.vault.lay_out(revision, str(folder))
        return folder


def contents(folder: Path) -> dict:
    """The files as git knows them: content, exec bit, links; no folders of their own."""
    found = manifest(folder, without=(".git",))
    return {
        name: (what[0], bool(what[1] & 0o100), what[2]) if what[0] == "file" else what
        for name, what in found.items()
        if what[0] != "folder"
    }
