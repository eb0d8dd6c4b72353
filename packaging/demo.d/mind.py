"""The mind of the demo's agent: a script where a real one has a model. It reads what it is sent and acts on that.

The agent around it is real: it sends its conversation and runs the commands it is answered with. Where an answer
is not what the script can make sense of, it says so and does no more: the story ends there.
"""

import re
import threading

import drafts

from model_api.conversation import Answer, Call, compose
from model_api.orders import find_shell

NAME, ABOUT = "feature/outbox", "leave a line in the outbox at every start"
WISH = (
    "You run from {code}. Please leave a line in outbox/back.txt in your state folder at every start, so that I see "
    "when you are back. Your SELF_MODIFICATION.md tells how to change yourself."
)
RESTARTED = "[agentctl] You were restarted"
VERBS = ("start", "check", "try", "review", "promote")


class AtALoss(Exception):
    """What came is nothing that the script understands."""


class Mind:
    """Answers one request after the other; `tell(who, what)` is told what it thinks and does."""

    def __init__(self, tell):
        self.tell, self.lock = tell, threading.Lock()
        self.ended = self.complaint = ""
        self.asked, self.calls = [], 0
        self.thoughts = self.live()
        next(self.thoughts)

    def answer(self, conversation):
        """Return the answer to a request; what offers no shell is asked beside the conversation."""
        with self.lock:
            name, _ = find_shell(conversation, "")
            if name is None or self.ended:
                return Answer(compose(conversation))
            self.asked = conversation.asked
            try:
                command = self.thoughts.send(conversation.newest)
            except StopIteration as end:
                self.ended = end.value
                self.tell("agent", self.ended)
                return Answer(self.ended)
            except AtALoss as loss:
                self.ended = self.complaint = f"I am at a loss: {loss}"
                return Answer(self.complaint)
            name, arguments = find_shell(conversation, command)
            self.calls += 1
            return Answer("", [Call(name, arguments, f"call_{self.calls}")])

    # -- what it does: each yield is a command, and comes back with what it said ------------------------

    def live(self):
        wish = yield
        code = expect(r"You run from (\S+)\. ", wish)[1]
        self.think("my person wants a line in the outbox at every start")
        self.steps = read_protocol((yield self.run(f"cat {code}/SELF_MODIFICATION.md")))
        self.think(f"so it goes: {', '.join(self.steps)}")
        began = yield self.run(self.step("start", ABOUT))
        self.folder = expect(r"worktree +(/\S+)", began)[1]
        said = yield self.write(drafts.TYPO, "Leave a line in the outbox")
        draft = self.mended(drafts.TYPO, said, "the commit was refused")
        expect(r"Exit code: 0", (yield self.write(draft, "Leave a line in the outbox")))
        yield from self.pass_gates("+def announce(state):")
        restarted = yield self.run(self.step("promote"))
        brief = expect(r"read (/\S+/BRIEF\.md) first", expect_restart(restarted))[1]
        self.think("I was rolled back; the brief tells why")
        text = yield self.run(f"cat {brief}")
        name, self.folder = expect(r"it was the change `(\S+?)`.*worktree is\s+`(\S+)`", text).groups()
        draft = self.mended(draft, text, f"{name} failed once it was live")
        mended = yield self.write(draft, "Make the outbox before writing to it")
        expect(r"Exit code: 0", mended)
        yield from self.pass_gates("mkdir")
        restarted = yield self.run(f"rm {brief}; {self.step('promote')}")
        if "BRIEF.md" in expect_restart(restarted):
            raise AtALoss("rolled back again")
        self.think("I run as the mended version; is it good?")
        self.tell("shell", "$ agentctl change list --all (every second)")
        listed = "on probation"
        while "on probation" in listed:
            listed = yield "sleep 1; agentctl change list --all"
        self.note(expect(rf"{NAME} +blessed +as generation \d+|{NAME} +blessed.*", listed))
        return "Done: it is blessed. You find a line in outbox/back.txt whenever I am back."

    def pass_gates(self, wanted):
        """Go through check, try and review; each has to say that it is well."""
        checked = yield self.run(self.step("check"))
        expect(r"ok +syntax(.|\n)*Exit code: 0", checked)
        self.note(re.search(r"ok +tests.*", checked) or expect(r"ok +syntax.*", checked))
        self.note(expect(r"it held for.*", (yield self.run(self.step("try")))))
        seen = yield self.run(self.step("review"))
        if wanted not in seen:
            raise AtALoss(f"the difference under review is not mine: {seen[-500:]}")
        noted = yield self.run(self.step("review", "read it line by line: it does what was asked"))
        self.note(expect(r"reviewed by.*", noted))

    def write(self, source, message):
        """Return the command that writes the habits and commits them."""
        return self.run(
            f"cd {self.folder} && cat >habits.py <<'END'\n{source}END\ngit commit -qam '{message}'",
            shown=f"(writes habits.py, {len(source.splitlines())} lines) git commit -m '{message}'",
        )

    def mended(self, draft, said, what):
        better = drafts.mend(draft, said)
        if better is None:
            raise AtALoss(f"{what}, and I do not know why: {said[-800:]}")
        reason = re.search(r"\w+Error: .*|syntax:\s.*", said)[0]
        self.think(f"{what}: {' '.join(reason.split())}")
        return better

    def step(self, verb, text=""):
        """Return a command of the protocol for this change; its sentence in quotes becomes `text`."""
        line = self.steps[verb].replace("feature/NAME", NAME)
        return re.sub(r'"[^"]*"', lambda _: f'"{text}"', line) if text else re.sub(r' --\w+ ".*', "", line)

    def run(self, command, shown=""):
        self.tell("shell", f"$ {shown or command}")
        return command

    def note(self, found):
        """Show the line of an answer that counts."""
        self.tell("shell", f"  {' '.join(found[0].split())}")

    def think(self, what):
        self.tell("model", what)


def read_protocol(text):
    """Return the command of each step as the document has it."""
    steps = {}
    for verb in VERBS:
        lines = [line.strip() for line in text.splitlines() if f"agentctl change {verb} " in line]
        if not lines:
            raise AtALoss(f"the protocol does not say how to {verb}: {text[-500:]}")
        steps[verb] = max(lines, key=len)
    return steps


def expect(pattern, text):
    found = re.search(pattern, text)
    if found is None:
        raise AtALoss(f"expected /{pattern}/ in: {text[-1500:]}")
    return found


def expect_restart(text):
    """Return the message after a restart; anything else means that the promotion was refused."""
    return expect(rf"{re.escape(RESTARTED)}.*", text)[0]
