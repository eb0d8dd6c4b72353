"""The poll loop: what is due at once."""

import os

from agentctl.host.poll_loop import Loop


def test_a_timer_that_is_due_may_be_cancelled_by_the_one_before_it():
    loop, seen = Loop(), []
    loop.set_timer("first", 0, lambda: (seen.append("first"), loop.cancel("second")))
    loop.set_timer("second", 0, lambda: seen.append("second"))
    loop.set_timer("third", 0, lambda: seen.append("third"))
    loop.serve_once(lambda: False)
    assert seen == ["first", "third"]


def test_nothing_that_is_due_follows_the_end():
    loop, seen = Loop(), []
    for name in ("first", "second"):
        loop.set_timer(name, 0, lambda: seen.append("end"))
    loop.serve_once(lambda: bool(seen))
    assert seen == ["end"]


def test_a_timer_may_be_a_month_away():
    loop, seen = Loop(), []
    reader, writer = os.pipe()
    os.write(writer, b"x")
    loop.watch(reader, lambda: seen.append("read"))
    loop.set_timer("confirm", 30 * 86400.0, lambda: seen.append("late"))
    loop.serve_once(lambda: False)
    os.close(reader)
    os.close(writer)
    assert seen == ["read"]
