"""Read and check `agent.toml`; the only owner of tomllib.

Refuses a file with any mistake, and names all of them at once. The recovery path does without it as long as the
compiled copy is one of the present file: `load`.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping

from ..core.errors import ConfigError, Mistake
from . import schema
from .sections import Config

LIMIT_BYTES = 1 << 20
Document = dict[str, object]  # what a TOML file says: by section, and by name in it


def load(path: str) -> Config:
    """Return the configuration in `path`; raise ConfigError with everything that is wrong."""
    return load_with_stat(path)[0]


def load_with_stat(path: str) -> tuple[Config, os.stat_result]:
    """Return what `load` does, and what identifies the file that says so."""
    data, found = read(path)
    return check(parse(path, decode(path, data)), path), found


def load_known(path: str) -> Config:
    """Return what `load` does, but pass over settings that nobody here knows: they may be a newer version's."""
    document = parse(path, decode(path, read(path)[0]))
    known: Document = {
        section: {name: value for name, value in content.items() if f"{section}.{name}" in schema.BY_KEY}
        for section, content in document.items()
        if section in schema.SECTIONS and isinstance(content, dict)
    }
    return check(known, path)


def check(document: Mapping[str, object], path: str = "agent.toml") -> Config:
    """Return the configuration that a parsed document means; raise ConfigError as `load` does."""
    values, mistakes = schema.validate(document)
    if mistakes:
        raise ConfigError(path, mistakes)
    given: Document = {}
    for section, content in document.items():
        if isinstance(content, dict):  # as is each section of a document without a mistake
            given.update({f"{section}.{name}": value for name, value in content.items()})
    return Config(values, given)


def read(path: str) -> tuple[bytes, os.stat_result]:
    """Return a regular file's bytes and what identifies this state of it, or raise ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "'agentctl init' writes one" if isinstance(error, FileNotFoundError) else ""
        raise _unreadable(path, error.strerror or str(error), hint) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise _unreadable(path, "it is not a file", "name the agent.toml itself")
        if found.st_size > LIMIT_BYTES:
            raise _unreadable(path, f"it is larger than {LIMIT_BYTES} bytes")
        return os.read(fd, LIMIT_BYTES), found
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    finally:
        os.close(fd)


def _unreadable(path: str, why: str, hint: str = "") -> ConfigError:
    return ConfigError(path, [Mistake("file", None, f"cannot be read: {why}")], hint)


def decode(path: str, data: bytes) -> str:
    """Return the text of a file; raise ConfigError with line and column if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        mistake = Mistake("syntax", None, f"not UTF-8 (at line {line}, column {column})")
        raise ConfigError(path, [mistake], "save the file as UTF-8") from error


def parse(path: str, text: str) -> Document:
    """Return the document that a text holds; raise ConfigError if it is not TOML."""
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError names line and column
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        hint = "correct that line; 'agentctl config sample' shows how each is written"
        raise ConfigError(path, [Mistake("syntax", None, why)], hint) from error
