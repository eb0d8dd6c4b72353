"""What can go wrong, in words for a person: what failed, on what, why, then a hint.

Whatever fails raises these; only `cli` prints them. Nothing here prints or logs.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_RELAUNCH = 0  # of the recovery process: OnSuccess= starts the agent
EXIT_FAILED = 1  # a failure we foresaw and explained
EXIT_USAGE = 2
EXIT_NOT_WELL = 3  # status, doctor
EXIT_LOCK_HELD = 4
EXIT_REFUSED = 65  # a launch that must not be: straight to OnFailure=
EXIT_BUG = 70
EXIT_NO_STORAGE = 74  # EX_IOERR: the disk is full or read-only, and will not be for ever
EXIT_STAY_DOWN = 76  # nothing to do, and nobody wants the agent up
EXIT_HALTED = 77
EXIT_INTERRUPTED = 130


class AgentctlError(Exception):
    """A foreseen failure: `message` says what, on what and why; `hint` says what to do next."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AgentctlError):
    """The caller asked for something that cannot be meant."""

    exit_code = EXIT_USAGE


class LaunchRefused(AgentctlError):
    """The guard said no; the recovery process decides what follows."""

    exit_code = EXIT_REFUSED


class TooNew(AgentctlError):
    """What a newer agentctl wrote: it is not guessed at, and left as it is."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(
            f"{what} is of version {found}; this agentctl knows {known}",
            "use the agentctl that wrote it, or a newer one; nothing was changed",
        )


class LockHeld(AgentctlError):
    """Somebody else is at work on the same agent."""

    exit_code = EXIT_LOCK_HELD


class CannotGoOn(AgentctlError):
    """A recovery has moved nothing yet and never could: it ends halted, with everything as it is."""


class CannotBuild(AgentctlError):
    """The image of a candidate cannot be built from its own source: its failure, as a crash would be."""

    trigger = "build-failed"


class NoRoomForImage(AgentctlError):
    """The image of a candidate cannot be built now: the engine's disk is full."""

    trigger = "no-room-for-image"


class CommandFailed(AgentctlError):
    """An outside program ended badly; carries its argv, status and what it said."""

    def __init__(self, argv: list[str], status: int, stdout: bytes, stderr: bytes, why: str = ""):
        said = (stderr or stdout).decode("utf-8", "replace").strip()
        what = why or (f"signal {-status}" if status < 0 else f"exit status {status}")
        super().__init__(f"{' '.join(argv[:6])}: {what}" + (f": {said[-2000:]}" if said else ""))
        self.argv, self.status, self.stdout, self.stderr = argv, status, stdout, stderr


def in_words(error: Exception) -> str:
    """Return an error and its hint as two lines for the journal."""
    message = error.message if isinstance(error, AgentctlError) else f"{type(error).__name__}: {error}"
    hint = getattr(error, "hint", "")
    if not hint and is_full_disk(error):
        hint = "make room ('df -h' shows where it is missing); the agent is started again then"
    elif not hint and is_no_storage(error):
        hint = "'mount -o remount,rw' may bring it back, 'dmesg' tells why; the agent is started again then"
    return f"Error: {message}" + (f"\nHint:  {hint}" if hint else "")


def is_full_disk(error: Exception) -> bool:
    """Tell whether a full disk is behind it: then nothing that we do helps, and no code is to blame."""
    text = str(error)
    return any(words in text for words in ("No space left on device", "disk is full", "Disk quota exceeded",
                                           "Out of diskspace"))  # fmt: skip


def is_no_storage(error: Exception) -> bool:
    """Tell whether the disk takes no writes: full, or read-only."""
    text = str(error)
    return is_full_disk(error) or any(
        words in text for words in ("Read-only file system", "readonly database", "SQLITE_IOERR_SHM")
    )  # the last: no room beside the ledger


# -- mistakes --------------------------------------------------------------------------------------
# What is wrong in a configuration, in words.


class Mistake:
    """One thing wrong in a configuration: the key, the value found there, what is allowed."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        key = self.key if self.key.isprintable() else ascii(self.key)
        found = "" if self.value is None else f" = {shown(self.value)}"
        return f"{key}{found}: {self.allowed}"


class ConfigError(AgentctlError):
    """Everything that is wrong with one configuration, as `mistakes`."""

    def __init__(self, path: str, mistakes: list[Mistake], hint: str = "") -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        hint = hint or "'agentctl config sample' prints every setting with its limits"
        super().__init__(f"configuration {path} has {count}:{lines}", hint)
        self.path, self.mistakes = path, mistakes


def shown(value: object) -> str:
    """Return a value the way it stands in the file, cut to a readable length."""
    import json  # only a mistake or a document is shown

    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


# -- the store -------------------------------------------------------------------------------------
# What goes wrong with the store.


class StoreUnavailable(AgentctlError):
    """The store cannot take or give anything now: full, read-only, locked, damaged."""


class StoreTooNew(TooNew, StoreUnavailable):
    """A newer agentctl has written it."""
