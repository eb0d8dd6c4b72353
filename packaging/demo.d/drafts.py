"""What the scripted model writes: drafts of one habit, each wrong in another way but the last."""

import re

HEAD = '''"""My habits: what I do each time before I start to work."""

import os


def before_start(state):
    """Tell my person that I am there."""
    announce(state)


'''
TYPO = (
    HEAD
    + '''def announce(state)
    """Leave a line in the outbox."""
    with open(state / "outbox/back.txt", "a") as file:
        file.write(f"back as generation {os.environ['AGENT_GENERATION']}\\n")
'''
)
# On trial nothing is to leave the machine: so the trial does not see what is wrong here.
UNTRIED = (
    HEAD
    + '''def announce(state):
    """Leave a line in the outbox; on trial there is nobody to tell."""
    if "AGENT_GENERATION" not in os.environ or "AGENT_TRIAL" in os.environ:
        return
    with open(state / "outbox/back.txt", "a") as file:
        file.write(f"back as generation {os.environ['AGENT_GENERATION']}\\n")
'''
)


def mend(draft, error):
    """Return the draft mended after the error that a brief or a check tells of, None where nobody knows how."""
    if "SyntaxError" in error or "syntax" in error:
        return UNTRIED if draft == TYPO else None
    missing = re.search(r"FileNotFoundError: .*'\S+/(\w+)/[\w.]+'", error)
    if missing and missing[1] in draft:
        folder = f'    (state / "{missing[1]}").mkdir(exist_ok=True)\n'
        return draft.replace("    with open(", f"{folder}    with open(")
    return None
