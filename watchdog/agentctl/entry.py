"""The door of the units: `python -I -S entry.py runner|rollback|rescue|prune|job|watchdog|story NAME`.

`inside` and `health` are those of an agent's container. No click.

`-I -S` keeps everything an agent could plant (PYTHONPATH, user site, .pth files) out of the recovery path.
"""

from __future__ import annotations

import os
import sys

if __package__ in (None, ""):  # run as a file: make our own package importable, and nothing else
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main(argv: list[str]) -> int:
    """Run one foreground part; return its exit status."""
    part, name, rest = argv[1], argv[2], argv[3:]
    os.umask(0o022)
    if part == "runner":
        from agentctl.runner import runner

        return runner.main(name)
    if part == "inside":
        from agentctl.runtime.container import entrypoint

        return entrypoint.main()
    if part == "health":
        from agentctl.runtime.container import health

        return health.main()
    if part == "trial":
        from agentctl.runner import trial_process

        return trial_process.main(name, *rest)
    if part == "rollback":
        from agentctl.recovery import process

        return process.main(name)
    if part == "rescue":
        from agentctl import rescue

        return rescue.main(name)
    if part == "watchdog":  # the one part that needs site packages: its unit leaves -S out
        from agentctl.watchdog import daemon

        return daemon.main(name)
    if part == "story":  # as the watchdog: what it is told with is in site packages
        from agentctl.cli import alert_text

        return alert_text.main(name)
    if part == "prune":
        from agentctl.retention import prune

        return prune.main(name)
    from agentctl.runner import jobs

    return jobs.main(name, *rest)


if __name__ == "__main__":
    STATUS = main(sys.argv)
    sys.stdout.flush()
    # Everything that counts is on disk; tearing the interpreter down would only cost the agent 5 ms.
    os._exit(STATUS)
