"""Free what the vault holds and no ref reaches: a copy of what is reachable takes its place in one exchange.

git's own collection would need the vault to stand still for as long as it takes. A copy arrives as one checked pack, so
what is damaged is never taken over, and at every instant a complete vault is at its path. Refuses on a full disk.
"""

from __future__ import annotations

import os

from ..core import durable
from ..core.errors import AgentctlError
from ..generations.git import pipe_pack, share_boundary
from ..generations.slots import exchange
from ..generations.vault import Vault
from ..host import command

LIMIT_SECONDS = 4 * 3600
ROUNDS = 3
MARGIN_BYTES = 64 << 20


def clear(vault: Vault) -> None:
    """Remove what an interrupted copy left: half of a copy, or the vault it has replaced."""
    left = [_fresh(vault), f"{_fresh(vault)}.lock"]
    command.run(["/bin/rm", "-rf", "--", *left], env={"LC_ALL": "C"}, limit_seconds=3600)


def measure(vault: Vault, without: list[str]) -> tuple[int, int]:
    """Return (bytes of the vault on disk, bytes that its refs but `without` reach)."""
    counted = dict(line.split(": ") for line in vault.git.run("count-objects", "-v").text.splitlines() if ": " in line)
    total = sum(int(counted[key]) for key in ("size", "size-pack", "size-garbage")) * 1024
    kept = [oid for ref, oid in vault.refs("refs/").items() if ref not in without]
    asked = "".join(f"{oid}\n" for oid in dict.fromkeys(kept)).encode()
    reached = vault.git.run("rev-list", "--objects", "--disk-usage", "--stdin", stdin=asked, limit_seconds=3600)
    return total, min(total, int(reached.text or 0))


def replace_by_copy(vault: Vault, must_hold: list[str]) -> None:
    """Put a copy of all that refs reach in the vault's place.

    Raise AgentctlError, with nothing changed, if it cannot be done or the copy lacks any of the commits `must_hold`.
    """
    clear(vault)
    _check_room(vault)
    fresh = Vault(_fresh(vault))
    fresh.create()
    try:
        for _ in range(ROUNDS):
            _copy_news(vault, fresh)
            fresh.git.run("rev-list", "--objects", "--quiet", *must_hold, limit_seconds=LIMIT_SECONDS)
            durable.sync_filesystem(fresh.path)
            if _exchange_if_same(vault, fresh):
                return
        with vault.writing(alone=True):  # somebody writes all the time: the last bit is copied while he waits
            _copy_news(vault, fresh)
            durable.sync_filesystem(fresh.path)
            _exchange(vault, fresh)
    finally:
        clear(vault)


def _fresh(vault: Vault) -> str:
    return f"{vault.path}.fresh"


def _check_room(vault: Vault) -> None:
    _, reached = measure(vault, [])
    disk = os.statvfs(os.path.dirname(vault.path))
    free = disk.f_bavail * disk.f_frsize
    if free < reached + MARGIN_BYTES:
        raise AgentctlError(
            f"not enough room to copy the vault: {free >> 20} MiB are free and {(reached + MARGIN_BYTES) >> 20} needed",
            "what no ref reaches stays until there is",
        )


def _copy_news(vault: Vault, fresh: Vault) -> None:
    """Bring in what is not there yet, and make the refs the same."""
    wanted, have = vault.refs("refs/"), fresh.refs("refs/")
    news = {ref: oid for ref, oid in wanted.items() if have.get(ref) != oid}
    if news:
        known = list(dict.fromkeys(have.values()))
        share_boundary(vault.git, fresh.git)
        pipe_pack(vault.git, list(dict.fromkeys(news.values())), known, fresh.git, limit_seconds=LIMIT_SECONDS)
    fresh.update({**{ref: None for ref in have if ref not in wanted}, **news})


def _exchange_if_same(vault: Vault, fresh: Vault) -> bool:
    """Exchange the two while nobody writes; False if somebody has written meanwhile."""
    with vault.writing(alone=True):
        if vault.refs("refs/") != fresh.refs("refs/"):
            return False
        _exchange(vault, fresh)
    return True


def _exchange(vault: Vault, fresh: Vault) -> None:
    try:
        exchange(fresh.path, vault.path)
    except OSError as error:
        raise AgentctlError(
            f"cannot exchange {fresh.path} and {vault.path}: {error.strerror}",
            "what no ref reaches stays on this file system",
        ) from error
    durable.sync_folder(os.path.dirname(vault.path))
