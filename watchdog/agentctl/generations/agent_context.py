"""One agent, opened: beside its paths and settings what holds its code and its ledger.

Entry points open it. It opens; it decides nothing.
"""

from __future__ import annotations

from ..config.context import Context
from ..config.sections import Config
from ..core.paths import AgentPaths
from ..ledger.database import Ledger
from .agent_repo import Repository
from .slots import Slots
from .tree_capture import Staging
from .vault import Vault


class AgentContext(Context):
    """One agent of this machine with its vault, staging, repository, slots and ledger."""

    def __init__(self, paths: AgentPaths, config: Config, complaint: str = "") -> None:
        super().__init__(paths, config, complaint)
        self.vault = Vault(paths.vault_path)
        self.staging = Staging(paths.staging_path, self.code_dir, self.user, self.hidden)
        self.repository = Repository(self.code_dir, self.user, self.hidden)
        self.slots = Slots(
            self.slots_dir,
            self.code_dir,
            self.user,
            notes=paths.data_dir if self.hidden else "",
            is_mounted=self.is_mounted,
        )

    def ledger(self, *, read_only: bool = False) -> Ledger:
        """Open the ledger; raise LedgerDamaged where it needs rebuilding."""
        return Ledger(self.paths.ledger_path, read_only=read_only)
