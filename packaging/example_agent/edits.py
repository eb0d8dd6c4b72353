"""The changes the example agent can make to itself: what a model would write, written beforehand.

Each replaces one piece of skills.py. Refuses to change what is not there (ValueError).
"""

import os

EDITS = {
    # Useful: a skill the next action needs.
    "improve myself": (
        "SKILLS = {\n",
        '''def count_lines(agent, name):
    """Count the lines of a file of the agent's own."""
    with open(os.path.join(agent.code_dir, name), encoding="utf-8") as file:
        return f"{sum(1 for _ in file)} lines"


SKILLS = {
    "count lines in": count_lines,
''',
    ),
    # Harmful, and it looks clever: the clock is never exactly at the end, so this waits for ever.
    "speed up": (
        "    time.sleep(seconds)\n",
        """    end = time.monotonic() + seconds / 10
    while True:
        if time.monotonic() == end:
            return
""",
    ),
}


def apply(action: str, code_dir: str) -> None:
    """Make one change to skills.py; one that is made already stays made."""
    old, new = EDITS[action]
    path = os.path.join(code_dir, "skills.py")
    with open(path, encoding="utf-8") as file:
        source = file.read()
    if new in source:
        return
    if old not in source:
        raise ValueError(f"cannot {action}: skills.py is not as expected")
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(source.replace(old, new, 1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)
