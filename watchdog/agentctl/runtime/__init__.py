"""What an agent runs in, and who starts it: tmux, systemd, the foreground, containers."""
