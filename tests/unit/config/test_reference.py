"""The settings as texts for people: a sample that is whole and valid, and docs/configuration.md."""

from pathlib import Path

from agentctl.config import reference, schema, toml_file
from unit.toml_samples import MINIMAL

ROOT = Path(__file__).parents[3]


def test_the_sample_is_complete_and_valid(path):
    path.write_text(reference.sample())
    assert toml_file.load(str(path)).given.keys() == schema.BY_KEY.keys()


def test_the_sample_says_the_defaults(path):
    path.write_text(reference.sample())
    sampled = toml_file.load(str(path)).values
    path.write_text(MINIMAL)
    assert toml_file.load(str(path)).values == sampled


def test_the_committed_reference_is_the_generated_one():
    """To renew it: PYTHONPATH=watchdog python3 -m agentctl.config.reference > docs/configuration.md"""
    assert (ROOT / "docs/configuration.md").read_text() == reference.reference_markdown()
