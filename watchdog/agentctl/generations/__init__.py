"""The agent's code: git hardened, the vault, the slots, and how what is broken is repaired."""
