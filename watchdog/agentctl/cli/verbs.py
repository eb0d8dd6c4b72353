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
    Verb(LOOK, "status", "agent_verbs:status", "Is it well, what runs, since when, what happens next."),
    Verb(LOOK, "why", "incident_verbs:why", "Tell the story of an incident, with its evidence."),
    Verb(LOOK, "incidents", "incident_verbs:incidents", "List what went wrong, newest first."),
    Verb(LOOK, "generations", "generation_verbs:generations", "List the generations and their fate."),
    Verb(LOOK, "diff", "generation_verbs:diff", "Show what changed between two generations."),
    Verb(LOOK, "logs", "agent_verbs:logs", "Show the journal of all units, merged."),
    Verb(RUN, "start", "agent_verbs:start", "Start the agent."),
    Verb(RUN, "stop", "agent_verbs:stop", "Stop the agent; it saves first."),
    Verb(RUN, "restart", "agent_verbs:restart", "Save and restart; works from inside the agent."),
    Verb(RUN, "attach", "agent_verbs:attach", "Open the agent's tmux session."),
    Verb(RUN, "supervise", "agent_verbs:supervise", "Keep the agent alive in the foreground."),
    Verb(RUN, "watchdog", "agent_verbs:watchdog", "Serve the API and watch, in the foreground."),
    Verb(CHANGE, "change", "change_verbs:group", "Change the source the safe way: start to promote."),
    Verb(CHANGE, "confirm", "change_verbs:confirm", "Say in time that the promoted version is to stay."),
    Verb(CHANGE, "protocol", "init_verbs:protocol", "Print how an agent changes itself safely."),
    Verb(RECOVER, "rollback", "rollback_verbs:rollback", "Go back to a good generation, or undo that."),
    Verb(RECOVER, "bless", "rollback_verbs:bless", "Declare a generation good."),
    Verb(RECOVER, "condemn", "rollback_verbs:condemn", "Declare a generation bad."),
    Verb(RECOVER, "pin", "rollback_verbs:pin", "Make a good generation the golden one."),
    Verb(RECOVER, "unpin", "rollback_verbs:unpin", "Take the pin off the golden generation."),
    Verb(RECOVER, "pause", "rollback_verbs:pause", "Watch, but do not act."),
    Verb(RECOVER, "resume", "rollback_verbs:resume", "Act again after a pause, or after halted."),
    Verb(STATE, "task", "state_verbs:task", "Show or edit the agent's current task."),
    Verb(STATE, "history", "state_verbs:history", "Read, search, export or import the conversation."),
    Verb(STATE, "prune", "generation_verbs:prune", "Show, and with --yes free, what is over its budget."),
    Verb(STATE, "snapshot", "state_verbs:snapshot", "Take, list or restore snapshots of the state."),
    Verb(SET_UP, "presets", "init_verbs:presets", "List what is known of the agents people run."),
    Verb(SET_UP, "hook", "hook_verbs:hook", "Pass on what an agent's own hook says."),
    Verb(SET_UP, "init", "init_verbs:init", "Adopt a git repository as an agent."),
    Verb(SET_UP, "install", "init_verbs:install", "Write the units from agent.toml."),
    Verb(SET_UP, "uninstall", "init_verbs:uninstall", "Remove the units, nothing of the agent's."),
    Verb(SET_UP, "token", "token_verbs:token", "Create, list or revoke tokens for the watchdog's API."),
    Verb(SET_UP, "config", "config_verbs:group", "Show, check and change agent.toml."),
)

BY_NAME = {verb.name: verb for verb in TABLE}
