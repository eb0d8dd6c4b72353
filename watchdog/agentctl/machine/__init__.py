"""The machine's own parts, one module each: processes, systemd, tmux, sockets, the journal."""
