"""current_task.md: what is read, what survives, what is refused, what a rebuilt one says."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentctl.state.task import Task, TaskDamaged, is_task, parse, parse_bytes, rebuild

PLAIN = """# Current Task
Make it fast.

## Conversation Context
user: please

## Pending Actions
- [ ] measure
  with a real clock
- [x] read

## Wishes of others
* untouched \t

## State
row 12
"""
AT, WHY = "2026-01-02T03:04:05Z", "it died without saving"


def test_reads_every_part():
    task = parse(PLAIN)
    assert task.objective == "Make it fast."
    assert task.context == "user: please"
    assert task.pending == [(False, "measure"), (True, "read")]
    assert task.state == "row 12"
    assert task.section("wishes of others") == "* untouched"
    assert task.next_action() == "measure"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.rstrip("\n"),
        "\ufeff" + PLAIN,
        "<!-- kept -->\n\n" + PLAIN,
        "# Only a title",
        "# T\n## State",
        "# T\n\n\n## state:\n\n\nx\n\n\n## State\nsecond\n",
        "# T\r\nmixed\n## Odd\x0cname\r\n\x85\n",
    ],
)
def test_untouched_stays_byte_for_byte(text):
    assert parse(text).render() == text
    assert parse_bytes(text.encode()).render().encode() == text.encode()
    assert is_task(text.encode())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b" \r\n\t\n", "empty"),
        (b"\0" * 4096, "NUL"),
        (PLAIN.encode() + b"\0\0", "NUL"),
        (b"# T\n\xff\xfe\n", "UTF-8"),
        (PLAIN.encode()[:-1] + b"\xe2\x82", "UTF-8"),
        (b"no heading at all\n", "title"),
        (b"## State\n# late\n", "title"),
        (b"#no space\n", "title"),
    ],
)
def test_refuses_what_is_no_task(data, why):
    with pytest.raises(TaskDamaged, match=why) as caught:
        parse_bytes(data)
    assert caught.value.hint
    assert not is_task(data)


def test_a_change_touches_its_own_section_only():
    task = parse(PLAIN)
    task.state = "row 13"
    assert task.render() == PLAIN.replace("row 12", "row 13")
    task.pending = [(True, text) for _, text in task.pending]
    assert task.render() == PLAIN.replace("row 12", "row 13").replace("- [ ]", "- [x]")


def test_actions_keep_their_notes_when_others_come_and_go():
    task = parse(PLAIN)
    task.pending = [(False, "new"), (False, "read"), (False, "measure")]
    body = task.section("Pending Actions")
    assert body == "- [ ] new\n- [ ] read\n- [ ] measure\n  with a real clock"
    task.pending = []
    assert task.pending == []
    assert "## Pending Actions\n\n## Wishes of others\n* untouched" in task.render()


def test_an_emptied_section_stays_as_a_heading():
    task = parse(PLAIN)
    task.context = task.state = ""
    assert "## Conversation Context\n\n## Pending Actions\n" in task.render()
    assert task.render().endswith("## State\n")


def test_same_action_twice():
    task = Task(pending=[(False, "beep"), (False, "beep")])
    task.pending = [(True, "beep"), (False, "beep")]
    assert parse(task.render()).pending == [(True, "beep"), (False, "beep")]


def test_missing_sections_come_in_their_order():
    task = parse("# T\r\n## Other\r\nx")
    task.state, task.context, task.pending = "s", "c", [(False, "a")]
    names = [name for name, _ in task.sections]
    assert names == ["Conversation Context", "Pending Actions", "State", "Other"]
    assert task.render() == (
        "# T\r\n\r\n## Conversation Context\r\nc\r\n\r\n## Pending Actions\r\n- [ ] a\r\n\r\n"
        "## State\r\ns\r\n\r\n## Other\r\nx"
    )


def test_a_new_task_is_the_documented_file():
    task = Task("goal", "said", [(False, "Task 1"), (True, "Task 2")], "none")
    assert task.render() == (
        "# Current Task\ngoal\n\n## Conversation Context\nsaid\n\n"
        "## Pending Actions\n- [ ] Task 1\n- [x] Task 2\n\n## State\nnone\n"
    )
    assert Task().render() == ("# Current Task\n\n## Conversation Context\n\n## Pending Actions\n\n## State\n")


@pytest.mark.parametrize("text", ["## State", "\\## x", "a\n## State\n\\\\## b", "# title", "  x"])
def test_text_that_looks_like_a_section_stays_text(text):
    task = parse(PLAIN)
    task.context = text
    again = parse(task.render())
    assert again.context == text
    assert again.state == "row 12"


def test_text_no_file_can_hold_is_made_to_fit():
    task = Task(objective="a\0b\udc80", context="x\r\ny\rz")
    task.render().encode("utf-8")
    assert parse(task.render()).objective == "a\ufffdb?"
    assert task.context == "x\ny\nz"


anything = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
pieces = st.sampled_from(["# T\n", "## State\n", "## X\r\n", "- [ ] a\n", "- [X] b", "\n", "\r\n", "\\## e\n", "  n\n"])


@given(st.lists(pieces | anything).map("".join))
def test_any_readable_text_survives(text):
    try:
        task = parse(text)
    except TaskDamaged:
        return
    assert task.render() == text
    task.objective, task.context, task.state = task.objective, task.context, task.state
    task.pending = task.pending
    assert task.render() == text


@given(st.lists(pieces | anything).map("".join), anything, anything, anything, st.lists(anything))
@example("\r0", "\r0", "", "", [])  # what was there already stays as it is
def test_whatever_is_set_is_read_again(base, objective, context, state, actions):
    try:
        task = parse("# T\n" + base)
    except TaskDamaged:
        return
    others = [s for s in task.sections if s[0].casefold() not in KNOWN]
    before = {name: getattr(task, name) for name in ("objective", "context", "state")}
    task.pending = [(True, f"n {action}") for action in actions]
    task.objective, task.context, task.state = objective, context, state
    again = parse(task.render())
    for name, text in (("objective", objective), ("context", context), ("state", state)):
        lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
        while lines and not lines[0].strip():
            lines.pop(0)
        wanted = text if text == before[name] else "\n".join(lines)
        assert getattr(again, name) == getattr(task, name) == wanted
    assert again.pending == [(True, " ".join(f"n {a}".split())) for a in actions]
    assert [s for s in again.sections if s[0].casefold() not in KNOWN] == others


KNOWN = {"conversation context", "pending actions", "state"}


def test_rebuild_keeps_all_of_the_last_version_but_the_context():
    messages = [
        {"role": "user", "content": "first\nsecond", "at": "2026-01-01T00:00:00Z"},
        {"role": "assistant", "content": [{"type": "text", "text": "ü"}], "at": AT},
    ]
    text = rebuild(PLAIN.encode(), messages, WHY, AT)
    task = parse(text)
    assert task.context.splitlines()[0] == (
        f"> Rebuilt by agentctl at {AT} because {WHY}; the last saved version gave all but this "
        f"section; the newest message is of {AT}."
    )
    assert "- user: first\n  second" in task.context
    assert '- assistant: [{"type": "text", "text": "ü"}]' in task.context
    assert task.context.endswith("### From the last saved version\nuser: please")
    assert task.objective == "Make it fast."
    assert task.pending == [(False, "measure"), (True, "read")]
    assert task.section("Wishes of others") == "* untouched"
    assert text.startswith("# Current Task\n") and text.endswith("## State\nrow 12\n")


def test_rebuilding_again_does_not_nest():
    first = rebuild(PLAIN.encode(), [{"role": "user", "content": "one"}], WHY, AT)
    second = rebuild(first.encode(), [{"role": "user", "content": "two"}], WHY, AT)
    assert second == first.replace("- user: one", "- user: two")


@pytest.mark.parametrize(
    ("last", "messages", "objective", "says"),
    [
        (None, [{"role": "user", "content": "do it"}, {"role": "x"}], "do it", "no earlier"),
        (b"\0", [{"role": "user", "content": "do it"}], "do it", "NUL bytes"),
        (None, [], "Unknown", "no messages"),
        (None, [{"role": "assistant", "content": "## State\n\0\ud800"}], "Unknown", "no earlier"),
    ],
)
def test_rebuild_without_a_version(last, messages, objective, says):
    task = parse_bytes(rebuild(last, messages, WHY, AT).encode("utf-8"))
    assert task.objective.startswith(objective)
    assert says in task.context
    assert task.state == "" and task.pending == []


def test_rebuild_bounds_the_context():
    messages = [{"role": "user", "content": "x" * 100_000, "at": AT}] * 1000
    assert len(rebuild(PLAIN.encode(), messages, WHY, AT)) < 50_000
