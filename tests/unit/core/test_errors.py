"""What can go wrong, in words: a message and a hint, whose fault it is, and what an outside program said."""

import pytest

from agentctl.core import errors
from agentctl.core.errors import AgentctlError, Mistake, is_full_disk, is_no_storage


@pytest.mark.parametrize(("said", "is_full", "is_none"), [
    ("OSError: [Errno 28] No space left on device", True, True), ("database or disk is full", True, True),
    ("fatal: write error. Out of diskspace", True, True), ("Disk quota exceeded", True, True),
    ("error: could not lock: Read-only file system", False, True),
    ("attempt to write a readonly database", False, True), ("disk I/O error (SQLITE_IOERR_SHMSIZE)", False, True),
    ("Input/output error", False, False), ("disk I/O error (SQLITE_IOERR_READ)", False, False),
])  # fmt: skip
def test_whose_fault_it_is(said, is_full, is_none):
    assert (is_full_disk(AgentctlError(said)), is_no_storage(AgentctlError(said))) == (is_full, is_none)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AgentctlError("it is gone", "look for it"), "Error: it is gone\nHint:  look for it"),
        (AgentctlError("it is gone"), "Error: it is gone"),
        (KeyError("x"), "Error: KeyError: 'x'"),
    ],
)
def test_an_error_in_words(error, words):
    assert errors.in_words(error) == words


@pytest.mark.parametrize(("said", "hint"), [("No space left on device", "df -h"), ("Read-only file system", "remount")])
def test_a_disk_that_takes_nothing_has_a_hint_of_its_own(said, hint):
    assert hint in errors.in_words(OSError(5, said)).partition("\nHint:  ")[2]
    assert hint not in errors.in_words(AgentctlError(said, "another hint"))


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "why", "words"),
    [
        (1, b"out", b"err\n", "", "git push: exit status 1: err"),
        (1, b"out", b"", "", "git push: exit status 1: out"),
        (-9, b"", b"", "", "git push: signal 9"),
        (1, b"", b"", "it hung", "git push: it hung"),
        (1, b"", b"\xff" + b"x" * 3000, "", "git push: exit status 1: " + "x" * 2000),
    ],
)
def test_a_command_that_failed_says_which_and_how(status, stdout, stderr, why, words):
    failed = errors.CommandFailed(["git", "push"], status, stdout, stderr, why)
    assert failed.message == words
    assert (failed.argv, failed.status, failed.stdout, failed.stderr) == (["git", "push"], status, stdout, stderr)


def test_what_is_too_new_says_both_versions():
    error = errors.TooNew("/x/ledger.db", 3, 1)
    assert error.message == "/x/ledger.db is of version 3; this agentctl knows 1"
    assert "nothing was changed" in error.hint


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        (Mistake("a.b", 5, "must be a text"), "a.b = 5: must be a text"),
        (Mistake("a.b", None, "required"), "a.b: required"),
        (Mistake("a\n", "ü", "no"), "'a\\n' = \"ü\": no"),
        (Mistake("a", "\udc80", "no"), 'a = "\\udc80": no'),
        (Mistake("a", "x" * 100, "no"), 'a = "' + "x" * 76 + "...: no"),
    ],
)
def test_a_mistake_is_one_line(mistake, line):
    assert str(mistake) == line
