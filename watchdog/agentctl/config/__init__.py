"""`agent.toml`: what may stand in it, reading, editing, presets; and the agent opened."""
