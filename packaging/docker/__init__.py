"""The files of the runtime `compose`, complete as they are; `agentctl init --runtime compose` copies compose.yaml."""
