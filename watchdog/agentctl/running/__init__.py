"""The agent while it runs: the runner and its session, probes, jobs beside it, the foreground supervisor."""
