"""Full text search on SQLite: questions of any signs, and an index that is made piece by piece."""

import json

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from agentctl.watchdog.store import search, tables


@pytest.fixture
def connection():
    engine = sa.create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.connect() as made:
        search.Fts5().make(made)
        yield made
    engine.dispose()


def put(connection, *texts, agent="robin"):
    rows = []
    for number, text in enumerate(texts):
        line = json.dumps({"id": f"{agent}-{number}-{text}", "content": text}).encode()
        rows.append(tables.row_of(agent, json.loads(line), line, is_in_file=True))
    connection.execute(tables.messages.insert(), rows)


def find(connection, words, agent="robin", most=10):
    index = search.Fts5()
    while index.extend(connection):
        pass
    found = index.find(connection, agent, index.match_of(words), most)
    return [json.loads(line)["content"] for line in found]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("", ""),
        ('  * - " ', ""),
        ("hello", '"hello"'),
        ("two  words", '"two" "words"'),
        ("begin*", '"begin"*'),
        ('say "no" AND NOT', '"say" """no""" "AND" "NOT"'),
        ("a\0b", '"a" "b"'),
    ],
)
def test_a_question_is_words_whatever_signs_are_in_them(words, match):
    assert search.Fts5().match_of(words) == match


@given(st.text(max_size=20))
def test_no_question_is_a_mistake(words):
    engine = sa.create_engine("sqlite://")
    tables.metadata.create_all(engine)
    with engine.connect() as made:
        index = search.Fts5()
        index.make(made)
        match = index.match_of(words.encode("utf-8", "replace").decode())
        assert match == "" or index.find(made, "robin", match, 5) == []
    engine.dispose()


def test_all_of_the_words_newest_first_and_of_one_agent_only(connection):
    put(connection, "a red car", "a red bike", "a Blue càr")
    put(connection, "a red car of another", agent="wren")
    assert find(connection, "red") == ["a red bike", "a red car"]
    assert find(connection, "red car") == ["a red car"]
    assert find(connection, "CAR") == ["a Blue càr", "a red car"]
    assert find(connection, "bi*") == ["a red bike"] and find(connection, "bi") == []
    assert find(connection, "a", most=2) == ["a Blue càr", "a red bike"]


def test_the_index_goes_on_where_it_ended(connection, monkeypatch):
    monkeypatch.setattr(search, "PIECE", 2)
    index = search.Fts5()
    put(connection, "one", "two", "three", "four", "five")
    assert [index.extend(connection), index.extend(connection), index.extend(connection)] == [True, True, False]
    put(connection, "six")
    assert find(connection, "six") == ["six"] and find(connection, "one") == ["one"]
    assert index.extend(connection) is False
