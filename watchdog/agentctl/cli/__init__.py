"""The commands for people: `agentctl VERB`."""
