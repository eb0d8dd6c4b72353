"""How much a peer may ask, and for how long a word of the store is believed: on a clock that the test turns."""

import asyncio
from types import SimpleNamespace

import pytest

from agentctl.watchdog.api import auth
from agentctl.watchdog.api.auth import Access, Peer, Refused


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def known(clock, tmp_path):
    """Doors whose store knows the tokens in `known.rows`, by digest."""
    rows = {}
    context = SimpleNamespace(user=None, paths=SimpleNamespace(name="agent", token_path=str(tmp_path / "none")))
    made = Access(context, SimpleNamespace(token=rows.get), clock)
    made.rows = rows
    return made


async def at_once(function, *arguments):
    return function(*arguments)


def ask(doors, token: str = "secret") -> Peer:
    return asyncio.run(doors.by_token(f"Bearer {token}", at_once))


def give(doors, token: str = "secret", scopes: str = "read") -> None:
    doors.rows[auth.digest_of(token)] = {"id": "t1", "scopes": scopes, "agent": ""}


def spent(peer: Peer, count: int) -> int:
    return [peer.spend() for _ in range(count)].count(True)


def test_a_burst_is_let_through_and_then_so_many_a_second(clock):
    peer = Peer("busy", ["read"], "", clock=clock)
    assert spent(peer, 1000) == auth.RATE_BURST
    clock.now += 0.5
    assert spent(peer, 1000) == auth.RATE_PER_SECOND / 2
    clock.now += 3600
    assert spent(peer, 1000) == auth.RATE_BURST


def test_who_is_not_limited_may_ask_for_ever(clock):
    assert spent(Peer("root", ["read"], "", is_limited=False, clock=clock), 5000) == 5000


def test_a_token_keeps_its_rate_when_it_is_looked_up_again(known, clock):
    give(known)
    assert spent(ask(known), 1000) == auth.RATE_BURST
    clock.now += auth.CACHE_SECONDS + 0.5
    assert spent(ask(known), 1000) == auth.RATE_PER_SECOND * (auth.CACHE_SECONDS + 0.5)


def test_a_revoked_token_is_believed_for_a_moment_at_most(known, clock):
    give(known)
    ask(known)
    known.rows.clear()
    clock.now += auth.CACHE_SECONDS
    ask(known)
    clock.now += 0.1
    with pytest.raises(Refused, match="not known, or revoked"):
        ask(known)


def test_a_session_ends_with_its_time_and_with_its_token(known, clock):
    give(known)
    first, second = known.open_session("secret"), known.open_session("secret")
    clock.now += auth.SESSION_SECONDS - 1
    assert asyncio.run(known.by_session(first, at_once)).name == "token t1"
    known.close_session(second)
    assert asyncio.run(known.by_session(second, at_once)) is None
    late = known.open_session("secret")
    clock.now += 1
    assert asyncio.run(known.by_session(first, at_once)) is None
    known.rows.clear()
    clock.now += 60
    assert asyncio.run(known.by_session(late, at_once)) is None
