"""The format of `current_task.md`: read it, change a part of it.

What nobody changed stays byte for byte as it was, sections unknown to us too. Refuses what is no
such file (TaskDamaged), and opens no file: it takes and gives text.
"""

from __future__ import annotations

from ..core.errors import AgentctlError

TITLE, CONTEXT, PENDING, STATE = (
    "Current Task",
    "Conversation Context",
    "Pending Actions",
    "State",
)


class TaskDamaged(AgentctlError):
    """The bytes are not a `current_task.md`."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"current_task.md is damaged: {why}",
            "a relaunch rebuilds it from the history and its last good version",
        )
        self.why = why


class Task:
    """One task: `objective`, `context`, `pending` as (done, text), `state`, other sections."""

    __slots__ = ("_newline", "_parts")

    def __init__(self, objective: str = "", context: str = "", pending=(), state: str = "") -> None:
        self._newline = "\n"
        names = (f"# {TITLE}\n", f"## {CONTEXT}\n", f"## {PENDING}\n", f"## {STATE}\n")
        self._parts = [[name, "\n"] for name in names]  # raw heading, raw body
        self._parts[-1][1] = ""
        self.objective, self.context, self.pending, self.state = objective, context, pending, state

    def render(self) -> str:
        """Return the whole file."""
        return "".join(heading + body for heading, body in self._parts)

    @property
    def objective(self) -> str:
        """What all this is for: the text under the title."""
        return _value(self._parts[0][1])

    @objective.setter
    def objective(self, text: str) -> None:
        self._set_text(0, text)

    @property
    def context(self) -> str:
        """The last messages or key points."""
        return self.section(CONTEXT) or ""

    @context.setter
    def context(self, text: str) -> None:
        self.set_section(CONTEXT, text)

    @property
    def state(self) -> str:
        """Whatever the agent needs to go on."""
        return self.section(STATE) or ""

    @state.setter
    def state(self, text: str) -> None:
        self.set_section(STATE, text)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Every `## ` section in its order, as (name, text)."""
        return [(_name(heading), _value(body)) for heading, body in self._parts[1:]]

    def section(self, name: str) -> str | None:
        """Return the text of the first section called `name`, None if there is none."""
        index = self._find(name)
        return None if index is None else _value(self._parts[index][1])

    def set_section(self, name: str, text: str) -> None:
        """Replace the text of a section, or add it where it belongs (unknown ones at the end)."""
        index = self._find(name)
        if index is None and not text:
            return
        self._set_text(self._add(name) if index is None else index, text)

    @property
    def pending(self) -> list[tuple[bool, str]]:
        """The checkboxes of Pending Actions as (done, text)."""
        index = self._find(PENDING)
        lines = [] if index is None else _lines(self._parts[index][1])
        return [item for item in map(_item, lines) if item is not None]

    @pending.setter
    def pending(self, actions) -> None:
        wanted = [(bool(done), text) for done, text in actions]
        if wanted == self.pending:
            return
        index = self._find(PENDING)
        index = self._add(PENDING) if index is None else index
        self._end_heading(index)
        head, blocks, tail = _blocks(_lines(self._parts[index][1]))
        if not tail and index + 1 < len(self._parts):
            tail = [self._newline]
        lines = head + [line for item in wanted for line in self._block(item, blocks)] + tail
        self._parts[index][1] = "".join(lines)

    def next_action(self) -> str | None:
        """Return the first action that is not done."""
        return next((text for done, text in self.pending if not done), None)

    def _block(self, item: tuple[bool, str], blocks: list[list[str]]) -> list[str]:
        """Return the lines of `item`: those it had, notes and all, the box set; or a new one."""
        done, text = item
        for number, block in enumerate(blocks):
            was_done, was_text = _item(block[0])
            if was_text != text:
                continue
            del blocks[number]
            if was_done != done:
                box = block[0].index("[") + 1
                block[0] = block[0][:box] + ("x" if done else " ") + block[0][box + 1 :]
            if not block[-1].endswith("\n"):
                block[-1] += self._newline
            return block
        return [f"- [{'x' if done else ' '}] {' '.join(_clean(text).split())}{self._newline}"]

    def _find(self, name: str) -> int | None:
        wanted = name.strip().casefold()
        for index in range(1, len(self._parts)):
            if _name(self._parts[index][0]).casefold() == wanted:
                return index
        return None

    def _add(self, name: str) -> int:
        order = (CONTEXT, PENDING, STATE)
        at = len(self._parts)
        if name in order:
            before = (self._find(earlier) or 0 for earlier in order[: order.index(name)])
            at = 1 + max(before, default=0)
        self._end_heading(at - 1)
        before_it = self._parts[at - 1]
        lines = _lines("".join(before_it))
        if not lines[-1].endswith("\n"):
            before_it[1] += self._newline
        if lines[-1].strip():
            before_it[1] += self._newline
        is_last = at == len(self._parts)
        heading = f"## {' '.join(_clean(name).split())}{self._newline}"
        self._parts.insert(at, [heading, "" if is_last else self._newline])
        return at

    def _end_heading(self, index: int) -> None:
        if not self._parts[index][0].endswith("\n"):
            self._parts[index][0] += self._newline

    def _set_text(self, index: int, text: str) -> None:
        body = self._parts[index][1]
        current = _value(body)
        text = text if text == current else _clean(text)
        if text == current:
            return
        self._end_heading(index)
        is_last = index + 1 == len(self._parts)
        lead, trail = _margins(body)
        if not current:
            lead, trail = "", self._newline * (1 if is_last else 2)
        if not text:
            lead, trail = "", "" if is_last else self._newline
        raw = self._newline.join(_escape(line) for line in text.split("\n"))
        self._parts[index][1] = lead + raw + trail


