"""Writing durably into a folder that somebody else may write to, too."""

import os

from agentctl.core import durable


def test_what_somebody_has_put_in_the_way_of_the_temporary_file_is_not_written_to(tmp_path):
    """As root into the agent's folder: its second name for another file would be emptied, and given to the agent."""
    victim = tmp_path / "victim"
    victim.write_text("not yours")
    os.link(victim, tmp_path / f".brief.{os.getpid()}.tmp")
    durable.write(str(tmp_path / "brief"), b"news")
    assert victim.read_text() == "not yours" and (tmp_path / "brief").read_text() == "news"
    assert sorted(os.listdir(tmp_path)) == [f".brief.{os.getpid()}.tmp", "brief", "victim"]
