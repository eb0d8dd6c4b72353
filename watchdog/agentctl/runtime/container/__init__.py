"""The runtime `compose`: the same promises with containers and images. Docker is called as a command, here only."""
