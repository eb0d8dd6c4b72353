"""The watchdog: one process that keeps histories and heartbeats, judges and tells. It needs site packages."""
