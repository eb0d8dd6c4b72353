"""What the agent knows: its task, its history, its state folder; never shortened."""
