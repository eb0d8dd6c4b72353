"""Load the settings: from a compiled copy while that one is of the present `agent.toml`, which saves parsing.

On the recovery path: what reads and checks TOML is imported only where the copy will not do; tomllib takes 25 ms.
"""

from __future__ import annotations

import os
import stat

from ..core import durable, fast_json
from ..core.errors import ConfigError
from .sections import KEYS, Config

FORMAT = 2  # of the compiled copy; raise it when a value's meaning changes
LIMIT_BYTES = 1 << 20


def load_compiled(toml_path: str, cache_path: str) -> Config:
    """Return what `toml_file.load` would, from the compiled copy while that one is of this very file.

    The copy belongs into a folder that only those who may write the file can write.
    """
    compiled = _read_compiled(toml_path, cache_path)
    if compiled is not None and compiled[1] == _stamp_of(toml_path):
        return compiled[0]
    from . import toml_file

    config, found = toml_file.load_with_stat(toml_path)
    _write_compiled(cache_path, config, found)
    return config


def load_last_valid(toml_path: str, cache_path: str) -> tuple[Config, str]:
    """Return the configuration, and "" or what is wrong with the file if an older one had to do.

    Without a compiled copy of a valid one, settings that nobody here knows are passed over: they may be a newer
    version's. Raise ConfigError if the file is wrong otherwise.
    """
    try:
        return load_compiled(toml_path, cache_path), ""
    except ConfigError as error:
        compiled = _read_compiled(toml_path, cache_path)
        if compiled is not None:
            return compiled[0], error.message
        from . import toml_file

        return toml_file.load_known(toml_path), error.message


def _stamp_of(path: str) -> list[int] | None:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(found: os.stat_result) -> list[int]:
    # ctime too: it moves when a copy with preserved times replaces the content in place.
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _read_compiled(toml_path: str, cache_path: str) -> tuple[Config, object] | None:
    """Return the compiled copy and its stamp, or None: missing, damaged, of another table.

    One that somebody could write who could not write the file itself is not believed either.
    """
    try:
        data, found = _read(cache_path)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022 or found.st_uid not in _trusted(toml_path):
            return None
        copy = fast_json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(copy, dict) or copy.get("format") != FORMAT:
        return None
    values, given = copy.get("values"), copy.get("given")
    if not isinstance(values, dict) or not isinstance(given, dict) or values.keys() != KEYS or "stamp" not in copy:
        return None
    return Config(values, given), copy["stamp"]


def _read(path: str) -> tuple[bytes, os.stat_result]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, LIMIT_BYTES), os.fstat(fd)
    finally:
        os.close(fd)


def _trusted(toml_path: str) -> tuple[int, ...]:
    try:
        return (0, os.geteuid(), os.stat(toml_path).st_uid)
    except OSError:
        return (0, os.geteuid())


def _write_compiled(cache_path: str, config: Config, found: os.stat_result) -> None:
    copy = {"format": FORMAT, "stamp": _stamp(found), "given": config.given}
    data = fast_json.dumps(copy | {"values": config.values}).encode()
    mode = stat.S_IMODE(found.st_mode) & 0o644  # it holds the same secrets as the file
    try:
        durable.write(cache_path, data, mode, (found.st_uid, found.st_gid))
    except OSError:
        return  # the next load parses again
