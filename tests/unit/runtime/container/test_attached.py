"""The terminal in a container, from outside: each question is a command of the engine's, and so is its failure."""

from types import SimpleNamespace

import pytest

from agentctl.core.errors import CommandFailed
from agentctl.runtime.container import attached
from agentctl.runtime.container.docker import EngineAway
from agentctl.runtime.container.entrypoint import SESSION_NAME, TMUX_SOCKET


class Engine:
    program = "/usr/bin/docker"

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def run(self, *words, limit_seconds):
        self.asked.append(words)
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(text=self.answer)


def test_a_question_is_asked_of_the_tmux_inside():
    engine = Engine("an answer")
    assert attached.InnerTmux(engine, "c1")._run(["list-panes"], {}, "") == "an answer"
    assert engine.asked == [("exec", "c1", "tmux", "-u", "-S", TMUX_SOCKET, "list-panes")]


@pytest.mark.parametrize("error", [EngineAway("no engine"), CommandFailed(["docker"], 1, b"", b"no engine")])
def test_an_engine_that_is_away_is_a_tmux_that_does_not_answer(error):
    with pytest.raises(CommandFailed, match="no engine"):
        attached.InnerTmux(Engine(error), "c1")._run(["list-panes"], {}, "")


@pytest.mark.parametrize("read_only", [False, True])
def test_a_person_s_terminal_goes_through_the_engine(read_only):
    argv = attached.InnerTmux(Engine(""), "c1").attach_argv(SESSION_NAME, read_only=read_only)
    assert argv[:7] == ["/usr/bin/docker", "exec", "--interactive", "--tty", "--env", "TERM", "c1"]
    assert TMUX_SOCKET in argv and ("-r" in argv) is read_only
