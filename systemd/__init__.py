"""The unit files of one agent, complete as they are; `agentctl install` adds a drop-in with what agent.toml says."""
