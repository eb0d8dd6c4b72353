"""What is read out of an agent's last output."""

from agentctl.recovery.evidence import STACK_LINES, find_stack

CALLS = [f'  File "deep.py", line {number}, in call' for number in range(300)]


def test_a_short_stack_is_whole():
    stack = ["Traceback (most recent call last):", *CALLS[:5], "ValueError: no"]
    assert find_stack(["hello", *stack]) == stack


def test_a_long_stack_keeps_its_start_and_its_end():
    stack = ["Traceback (most recent call last):", *CALLS, "ValueError: no"]
    found = find_stack(["hello", *stack])
    assert (found[0], found[-1]) == (stack[0], stack[-1])
    assert "[... 242 lines ...]" in found
    assert len(found) == STACK_LINES + 1


def test_no_stack_is_none():
    assert find_stack(["hello", "bye"]) == []
