"""What runs as the agent's user for root has no hold on root's terminal: it could type there as root."""

import fcntl
import os
import pwd
import select
import signal

import pytest

from agentctl.core.identity import Identity
from agentctl.host import command
from kit import deadline

TIOCSTI = 0x5412  # push a character into a terminal's input, as if it was typed (ioctl_tty(2))


def type_at_terminal() -> str:
    """Try what a hook of the agent's repository could try, by name and by what it has inherited."""
    said = []
    for path in ("/dev/tty", "/dev/stdin"):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY) if path == "/dev/tty" else os.dup(0)
            fcntl.ioctl(fd, TIOCSTI, b"x")
            said.append("typed")
        except OSError as error:
            said.append(os.strerror(error.errno))
    return "; ".join(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes on another user")
def test_the_agent_s_user_cannot_type_as_root():
    entry = pwd.getpwnam("nobody")
    nobody = Identity(entry.pw_uid, entry.pw_gid, [entry.pw_gid], entry.pw_name, entry.pw_dir)
    pid, master = os.forkpty()
    if pid == 0:
        try:
            said = f"{os.open('/dev/tty', os.O_RDWR) > 2}; {command.call_as(nobody, type_at_terminal)}; "
            said += str(os.open("/dev/tty", os.O_RDWR) > 2)  # the caller keeps its own
        except BaseException as error:  # noqa: BLE001 - a forked child must never run the parent's code
            said = repr(error)
        os.write(1, said.encode() + b"\n")
        os._exit(0)
    try:
        said = b""
        while b"\n" not in said:
            assert select.select([master], [], [], deadline.SECONDS)[0], f"it says no more than {said}"
            said += os.read(master, 1024)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)
    assert said.decode().strip() == "True; No such device or address; Operation not permitted; True"