def parse(text: str) -> Task:
    """Return the task that `text` holds; raise TaskDamaged if it is no `current_task.md`."""
    if not text.strip("\ufeff \t\r\n"):
        raise TaskDamaged("it is empty")
    if "\0" in text:
        raise TaskDamaged("it holds NUL bytes, as a file does after a power cut")
    parts = [["", ""]]
    for line in _lines(text):
        if line.startswith("## "):
            parts.append([line, ""])
        elif parts[0][0] or len(parts) > 1:
            parts[-1][1] += line
        else:  # no title yet: what stands above it is kept with it
            parts[0][1] += line
            if line.lstrip("\ufeff").startswith("# "):
                parts[0] = [parts[0][1], ""]
    if not parts[0][0]:
        raise TaskDamaged("it has no '# ' title above its sections")
    task = Task.__new__(Task)
    task._parts = parts
    task._newline = "\r\n" if parts[0][0].endswith("\r\n") else "\n"
    return task


def parse_bytes(data: bytes) -> Task:
    """Return the task that `data` holds; raise TaskDamaged, also if it is not UTF-8."""
    try:
        return parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TaskDamaged(f"byte {error.start} is not UTF-8") from None


def is_task(data: bytes) -> bool:
    """Tell whether `data` is a `current_task.md`."""
    try:
        parse_bytes(data)
    except TaskDamaged:
        return False
    return True


def _lines(text: str) -> list[str]:
    """Split at newlines only, keeping them: str.splitlines also splits at form feeds and more."""
    parts = text.split("\n")
    return [part + "\n" for part in parts[:-1]] + parts[-1:] * bool(parts[-1])


def _name(heading: str) -> str:
    return heading[3:].strip().rstrip("#: ")


def _margins(body: str) -> tuple[str, str]:
    """Return the blank lines above the text of `body`, and all the white space below it."""
    lead = ""
    for line in _lines(body):
        if line.strip():
            break
        lead += line
    return lead, body[len(body.rstrip()) :] if len(lead) < len(body) else ""


def _value(body: str) -> str:
    lead, trail = _margins(body)
    text = body[len(lead) : len(body) - len(trail)].replace("\r\n", "\n")
    return "\n".join(map(_unescape, text.split("\n")))


def _clean(text: str) -> str:
    """Return `text` as the file can hold it: no NUL, no lone surrogate, one kind of newline."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip()
    return text[len(_margins(text)[0]) :]


def _escape(line: str) -> str:
    """Keep a line of text that looks like a section from becoming one."""
    return "\\" + line if line.lstrip("\\").startswith("## ") else line


def _unescape(line: str) -> str:
    is_escaped = line.startswith("\\") and line.lstrip("\\").startswith("## ")
    return line[1:] if is_escaped else line


def _item(line: str) -> tuple[bool, str] | None:
    text = line.lstrip(" \t")
    is_item = text[:3] in ("- [", "* [", "+ [") and text[3:5] in (" ]", "x]", "X]")
    if not is_item or text[5:6].strip():
        return None
    return text[3] != " ", text[5:].strip()


def _blocks(lines: list[str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Split a list into what is above it, each action with its notes, and the blank end."""
    tail: list[str] = []
    while lines and not lines[-1].strip():
        tail.insert(0, lines.pop())
    head: list[str] = []
    blocks: list[list[str]] = []
    for line in lines:
        if _item(line) is not None:
            blocks.append([line])
        else:
            (blocks[-1] if blocks else head).append(line)
    return head, blocks, tail


# -- task rebuild ----------------------------------------------------------------------------------
# Make a `current_task.md` of its last good version and the newest messages; it says that it is.
# Refuses nothing: without a version or a message it says what is unknown. Opens no file.


REBUILT = "> Rebuilt by agentctl at "
EARLIER = "### From the last saved version"
MOST_MESSAGES, MOST_CHARACTERS = 20, 2000  # of a rebuilt context; the history has the rest


def rebuild(last_version: bytes | None, messages: list[dict], why: str, at: str) -> str:
    """Return a task file made of the last version and the newest messages; it says that it is."""
    task, version = None, "there is no earlier version, the objective is the last message of a user"
    if last_version is not None:
        try:
            task = parse_bytes(last_version)
            version = "the last saved version gave all but this section"
        except TaskDamaged as damage:
            version = f"the last saved version is damaged ({damage.why})"
    if task is None:
        task = Task(objective=_last_wish(messages))
    newest = messages[-1].get("at", "an unknown time") if messages else None
    seen = f"the newest message is of {newest}" if messages else "there are no messages"
    note = f"{REBUILT}{at} because {why}; {version}; {seen}."
    told = [" ".join(note.split()), "\n".join(map(_told, messages[-MOST_MESSAGES:]))]
    earlier = _earlier_context(task.context)
    if earlier:
        told.append(f"{EARLIER}\n{earlier}")
    task.context = "\n\n".join(part for part in told if part)
    return task.render()


def _earlier_context(context: str) -> str:
    """Return what the agent itself wrote there: rebuilding a rebuilt file must not nest."""
    if not context.startswith(REBUILT):
        return context
    return context.partition(f"\n{EARLIER}\n")[2]


def _last_wish(messages: list[dict]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            return _content(message)
    return "Unknown: neither a saved task nor a message of a user was found. Ask before acting."


def _told(message: dict) -> str:
    text = _content(message)
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + " [... the history has the rest]"
    return f"- {message.get('role', 'unknown')}: " + text.replace("\n", "\n  ")


def _content(message: dict) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content.replace("\r\n", "\n").strip()
    import json

    return json.dumps(content, ensure_ascii=False, default=str)
