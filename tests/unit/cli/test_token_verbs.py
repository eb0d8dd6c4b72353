"""`agentctl token`: shown once, stored as a digest, two of a label at most, gone at once."""

import json
import os

import pytest
from click.testing import CliRunner

from agentctl.cli.invocation import Invocation
from agentctl.cli.token_verbs import token
from agentctl.core.errors import AgentctlError, UsageError
from agentctl.watchdog.api.auth import digest_of
from agentctl.watchdog.store import open_store


@pytest.fixture
def run(home):
    def verb(*words, as_json=False, fails=None):
        done = CliRunner().invoke(token, words, obj=Invocation("agent", as_json=as_json))
        if fails:
            assert isinstance(done.exception, fails[0]) and fails[1] in str(done.exception), done.exception
            return None
        assert done.exit_code == 0, done.exception
        return json.loads(done.output) if as_json else done.output

    return verb


def rows(home):
    store = open_store(home.paths.store_path)
    try:
        return store.tokens()
    finally:
        store.close()


def test_it_is_shown_once_and_stored_as_a_digest(home, run):
    secret = run("create", "--scope", "append, beat,beat", "--agent", "wren").strip()
    (row,) = rows(home)
    assert row["digest"] == digest_of(secret) and secret not in str(row)
    assert (row["scopes"], row["label"], row["agent"]) == ("append beat", "append+beat", "wren")
    listed = run("list")
    assert secret not in listed and row["id"] in listed and "valid" in listed and "wren" in listed


def test_into_a_file_it_is_not_shown_at_all(home, run, tmp_path):
    path = tmp_path / "token"
    made = run("create", "--out", str(path), as_json=True)
    assert "token" not in made and made["path"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert digest_of(path.read_text().strip()) == rows(home)[0]["digest"]
    run("create", "--out", str(path), fails=(FileExistsError, "exists"))
    assert digest_of(path.read_text().strip()) == rows(home)[0]["digest"]


def test_two_of_a_label_can_be_valid_at_once(home, run):
    first, _ = run("create", as_json=True), run("create", as_json=True)
    run("create", fails=(AgentctlError, "there are 2 valid tokens labelled 'read' already"))
    run("revoke", first["id"])
    assert run("create", as_json=True)["label"] == "read"
    run("revoke", first["id"], fails=(AgentctlError, "there is no valid token"))
    states = {row["id"]: row["revoked_at"] is None for row in run("list", as_json=True)}
    assert states.pop(first["id"]) is False and all(states.values()) and len(states) == 2


@pytest.mark.parametrize("scopes", ["", ",", "root", "read,root", "READ"])
def test_an_unknown_scope_makes_none(home, run, scopes):
    run("create", "--scope", scopes, fails=(UsageError, "unknown scope"))
    assert not os.path.exists(home.paths.store_path) or rows(home) == []


def test_no_token_yet(run):
    assert run("list") == "no token yet\n" and run("list", as_json=True) == []
