"""Images and the compose file that they are started with."""

from agentctl.runtime.container import images


def test_the_shipped_file_is_filled_in_for_people():
    text = "a: ${AGENT_UID:-1000}:${AGENT_GID:-1000}\nb: ${AGENT_CODE_DIR:-/x} ${AGENT_CODE_DIR:-/y} ${OTHER:-z}\n"
    told = images.filled_in(text, {"AGENT_UID": "7", "AGENT_GID": "8", "AGENT_CODE_DIR": "/srv/a"})
    assert (
        told == "a: ${AGENT_UID:-7}:${AGENT_GID:-8}\n"
        "b: ${AGENT_CODE_DIR:-/srv/a} ${AGENT_CODE_DIR:-/srv/a} ${OTHER:-z}\n"
    )
