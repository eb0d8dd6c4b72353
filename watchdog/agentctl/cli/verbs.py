"""The table of verbs: where each lives and what it does, so that help need not import them.

`agentctl --help` and docs/cli.md follow it. Imports nothing.
"""

from __future__ import annotations

HERE = "agentctl.cli"


class Verb:
    """One verb: the heading it stands under, its name, its place, one sentence."""

    __slots__ = ("help", "module", "name", "object", "section")

    def __init__(self, section: str, name: str, place: str, sentence: str) -> None:
        self.section, self.name, self.help = section, name, sentence
        module, _, self.object = place.partition(":")
        self.module = f"{HERE}.{module}"


LOOK, RUN, CHANGE, RECOVER, STATE, SET_UP = "Look", "Run", "Change", "Recover", "State", "Set up"

TABLE = (
    Verb(LOOK, "status", "status:status", "Is it well, what runs, since when, what happens next."),
    Verb(LOOK, "why", "why:why", "Tell the story of an incident, with its evidence."),
    Verb(LOOK, "incidents", "incidents:incidents", "List what went wrong, newest first."),
    Verb(LOOK, "generations", "generations:generations", "List the generations and their fate."),
    Verb(LOOK, "diff", "generations:diff", "Show what changed between two generations."),
    Verb(LOOK, "logs", "logs:logs", "Show the journal of all units, merged."),
    Verb(RUN, "start", "control:start", "Start the agent."),
    Verb(RUN, "stop", "control:stop", "Stop the agent; it saves first."),
    Verb(RUN, "restart", "control:restart", "Save and restart; works from inside the agent."),
    Verb(RUN, "attach", "control:attach", "Open the agent's tmux session."),
    Verb(RUN, "supervise", "supervise:supervise", "Keep the agent alive in the foreground."),
    Verb(RUN, "watchdog", "watchdog:watchdog", "Serve the API and watch, in the foreground."),
    Verb(CHANGE, "change", "change:group", "Change the source the safe way: start to promote."),
    Verb(CHANGE, "confirm", "confirm:confirm", "Say in time that the promoted version is to stay."),
    Verb(CHANGE, "protocol", "protocol:protocol", "Print how an agent changes itself safely."),
    Verb(RECOVER, "rollback", "recover:rollback", "Go back to a good generation, or undo that."),
    Verb(RECOVER, "bless", "recover:bless", "Declare a generation good."),
    Verb(RECOVER, "condemn", "recover:condemn", "Declare a generation bad."),
    Verb(RECOVER, "pin", "recover:pin", "Make a good generation the golden one."),
    Verb(RECOVER, "unpin", "recover:unpin", "Take the pin off the golden generation."),
    Verb(RECOVER, "pause", "recover:pause", "Watch, but do not act."),
    Verb(RECOVER, "resume", "recover:resume", "Act again after a pause, or after halted."),
    Verb(STATE, "task", "state:task", "Show or edit the agent's current task."),
    Verb(STATE, "history", "state:history", "Read, search, export or import the conversation."),
    Verb(STATE, "prune", "prune:prune", "Show, and with --yes free, what is over its budget."),
    Verb(STATE, "snapshot", "state:snapshot", "Take, list or restore snapshots of the state."),
    Verb(SET_UP, "presets", "presets:presets", "List what is known of the agents people run."),
    Verb(SET_UP, "hook", "hook:hook", "Pass on what an agent's own hook says."),
    Verb(SET_UP, "init", "adopt:init", "Adopt a git repository as an agent."),
    Verb(SET_UP, "install", "install:install", "Write the units from agent.toml."),
    Verb(SET_UP, "uninstall", "install:uninstall", "Remove the units, nothing of the agent's."),
    Verb(SET_UP, "token", "token:token", "Create, list or revoke tokens for the watchdog's API."),
    Verb(SET_UP, "config", "config:group", "Show, check and change agent.toml."),
)

BY_NAME = {verb.name: verb for verb in TABLE}
