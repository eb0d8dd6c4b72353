"""The door of packaging/demo: run it with the Python that has agentctl.

It starts an agent, shows what everybody says as it happens, and takes the timeline from the ledger's answers
(`agentctl incidents --json`) and from the journal. A story that did not happen is exit status 1.
"""

import argparse
import pathlib
import shutil
import signal
import sys

from stage import PACKAGING, Stage, StoryFailed
from story import Story, show_more

sys.path.insert(0, str(PACKAGING.parent / "tests"))  # the stand-in for a model API is at home there


def make_story(options):
    """Choose who plays: the example agent, or a real one that is told what to do by a script in its model's place."""
    if not options.agent:
        return Story(Stage(options.runtime))
    from agent_story import AgentStory

    return AgentStory(options.runtime, options.agent, options.agent_venv)


def tell(options):
    story = make_story(options)
    try:
        story.play()
        show_more(story.stage, story.incident(), options.hold)
        while options.hold:
            signal.pause()
    except StoryFailed:
        print(f"\n$ agentctl why\n{story.stage.agentctl('why', check=False).rstrip()}", flush=True)
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # cleaning up is not to be cut short
        story.stage.tear_down()


def tell_in_box(options):
    """Boot a real systemd, and tell the story in there; what it writes ends with the box."""
    sys.path.insert(0, str(PACKAGING))
    import box

    folders = [pathlib.Path(sys.executable).parent.parent, PACKAGING.parent]
    words = ["--hold"] if options.hold else []
    if options.agent:
        words += ["--agent", options.agent, "--agent-venv", options.agent_venv]
        folders.append(pathlib.Path(options.agent_venv).resolve())
    outside = [f for f in folders if not any(f != other and f.is_relative_to(other) for other in folders)]
    with box.Box(name="demo", shared=[(path, path) for path in outside]) as machine:
        machine.boot()
        version = machine.run(["systemctl", "--version"]).stdout.splitlines()[0]
        print(f"booted {version} in namespaces, {machine.boot_seconds:.1f} s", flush=True)
        if options.hold:
            print(f"to enter it: nsenter -a -t {machine.pid}", flush=True)
        return machine.popen([sys.executable, __file__, "--runtime", "systemd", *words]).wait()


def read_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runtime", choices=("systemd", "box", "direct"), required=True)
    parser.add_argument("--agent", default="")
    parser.add_argument("--agent-venv", default="")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--remove", default="")
    return parser.parse_args()


def main():
    options = read_arguments()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        if options.runtime == "box":
            return tell_in_box(options)
        return tell(options) or 0
    except KeyboardInterrupt:
        return 130
    except StoryFailed as error:
        print(f"Error: {error}\nHint:  the lines above say how far it came", file=sys.stderr)
        return 1
    finally:
        if options.remove:
            shutil.rmtree(options.remove)


if __name__ == "__main__":
    sys.exit(main())
