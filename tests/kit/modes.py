"""Have the modes of files bind root, too: a test of what may not be read runs as whoever runs the tests."""

from __future__ import annotations

import contextlib
import ctypes

VERSION_3 = 0x20080522  # linux/capability.h: two words of each set
OVERRIDING = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class Word(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


@contextlib.contextmanager
def binding():
    """Within, this thread may open only what the modes allow its user."""
    header, words = Header(VERSION_3, 0), (Word * 2)()
    _call("capget", header, words)
    before = words[0].effective
    words[0].effective = before & ~OVERRIDING
    _call("capset", header, words)
    try:
        yield
    finally:
        words[0].effective = before
        _call("capset", header, words)


def _call(name: str, header: Header, words) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(ctypes.byref(header), words):
        raise OSError(ctypes.get_errno(), f"{name} failed")
