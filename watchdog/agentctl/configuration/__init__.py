"""agent.toml: what may stand in it, reading, editing, presets."""
