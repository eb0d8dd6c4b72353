"""Git, hardened: the agent's repository, the vault, what can be broken in them and how it is mended."""
