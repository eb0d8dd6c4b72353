"""What the stand-in is told to do, by files in its folder; each is taken by one request.

`stall`: stop in the middle of that answer, for ever; what is written in it is a pattern that the newest message has
to fit. `script/*.json`, in the order of their names: steps of a conversation, `{"when": PATTERN, "say": TEXT,
"call": [{"name": TOOL, "arguments": {...}}], "shell": COMMAND, "stall": true}`, each part optional. `shell` calls
whatever shell tool the agent offers. Only the first step is looked at, and only a request whose newest message fits
and that offers the tools takes it: what an agent asks beside (a title, a summary) is answered as ever.
"""

import json
import os
import re
import threading

from model_api.conversation import Answer, Call, compose

STALL_AFTER_WORDS = 6
SHELLS = ("bash", "shell", "terminal", "exec", "exec_command", "shell_command", "run_shell_command", "execute_bash")


class Orders:
    """The files in one folder. Requests come side by side; a file is taken once."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.taken = 0

    def answer(self, conversation):
        """Return the answer to a conversation, as the next order says or from what it holds."""
        with self.lock:
            made = self._take_step(conversation) or Answer(compose(conversation))
            if self._take_stall(conversation):
                made.stall_after = STALL_AFTER_WORDS
            return made

    def _take_stall(self, conversation):
        path = self.folder / "stall"
        if not path.exists() or not re.search(path.read_text().strip(), conversation.newest):
            return False
        path.unlink()
        return True

    def _take_step(self, conversation):
        path = min((self.folder / "script").glob("*.json"), default=None)
        if path is None:
            return None
        step = json.loads(path.read_text())
        if not re.search(step.get("when", ""), conversation.newest):
            return None
        wanted = [(call["name"], call.get("arguments", {})) for call in step.get("call", ())]
        if "shell" in step:
            wanted.append(find_shell(conversation, step["shell"]))
        if any(name is None or conversation.tool(name) is None for name, _ in wanted):
            return None
        os.rename(path, path.with_suffix(".taken"))
        self.taken += 1
        calls = [Call(name, arguments, f"call_{self.taken}_{place}") for place, (name, arguments) in enumerate(wanted)]
        say = step.get("say", "" if calls else compose(conversation))
        return Answer(say, calls, STALL_AFTER_WORDS if step.get("stall") else None)


def find_shell(conversation, command):
    """Return (name, arguments) of the tool that runs a command, (None, {}) if there is none."""
    found = [(tool.name, tool.arguments_for(command)) for tool in conversation.tools]
    shells = [(name, arguments) for name, arguments in found if arguments is not None]
    named = [shell for shell in shells if shell[0].lower() in SHELLS]
    return next(iter(named + shells), (None, {}))
