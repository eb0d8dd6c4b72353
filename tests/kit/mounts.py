"""Mounts for tests, in a mount namespace of this process alone: nothing of them is left when it ends."""

from __future__ import annotations

import ctypes
import os

import pytest

from kit import deadline

CLONE_NEWNS = 0x00020000


def need_mounts() -> None:
    """Enter a mount namespace of our own, once; give up loudly where that is not allowed (in CI: a failure)."""
    if _is_private():
        return
    why = "" if os.geteuid() == 0 else "mounting needs root"
    if not why and ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        why = f"unshare: {os.strerror(ctypes.get_errno())}"
    if not why:
        why = mount("--make-rprivate", "/", check=False)
    if why and os.environ.get("CI"):
        pytest.fail(f"required in CI: {why}", pytrace=False)
    if why:
        pytest.skip(f"THE TESTS WITH MOUNTS DO NOT RUN: {why}")


def _is_private() -> bool:
    return os.readlink("/proc/self/ns/mnt") != os.readlink(f"/proc/{os.getppid()}/ns/mnt")


def mount(*words, check: bool = True) -> str:
    """Run mount(8); return what it complains about."""
    done = deadline.run(["mount", *map(str, words)], capture_output=True, text=True)
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stderr.strip() if done.returncode else ""


def tmpfs(where, size: str = "64m", mode: str = "755") -> None:
    """Mount an empty file system in memory."""
    os.makedirs(where, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size},mode={mode}", "tmpfs", where)


def overlay(lower, where) -> None:
    """Mount an overlay over `lower`, with an upper layer in memory, as containers have it."""
    upper = f"{where}.upper"
    tmpfs(upper)
    for part in (f"{upper}/upper", f"{upper}/work", where):
        os.makedirs(part, exist_ok=True)
    data = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work,redirect_dir=off"
    mount("-t", "overlay", "-o", data, "overlay", where)


def users(where) -> list[str]:
    """List what keeps a mounted file system busy: processes with a file, a folder or a mapping on it."""
    device, found = os.stat(where).st_dev, []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
            links += [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().replace(b"\0", b" ").decode("utf-8", "replace")[:200]
        except OSError:
            continue
        held = [os.readlink(link) for link in links if _device(link) == device]
        found += [f"{pid} ({words}): {', '.join(held)}"] if held else []
    return found


def _device(link: str) -> int | None:
    try:
        return os.stat(link).st_dev
    except OSError:
        return None


def release(*places) -> None:
    """Unmount, in the order given; what is not mounted is no matter."""
    for place in places:
        deadline.run(["umount", "-l", str(place)], capture_output=True)
