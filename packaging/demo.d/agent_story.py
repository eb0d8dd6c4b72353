"""The story of `packaging/demo --agent NAME`: it changes itself, breaks, is told why, mends the change."""

import time

import claims
from agent_stage import AgentStage
from stage import StoryFailed
from story import Story, end, show_timeline
from voices import Events, instant

LIMIT_SECONDS = 240


class AgentStory(Story):
    """Follows the agent until its wish is done, and what the ledger says of it is settled."""

    def __init__(self, runtime, kind, venv):
        self.marks = {}
        super().__init__(AgentStage(runtime, kind, venv, self.hear))

    def play(self):
        """Set the stage, follow what happens, show the times, and check what is claimed."""
        self.stage.set_up()
        self.follow(Events(self.stage.start()))
        show_timeline(self.timeline(), since="wish")
        check_claims(self.stage)

    def incident(self):
        return self.stage.ask("incidents")[0]

    def hear(self, who, what):
        """What the mind thinks and does is an event like the others."""
        self.marks.setdefault(what, time.time())
        self.events.queue.put((time.time(), who, what))

    def follow(self, events):
        self.events = events
        print(f"\n{'second':>7}  {'who':<9} what", flush=True)
        self.hear("person", self.stage.wish())
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.stage.mind.ended or self.stage.ask("status")["phase"] != "steady":
            if time.monotonic() > deadline:
                raise StoryFailed(f"it was not done within {LIMIT_SECONDS} s; its screen:\n{self.stage.screen()}")
            self.show(events)
            time.sleep(0.05)
        self.finished_at = time.time()
        self.show(events, 0)
        if self.stage.mind.complaint:
            raise StoryFailed(self.stage.mind.complaint)

    def take(self, at, who, what):
        """Of the agent's screen only errors: what it does and says comes from the mind itself."""
        if who != "agent" or "Error" in what or what == self.stage.mind.ended:
            super().take(at, who, what)

    def timeline(self):
        facts = claims.Facts(self.stage)
        first, second = (facts.generations[n] for n in (2, 3))
        incident, steps = facts.incident, {s["name"]: s for s in facts.incident["steps"]}
        return sorted([
            (instant(self.first("You run from")), "its person says what is wanted"),
            (instant(facts.changes[0]["started_at"]), "the change is begun, in a worktree of its own"),
            (instant(first["created_at"]), "checked, tried, reviewed: generation 2 is promoted"),
            (instant(incident["at"]), "it fails as soon as it is live"),
            (end(steps["switch"]), "the trees are switched"),
            (instant(incident["at"]) + incident["seconds"], "recovered: generation 1 is at work again"),
            (instant(self.first("I was rolled back")), "it has been told why, and reads the brief"),
            (instant(second["created_at"]), "mended, and through all gates: generation 3 is promoted"),
            (instant(second["blessed_at"]), "generation 3 has proved itself: blessed"),
            (self.finished_at, "its person is told"),
        ])  # fmt: skip

    def first(self, words):
        return next((at for what, at in self.marks.items() if what.startswith(words)), None)


def check_claims(stage):
    """Print each claim with what came of it; raise StoryFailed if one is not so."""
    print("\nWhat is claimed, and what the ledger, git and the conversation say\n")
    wrong = []
    for claim, is_so, found in claims.check(stage):
        print(f"  {'ok' if is_so else 'WRONG':<6} {claim}")
        wrong += [] if is_so else [f"{claim}: {found}"]
    if wrong:
        raise StoryFailed("not so: " + "; ".join(wrong))
