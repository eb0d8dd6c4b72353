"""What the agent knows: its task, its history, its sessions; never shortened."""
