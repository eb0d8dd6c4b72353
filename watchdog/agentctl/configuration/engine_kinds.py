"""What the settings of the runtime `compose` have to look like. Pure."""

from __future__ import annotations

from . import kinds
from .kinds import Text

LETTERS_AND_DIGITS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _engine(text: str) -> str | None:
    path = text.removeprefix("unix://")
    if path != text:
        return text if kinds.PATH.fit(path) else None
    host, _, port = text.removeprefix("tcp://").rpartition(":")
    return text if text.startswith("tcp://") and host and port.isdigit() and " " not in host else None


def _image(text: str) -> str | None:
    """Hold the rough form of an image's name; the engine knows the rest."""
    is_fit = text[0] in LETTERS_AND_DIGITS and all(c.lower() in LETTERS_AND_DIGITS + "._-/:@" for c in text)
    return text if is_fit and len(text) <= 255 else None


MAYBE_PATH = Text("path", kinds.PATH.allowed, kinds.PATH.fit, True)
MAYBE_NAME = Text("text", kinds.NAME.allowed, kinds.NAME.fit, True)
IMAGE = Text("text", 'an image\'s name, such as "python:3.12-slim"', _image, True)
ENGINE = Text("text", 'an address such as "unix:///var/run/docker.sock" or "tcp://127.0.0.1:2375"', _engine)
CODE_PATH = Text("path", 'a path relative to agent.code, without ".."', kinds.CODE_PATHS.item.fit, True)
