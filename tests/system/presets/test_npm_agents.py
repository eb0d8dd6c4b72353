"""Agents from the npm registry under the preset of their name, nightly: what those from PyPI have to hold, they too."""

import boxes
import npm_agents
import pytest
import test_presets as same
from boxes import give_up
from foreign_agent import ModelApi

pytestmark = pytest.mark.in_order  # one conversation with each agent


@pytest.fixture(scope="module", params=npm_agents.KINDS)
def agent(request):
    """An agent of that kind, adopted by its preset, running, its model API beside it; on one systemd."""
    try:
        shown = npm_agents.packages_for(request.param)
        box = boxes.agentctl_box(boxes.find_root(boxes.wanted_roots()[0]), shared=shown)
    except boxes.Unavailable as error:
        return give_up(str(error))
    with box:
        box.boot()
        made = npm_agents.make(request.param, box, ModelApi(box)).make().start()
        yield made
        for incident in reversed(made.incidents()):
            print(f"{request.param}: {incident['reason']}: {incident['outcome']} in {incident['seconds']:.1f} s")


def test_killed_before_anything_was_said_it_is_started(agent):
    """Gemini makes its chat when it starts; where it cannot resume that (status 42), the third launch starts anew."""
    if agent.preset != "gemini":
        same.test_killed_before_anything_was_said_it_is_started(agent)
        return
    agent.wait_prompt()
    agent.wait_back(agent.kill())
    agent.wait_prompt()
    agent.wait_outcome(count=1)
    assert agent.rollback_runs() in (1, 2, 3)


test_killed_in_mid_turn = same.test_killed_in_mid_turn_it_is_resumed_and_told_why
test_hung = same.test_hung_it_is_ended_with_all_it_started
test_a_bad_commit = same.test_a_bad_commit_is_undone_with_what_it_did_to_the_store
test_told_once = same.test_it_is_told_once_a_launch
test_stopped = same.test_nothing_is_left_after_a_stop
