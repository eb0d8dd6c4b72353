"""What README.md shows is what the code says."""

import re
from pathlib import Path

from agentctl.cli.verbs import BY_NAME
from agentctl.config import reference

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_settings_shown_are_the_sample():
    (shown,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown == reference.sample()


def test_every_verb_is_named():
    table = README.split("## Verbs and exit codes")[1]
    named = {word for line in table.splitlines() if line.startswith("| ") for word in re.findall(r"`([a-z]+)`", line)}
    assert named == set(BY_NAME)


def test_every_file_it_points_to_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (Path(__file__).resolve().parents[2] / target).exists(), target
