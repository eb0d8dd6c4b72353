"""What the agent writes on its terminal: from the pane's FIFO, as clean lines, into the journal.

Refuses to be a terminal: it keeps one line and its cursor. A program that moves between lines
comes out as readable pieces, not as a picture; no escape code and no control character but the
tab ever gets through.
"""

from __future__ import annotations

import codecs
import os
import select
import time
from _collections import deque

from .journald import Journal
from .poll_loop import Loop

LONGEST_LINE = 8192  # characters; longer lines come out in pieces
FARTHEST_JUMP = 512  # columns: 8 bytes of cursor movement must not become 8 KiB of spaces
LONGEST_PARAMETERS = 64
LONGEST_RUN = 1024  # looked at in one go; without a bound, 64 KiB of controls would take seconds
REMEMBERED_LINES = 200  # for telling a redrawn screen from news
SCREEN_ROWS = 50

TEXT, ESCAPE, CHARSET, CONTROL, STRING = range(5)
STRING_OPENERS = "]PX^_k"  # OSC, DCS, SOS, PM, APC, and screen's title
ROW_CHANGERS = "ABEFHfd"


class LineStream:
    """Feed it bytes, get finished lines; the same lines however the bytes were cut into chunks."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines: list[str] = []
        self._line, self._column = "", 0
        self._state, self._parameters = TEXT, ""
        self._is_flushed = False  # the start of this line is out already
        self._redrawn_rows = 0  # rows below the cursor that were written before
        self._recent: dict[str, None] = {}

    @property
    def has_partial(self) -> bool:
        """Tell whether `flush` would return something."""
        return bool(self._line.strip())

    def feed(self, data: bytes) -> list[str]:
        """Take in `data` and return the lines it finished."""
        *finished, rest = self._decoder.decode(data).split("\n")
        for piece in finished:
            self._take(piece.rstrip("\r"))  # no news before a newline, but it would cost the fast path
            self._newline()
        self._take(rest)
        return self._handed_over()

    def flush(self) -> list[str]:
        """Return the unfinished line, if any: a prompt, or the end of the stream."""
        if self.has_partial:
            self._emit(self._line)
            self._line, self._column = "", 0
            self._is_flushed = True
        return self._handed_over()

    def _handed_over(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def _take(self, text: str) -> None:
        """Take in text without newlines. The loop visits runs of plain text and single controls."""
        at = 0
        while at < len(text):
            if self._state != TEXT:
                at += self._continue_sequence(text[at])
            elif (end := _end_of_plain(text, at)) > at:
                self._write(text[at:end])
                at = end
            else:
                self._obey(text[at])
                at += 1

    def _write(self, text: str) -> None:
        line, column = self._line, self._column
        if column == len(line):
            line += text
        else:
            line = line[:column].ljust(column) + text + line[column + len(text) :]
        column += len(text)
        while len(line) > LONGEST_LINE:
            self._emit(line[:LONGEST_LINE])
            line, column = line[LONGEST_LINE:], column - LONGEST_LINE
        self._line, self._column = line, column
        self._is_flushed = False

    def _obey(self, control: str) -> None:
        if control == "\x1b":
            self._state = ESCAPE
        elif control == "\r":
            self._column = 0
        elif control == "\b":
            self._column = max(0, self._column - 1)

    def _newline(self) -> None:
        self._state = TEXT  # also ends a broken escape sequence: it must not swallow what follows
        if not (self._is_flushed and not self._line):
            self._emit(self._line)
        self._line, self._column, self._is_flushed = "", 0, False
        self._redrawn_rows = max(0, self._redrawn_rows - 1)

    def _emit(self, line: str) -> None:
        line = line.rstrip(" ")
        if self._redrawn_rows and (not line or line in self._recent):
            return
        self._lines.append(line)
        self._recent.pop(line, None)
        self._recent[line] = None
        if len(self._recent) > REMEMBERED_LINES:
            del self._recent[next(iter(self._recent))]

    def _continue_sequence(self, char: str) -> int:
        """Take one character of an escape sequence; return how many of it were used: 1, or 0."""
        if char == "\x1b":
            self._state = ESCAPE  # also ST, the end of a string: ESC and a backslash
        elif char in "\x18\x1a":
            self._state = TEXT
        elif self._state == ESCAPE:
            self._open_sequence(char)
        elif self._state == CHARSET:
            self._state = CHARSET if " " <= char <= "/" else TEXT
        elif self._state == CONTROL:
            return self._continue_control(char)
        elif char == "\a":
            self._state = TEXT
        return 1

    def _open_sequence(self, char: str) -> None:
        self._parameters = ""
        if char == "[":
            self._state = CONTROL
        elif char in STRING_OPENERS:
            self._state = STRING
        elif " " <= char <= "/":
            self._state = CHARSET
        else:
            self._state = TEXT
            if char in "DEMc":  # index, next line, reverse index, reset
                self._leave_row(0)

    def _continue_control(self, char: str) -> int:
        if " " <= char <= "?" and len(self._parameters) < LONGEST_PARAMETERS:
            self._parameters += char
            return 1
        self._state = TEXT
        if not "@" <= char <= "~":
            return 0  # not a sequence after all
        if self._parameters[:1] not in ("?", ">", "<", "="):
            self._control(char)
        return 1

    def _control(self, final: str) -> None:
        numbers = [int(p) if p.isdecimal() else 0 for p in self._parameters.split(";")]
        count = min(max(1, numbers[0]), FARTHEST_JUMP)
        if final == "K":
            self._erase_in_line(numbers[0])
        elif final == "J":
            self._erase_screen(numbers[0])
        elif final == "C":
            self._column = max(self._column, min(self._column + count, FARTHEST_JUMP))
        elif final == "D":
            self._column = max(0, self._column - count)
        elif final in "G`":
            self._column = count - 1
        elif final == "P":
            self._line = self._line[: self._column] + self._line[self._column + count :]
        elif final in ROW_CHANGERS:
            self._change_row(final, count, numbers)

    def _erase_in_line(self, which: int) -> None:
        if which == 0:
            self._line = self._line[: self._column]
        elif which == 1:
            self._line = " " * min(self._column, len(self._line)) + self._line[self._column :]
        else:
            self._line = ""

    def _erase_screen(self, which: int) -> None:
        if which == 0:
            self._line = self._line[: self._column]
        else:
            self._leave_row(self._column)
            self._redrawn_rows = 0

    def _change_row(self, final: str, count: int, numbers: list[int]) -> None:
        column = self._column if final in "ABd" else 0
        if final in "Hf" and len(numbers) > 1:
            column = min(max(1, numbers[1]), FARTHEST_JUMP) - 1
        self._leave_row(column)
        if final in "BE":
            self._redrawn_rows = max(0, self._redrawn_rows - count)
        else:
            moved = count if final in "AF" else SCREEN_ROWS
            self._redrawn_rows = min(SCREEN_ROWS, self._redrawn_rows + moved)

    def _leave_row(self, column: int) -> None:
        if self._line.strip():
            self._emit(self._line)
        self._line, self._column = "", min(column, FARTHEST_JUMP)


def _end_of_plain(text: str, at: int) -> int:
    """Return where the plain text at `at` ends; asks about whole runs, as most are plain."""
    end = text.find("\x1b", at, at + LONGEST_RUN)
    end = min(len(text), at + LONGEST_RUN) if end < 0 else end
    run = text[at:end]
    if run.isprintable() or run.replace("\t", "").isprintable():
        return end
    for offset, char in enumerate(run):
        if (char < " " and char != "\t") or "\x7f" <= char <= "\x9f":
            return at + offset
    return end


# -- feed ------------------------------------------------------------------------------------------
# What the agent writes: from the pane's FIFO, as clean lines, into the journal; the last ones are kept.


KEPT_LINES = 400
DRAIN_SECONDS = 2.0  # what is left is in a `cat` that has to get the CPU first
FLUSH_IDLE_SECONDS = 0.3  # a prompt without a newline becomes a line after this


class PaneFeed:
    """Reads one launch's pane; `owner` is who may write to the FIFO."""

    def __init__(self, path: str, owner: tuple[int, int] | None, loop: Loop, journal: Journal) -> None:
        self._loop, self._journal = loop, journal
        self._stream = LineStream()
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.last_output_at = time.monotonic()
        self.drawn_at: float | None = None  # when its first line came: no mere control codes
        if os.path.isdir(path) and not os.path.islink(path):  # the agent made it; it must not hinder a launch
            os.rename(path, f"{path}.{os.urandom(4).hex()}")
        elif os.path.lexists(path):
            os.unlink(path)
        os.mkfifo(path, 0o600)
        if owner:  # the folder is the agent's: what stands there by now may be a link
            os.chown(path, *owner, follow_symlinks=False)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        loop.watch(self.fd, self.read)

    @property
    def is_open(self) -> bool:
        """Tell whether more may come; a FIFO that has hung up would wake a poll for ever."""
        return self._loop.watches(self.fd)

    def read(self) -> None:
        """Take what is there."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(self.fd)
            return
        self.last_output_at = time.monotonic()
        self._emit(self._stream.feed(data))
        self._loop.set_timer("flush", FLUSH_IDLE_SECONDS, self._flush)

    def drain(self) -> None:
        """Read what is still on its way after the end: tmux and its pipe are dead, so its end comes soon."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                select.select([self.fd], [], [], 0.02)
                continue
            if not data:
                break
            self._emit(self._stream.feed(data))
        self._flush()

    def _flush(self) -> None:
        self._emit(self._stream.flush())

    def _emit(self, lines: list[str]) -> None:
        if lines and self.drawn_at is None:
            self.drawn_at = time.monotonic()
        for line in lines:
            self.lines.append(line)
            self._journal.line(line)
