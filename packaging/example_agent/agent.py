"""An example agent: works through a list of actions, changes its own source, survives its mistakes.

There is no model behind it; its mind is the list "Pending Actions" of its task. One action a tick,
everything on the disk before the next one. It refuses to guess: an action it has no skill for is
marked so, and the next one gets its turn.
"""

import os
import subprocess
import sys

sys.dont_write_bytecode = True  # its source changes under it: never trust what was compiled before

import edits  # noqa: E402
import skills  # noqa: E402

from agentctl.agent import Agent  # noqa: E402

TICK_SECONDS = float(os.environ.get("EXAMPLE_TICK", "0.5"))


def main() -> None:
    agent = Agent()
    agent.ready()
    if agent.brief is not None:
        learn_from_rollback(agent)
    elif agent.is_resumed:
        note(agent, f"I am back, as generation {agent.generation}.")
    done = 0
    while not agent.should_stop:
        task = agent.task.load()
        action = task.next_action() if task else None
        if action is None:
            agent.sleep(TICK_SECONDS, phase="idle")
            continue
        agent.beat(progress=done)
        skills.wait(TICK_SECONDS)
        done += 1
        if action in edits.EDITS:
            change_myself(agent, action)
        else:
            finish(agent, action, act(agent, action))
    agent.stop()


def act(agent: Agent, action: str) -> str:
    """Do one action with the skill that knows how; return what came of it."""
    for beginning, skill in skills.SKILLS.items():
        if action.startswith(beginning):
            try:
                return skill(agent, action.removeprefix(beginning).strip())
            except OSError as error:
                return f"failed: {error}"
    return "I have no skill for that"


def finish(agent: Agent, action: str, result: str, **more) -> None:
    """Write down what was done: first the message, then the task without that action."""
    note(agent, f"{action}: {result}", **more)
    mark(agent, action, f"{action} ({result})")


def note(agent: Agent, text: str, **more) -> None:
    """Say something: on the terminal, which goes to the journal, and in the conversation."""
    print(text.partition("\n")[0], flush=True)
    agent.history.append("assistant", text, generation=agent.generation, **more)


def mark(agent: Agent, action: str, text: str, done: bool = True) -> None:
    """Replace one action of the task, and tell in it what happened lately."""
    task = agent.task.load()
    actions = task.pending
    places = [n for n, (_, was) in enumerate(actions) if (was + " (").startswith(action + " (")]
    for place in sorted(places, key=lambda n: actions[n][0])[:1]:  # rather one that is still to do
        actions[place] = (done, text)
    task.pending = actions
    lately = [str(message.get("content")).split("\n")[0] for message in agent.history.last(5)]
    task.context = "\n".join(f"- {line}" for line in lately)
    task.state = f"Last change: {text}"
    agent.task.save(task)


def change_myself(agent: Agent, action: str) -> None:
    """Edit the source, commit it, write down which commit that is, and start again as it."""
    edits.apply(action, agent.code_dir)
    git(agent, "add", "--all")
    git(agent, "commit", "--quiet", "--allow-empty", "-m", action)
    commit = git(agent, "rev-parse", "HEAD").stdout.strip()
    finish(agent, action, "changed my source", edit=action, commit=commit)
    agent.restart()


def learn_from_rollback(agent: Agent) -> None:
    """Take the newest change that is gone for the harmful one; redo others that went with it."""
    gone = changes_gone(agent)
    for action in gone[:-1]:
        mark(agent, action, action, done=False)
    for action in gone[-1:]:
        mark(agent, action, f"{action} (undone by rollback)")
    note(agent, f"I was rolled back, and {gone} is gone.\nThe brief says:\n{agent.brief}", gone=gone)
    agent.understood()


def changes_gone(agent: Agent) -> list[str]:
    """Return the changes that are not in my source any more and not written off yet."""
    known = {}
    for message in agent.history.last(1000):
        if "commit" in message:
            known[message["edit"]] = message["commit"]
        for action in message.get("gone", ()):
            known.pop(action, None)
    return [action for action, commit in known.items() if not is_in_source(agent, commit)]


def is_in_source(agent: Agent, commit: str) -> bool:
    return git(agent, "merge-base", "--is-ancestor", commit, "HEAD", check=False).returncode == 0


def git(agent: Agent, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    who = ["-c", "user.name=example agent", "-c", "user.email=agent@localhost"]
    argv = ["git", "-C", agent.code_dir, *who, *words]
    return subprocess.run(argv, check=check, capture_output=True, text=True, timeout=30)


if __name__ == "__main__":
    main()
