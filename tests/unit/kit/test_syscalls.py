"""The system-call injector hits what it says, and nothing else."""

import errno
import os

import pytest

from kit.syscall_injection import KINDS, Call, Fault, choose_faults, is_subject, run

SCRIPT = "echo one >a; echo two >b; cat a b; echo three >>b; cat b"
ENV = {"PATH": "/usr/bin:/bin"}


def sh(folder, fault=None):
    return run(["/bin/sh", "-c", f"cd {folder}; {SCRIPT}"], ENV, below=folder, fault=fault)


def test_a_profile_names_programs_calls_and_paths(tmp_path):
    whole = sh(tmp_path)
    assert (whole.status, whole.said) == (0, "one\ntwo\ntwo\nthree\n")
    assert Call("cat", "openat", "b", False) in whole.calls and Call("sh", "openat", "a", True) in whole.calls
    assert [c.path for c in whole.calls if c.name == "write"] == ["a", "b", "b"], "what goes to a pipe does not count"
    assert [c.program for c in whole.calls if c.name == "execve"][1:] == ["sh", "sh"]


@pytest.mark.parametrize(("what", "said"), [("ENOSPC", "No space"), ("EROFS", "Read-only"), ("EIO", "Input/output")])
def test_the_nth_call_fails_once(tmp_path, what, said):
    ran = sh(tmp_path, Fault(("sh", "openat"), 2, what))
    assert [c.path for c in ran.hits] == ["b"] and said in ran.said
    assert (tmp_path / "a").read_text() == "one\n" and (tmp_path / "b").read_text() == "three\n"


def test_one_that_stays_fails_whoever_calls(tmp_path):
    ran = sh(tmp_path, Fault(("sh", "openat"), 2, "ENOSPC", stays=True))
    assert [c.path for c in ran.hits] == ["b", "b"] and not (tmp_path / "b").exists()


def test_the_caller_is_killed_before_the_call(tmp_path):
    ran = sh(tmp_path, Fault(("cat", "openat"), 1, "SIGKILL"))
    assert ran.status == 0 and "Killed" in ran.said and "three" in ran.said
    assert sh(tmp_path, Fault(("sh", "openat"), 2, "SIGKILL")).status == -9


def test_a_child_cannot_be_started(tmp_path):
    ran = sh(tmp_path, Fault(("sh", "pipe2"), 99, "EMFILE"))
    assert ran.status == 0 and not ran.hits


def test_faults_are_spread_over_all_kinds_of_calls(tmp_path):
    calls = sh(tmp_path).calls
    faults = choose_faults(calls, 40)
    assert len(set(faults)) == len(faults) == 40
    assert {f.what for f in faults} == {what for what in KINDS if any(is_subject(c, what) for c in calls)}
    met = [f for f in faults if f.kind == ("sh", "openat") and f.what == "ENOSPC"]
    assert {f.nth for f in met} <= {1, 2, 3}


def test_only_what_can_happen_is_done():
    reading = Call("cat", "openat", "a", False)
    assert not is_subject(reading, "ENOSPC") and is_subject(reading, "EMFILE")
    assert not is_subject(Call("sh", "unlink", "a", True), "ENOSPC")
    assert {getattr(errno, what) for what in KINDS if what != "SIGKILL"} and os.name == "posix"
