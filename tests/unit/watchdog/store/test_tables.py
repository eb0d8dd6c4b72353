"""Messages as rows: under which id, and what search sees of them."""

import json

import pytest

from agentctl.watchdog.store import tables


def test_a_row_has_the_message_byte_for_byte():
    line = b'{"id": "m1",  "role": "user", "at": "2026-01-01", "content": "hi"}\n'
    row = tables.row_of("robin", json.loads(line), line, is_in_file=True)
    assert row == {"agent": "robin", "id": "m1", "at": "2026-01-01", "role": "user", "line": line, "is_in_file": 1}


def test_one_without_an_id_gets_the_same_one_each_time_and_another_in_another_place():
    line = b'{"role": "user"}\n'
    first = tables.row_of("robin", {"role": "user"}, line, is_in_file=False, before="m1")["id"]
    assert first == tables.derived_id(line, "m1") == tables.derived_id(line[:-1], "m1")
    assert first.startswith(tables.DERIVED)
    assert len({first, tables.derived_id(line, "m2"), tables.derived_id(b'{"role": "me"}\n', "m1")}) == 3


@pytest.mark.parametrize(("text", "stored"), [("plain ü", "plain ü"), ("a\0b", "a\\x00b"), ("\ud83d", "\\ud83d")])
def test_what_no_engine_takes_is_written_out(text, stored):
    assert tables.storable(text) == stored
    row = tables.row_of("robin", {"id": text, "at": text, "role": text}, b"", is_in_file=True)
    assert (row["id"], row["at"], row["role"]) == (stored,) * 3


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"content": "hello"}', "hello"),
        (b'{"content": [{"text": "\\u00fc"}]}', '[{"text": "ü"}]'),
        (b'{"content": "half \\ud83d"}', "half ?"),
        (b'{"role": "user"}', ""),
        (b'["content"]', ""),
        (b"torn", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_what_search_sees_of_a_message(line, text):
    assert tables.text_of(line) == text


def test_search_sees_no_endless_text():
    line = json.dumps({"content": "x" * (tables.MOST_TEXT + 1)}).encode()
    assert len(tables.text_of(line)) == tables.MOST_TEXT
