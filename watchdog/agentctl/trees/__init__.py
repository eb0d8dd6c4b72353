"""The agent's code as folders: live, standby and quarantine, and how they change places."""
