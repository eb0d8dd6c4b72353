"""What every wire format carries, in one form: what was said, which tools are offered, and the answer to it."""

import re
from dataclasses import dataclass, field

CODE_WORD = re.compile(r"code word is (\w+)")
COMMAND_KEYS = ("command", "cmd")


@dataclass
class Tool:
    """A tool the agent offers: its name, and the JSON schema of its arguments."""

    name: str
    schema: dict = field(default_factory=dict)

    def arguments_for(self, command):
        """Return the arguments that run a shell command, None if it is no shell."""
        known = self.schema.get("properties") or {}
        key = next((k for k in COMMAND_KEYS if k in known), None)
        if key is None:
            return None
        needed = [k for k in self.schema.get("required") or () if k != key]
        is_list = known[key].get("type") == "array"
        filled = {k: fill(known.get(k, {})) for k in needed}
        return {key: ["bash", "-lc", command] if is_list else command} | filled


@dataclass
class Conversation:
    """One request: what the user said, message by message; the newest thing said or returned; the tools offered."""

    asked: list[str]
    newest: str
    tools: list[Tool]

    def tool(self, name):
        """Return the offered tool of that name, None if it is not offered."""
        return next((tool for tool in self.tools if tool.name == name), None)


@dataclass
class Call:
    """A tool call in an answer."""

    name: str
    arguments: dict
    id: str


@dataclass
class Answer:
    """What the model says and calls; `stall_after` is the number of words after which it says no more, ever."""

    text: str
    calls: list[Call] = field(default_factory=list)
    stall_after: int | None = None

    @property
    def words(self):
        """The text in the pieces in which it is streamed."""
        first, *others = self.text.split(" ")
        return [first, *(f" {word}" for word in others)]


def compose(conversation):
    """Answer with what the conversation holds: how many user messages, and every code word in them."""
    known = [word for text in conversation.asked for word in CODE_WORD.findall(text)]
    count = len(conversation.asked)
    return f"I was sent {count} of your messages and know these code words: {' '.join(known) or 'none'} ."


def text_of(content):
    """Return a message's text: it is a string, or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text") or "" for part in content or () if isinstance(part, dict))


def fill(schema):
    """Return the smallest value that a schema takes; what a tool demands beside its command is of no importance."""
    kind = schema.get("type")
    if schema.get("enum"):
        return schema["enum"][0]
    return {"boolean": False, "integer": 1, "number": 1, "array": [], "object": {}}.get(kind, "as asked")
