"""Wait for a disk that is full or read-only: tell once, look now and then, change nothing.

For the rescue: standard library only, none of our other modules.
"""

import os
import subprocess
import time

TOLD_SECONDS = 3600  # one alert an hour for a disk that stays full
LOOK_SECONDS = 5.0
TRY_SECONDS = 600
MORE_BYTES = 1 << 20
ENOUGH_BYTES = 4 << 20  # what a launch looks for before it begins


def wait(name: str, folders: tuple, tell) -> bool:
    """Return when the file systems of `folders` take writes again; False if somebody started the agent himself."""
    homes = [folder for folder in folders if folder and os.path.isdir(folder)]
    mark = f"{find_runtime(name)}/no-storage"
    is_first = not was_told(mark)
    if is_first:
        tell(f"down: the disk is full or read-only ({', '.join(homes)}); it is started again when there is room")
        leave_mark(mark)
    before, began = [free(home) for home in homes], time.monotonic()
    while not has_come_back(before, [free(home) for home in homes], time.monotonic() - began, is_first=is_first):
        if is_up(name):
            return False
        time.sleep(LOOK_SECONDS)
    return True


def has_come_back(before: list[int], now: list[int], waited: float, *, is_first: bool = False) -> bool:
    """Tell whether it is worth trying: all is writable, and there is more room, or a long time has gone by.

    The first time also when there is enough: it may have come back before we looked.
    """
    was_sealed = any(b < 0 for b in before)
    is_more = any(n >= b + MORE_BYTES for n, b in zip(now, before, strict=True))
    is_enough = is_first and all(n >= ENOUGH_BYTES for n in now)
    return all(n >= 0 for n in now) and (was_sealed or is_more or is_enough or waited > TRY_SECONDS)


def free(folder: str) -> int:
    """Return the bytes that are free there, -1 where nothing can be written at all."""
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        return -1
    return (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def is_up(name: str) -> bool:
    """Tell whether somebody has started the agent, or the rollback routine, meanwhile."""
    if os.environ.get("AGENTCTL_RUNTIME") == "direct":
        return False
    scope = ["--user"] if os.geteuid() != 0 else []
    units = (f"{name}.service", f"{name}-rollback.service")
    asked = subprocess.run(["systemctl", *scope, "is-active", *units], capture_output=True, text=True, check=False)
    return any(line in ("active", "activating") for line in asked.stdout.split())


def was_told(mark: str) -> bool:
    """Tell whether a human heard of it within the hour."""
    try:
        with open(mark, encoding="utf-8") as file:
            return 0 <= time.time() - float(file.read()) < TOLD_SECONDS
    except (OSError, ValueError):
        return False


def leave_mark(path: str) -> None:
    """Note the time in a file; a mark that cannot be left is only missed."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{time.time()}\n")
    except OSError:
        return


def find_runtime(name: str) -> str:
    """Name the runtime folder as `paths` does."""
    root = os.environ.get("AGENTCTL_ROOT")
    if root:
        return f"{root}/run/{name}"
    base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    return f"{base}/agentctl/{name}"
