"""The store's interface is open for another engine: its contract on a real PostgreSQL server, with a small subclass."""

from __future__ import annotations

import os

import pytest
import sqlalchemy as sa

from agentctl.core.errors import StoreUnavailable
from integration.postgres_store import PostgresStore
from kit import effort
from kit.postgres import Postgres, why_not
from kit.store_contract import *  # noqa: F403
from kit.store_contract import ids, row
from kit.store_killer import check_that_acknowledged_stays

ROUNDS = effort.points(2, 30)


@pytest.fixture(scope="module")
def server():
    if why := why_not():
        if os.environ.get("CI"):
            pytest.fail(f"required in CI: {why}", pytrace=False)
        pytest.skip(f"NO POSTGRESQL, ITS TESTS DO NOT RUN: {why}")
    with Postgres() as server:
        yield server


@pytest.fixture
def open_one(server):
    place = server.new_place()
    return lambda: PostgresStore(place)


@pytest.fixture
def commits(store):
    def count() -> int:
        with store._read() as connection:  # a row has the number of the transaction that wrote it
            return connection.scalar(sa.text("SELECT count(DISTINCT xmin::text) FROM messages"))

    return count


@pytest.mark.every_night
def test_what_was_acknowledged_survives_sigkill_of_the_writer(open_one):
    check_that_acknowledged_stays(open_one, ROUNDS)


def test_what_was_acknowledged_survives_a_crash_of_the_server(server, store):
    store.append([row(1)]).result()
    server.crash()
    with pytest.raises(StoreUnavailable, match="takes nothing now"):
        store.append([row(2)]).result()
    assert "takes nothing now" in store.problem
    with pytest.raises(StoreUnavailable, match="cannot be read now"):
        store.last("agent", 5)
    server.start()
    store.append([row(3)]).result()
    assert ids(store.last("agent", 5)) == ["m1", "m3"] and store.problem == ""


def test_no_server_is_told(server):
    with pytest.raises(StoreUnavailable, match="takes nothing now"):
        PostgresStore(f"postgresql+psycopg://nobody@/none?host={server.folder}/nowhere")
