"""What the story claims, checked against the ledger, git and the conversation; no word of the log counts."""

import json

from mind import ABOUT, NAME, RESTARTED
from stage import command

KEEPS_UNANSWERED = {"nanobot"}  # llm writes a turn when it is complete; the one that promoted never was


def check(stage):
    """Yield (claim, is it so, what was found)."""
    facts = Facts(stage)
    for claim, look in CLAIMS:
        found, wanted = look(facts)
        yield claim, found == wanted, found
    if stage.kind in KEEPS_UNANSWERED:
        yield "its conversation is back: the wish of the beginning", *said_in(facts, "You run from ")
    yield "each restart was explained to it once, in words", *explained(facts)


class Facts:
    """What is on record."""

    def __init__(self, stage):
        self.stage = stage
        self.status, self.incidents = stage.ask("status"), stage.ask("incidents")
        self.generations = {row["number"]: row for row in stage.ask("generations")}
        self.changes = stage.ask("change", "list", "--all")
        self.incident = self.incidents[0] if self.incidents else {}
        self.asked = stage.mind.asked

    def git(self, *words):
        return command(["git", "-c", "safe.directory=*", "-C", self.stage.agent, *words], check=False).strip()


def one_incident(facts):
    found = [(i["trigger"], i["from"], i["to"], i["outcome"]) for i in facts.incidents]
    return found, [("crash-at-start", 2, 1, "recovered")]


def reason(facts):
    lines = " ".join(facts.incident.get("evidence", {}).get("last_lines", []))
    return "FileNotFoundError" in lines and "outbox/back.txt" in lines, True


def verdicts(facts):
    return {n: row["status"] for n, row in facts.generations.items()}, {1: "good", 2: "condemned", 3: "good"}


def one_change(facts):
    return [(c["name"], c["about"], c["state"], c["generation"]) for c in facts.changes], [(NAME, ABOUT, "blessed", 3)]


def steady(facts):
    return (facts.status["phase"], facts.status["last_known_good"]), ("steady", 3)


def on_main(facts):
    found = (facts.git("symbolic-ref", "--short", "HEAD"), facts.git("rev-parse", "HEAD"), facts.git("rev-parse", "v3"),
             facts.git("status", "--porcelain", "--untracked-files=all"))  # fmt: skip
    commit = facts.generations.get(3, {}).get("commit")
    return found, ("main", commit, commit, "")


def merged(facts):
    return facts.git("log", "--first-parent", "--format=%s", "-n", "1"), f"Merge {NAME}: {ABOUT}"


def two_commits(facts):
    return facts.git("rev-list", "--count", f"before/{NAME}..{NAME}"), "2"


def rescued(facts):
    return facts.git("rev-parse", f"rescue/{facts.incident.get('id')}"), facts.generations.get(2, {}).get("commit")


def outbox(facts):
    return (facts.stage.state / "outbox/back.txt").read_text(), "back as generation 3\n"


def said_in(facts, words):
    found = [text for text in facts.asked if words in text]
    return len(found) == 1, found


def explained(facts):
    """The rollback and the promotion, in the conversation that is left, and on disk before they were said."""
    heard = [json.dumps(text) for text in facts.asked if RESTARTED in text]
    return len(heard) == len(set(heard)) == (2 if facts.stage.kind in KEEPS_UNANSWERED else 1), heard


CLAIMS = (
    ("one thing went wrong, and it recovered", one_incident),
    ("what broke it is in the evidence", reason),
    ("the first version is condemned, the mended one is good", verdicts),
    ("both are the same change, and it is blessed", one_change),
    ("it runs as the mended version", steady),
    ("main, tag and HEAD are that version, nothing lies about", on_main),
    ("it is a merge of the agent's own branch", merged),
    ("of its three drafts two are commits: the hook refused the typo", two_commits),
    ("the condemned work is on a branch", rescued),
    ("what its person wished for is there", outbox),
)
