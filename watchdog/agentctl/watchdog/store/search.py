"""Full text search: the index as every engine has it, and FTS5 without a copy of the text."""

from __future__ import annotations

from abc import ABC, abstractmethod

import sqlalchemy as sa

from . import tables
from .tables import messages as table

PIECE = 1000


class SearchIndex(ABC):
    """Knows how far the messages are searchable; an engine brings its statements, and its words for a question."""

    CREATE: tuple[str, ...]  # make the empty table
    THROUGH: sa.TextClause  # gives the newest `seq` that is searchable, 0 if there is none
    ADD: sa.TextClause  # takes `seq` and `text`
    MATCHING: sa.TextClause  # takes `words`, `agent` and `most`; gives `seq` and `line`, newest first

    @abstractmethod
    def match_of(self, words: str) -> str:
        """Return a question that finds all of the words, whatever signs are in them; '' if there is none."""

    def text_of(self, line: bytes) -> str:
        """Return the text of a message as `ADD` takes it."""
        return tables.text_of(line)

    def make(self, connection) -> None:
        """Make it, empty."""
        for statement in self.CREATE:
            connection.exec_driver_sql(statement)

    def extend(self, connection, pieces: int = 1) -> bool:
        """Index the next messages; tell whether there may be more."""
        for _ in range(pieces):
            through = connection.scalar(self.THROUGH)
            rows = connection.execute(sa.select(table.c.seq, table.c.line).where(table.c.seq > through)
                                      .order_by(table.c.seq).limit(PIECE)).all()  # fmt: skip
            if rows:
                connection.execute(self.ADD, [{"seq": seq, "text": self.text_of(line)} for seq, line in rows])
            if len(rows) < PIECE:
                return False
        return True

    def find(self, connection, agent: str, match: str, most: int) -> list[bytes]:
        """Return the newest messages that match, newest first."""
        rows = connection.execute(self.MATCHING, {"words": match, "agent": agent, "most": most})
        return [line for _, line in rows]


# -- fts5 ------------------------------------------------------------------------------------------
# Full text search on SQLite: FTS5 without a copy of the text.


class Fts5(SearchIndex):
    """The index as a virtual table."""

    CREATE = (
        """CREATE VIRTUAL TABLE messages_text USING fts5(text, content='', tokenize="unicode61 remove_diacritics 2")""",
    )
    THROUGH = sa.text("SELECT coalesce(max(id), 0) FROM messages_text_docsize")
    ADD = sa.text("INSERT INTO messages_text (rowid, text) VALUES (:seq, :text)")
    MATCHING = sa.text(
        "SELECT m.seq, m.line FROM messages_text t JOIN messages m ON m.seq = t.rowid "
        "WHERE messages_text MATCH :words AND m.agent = :agent ORDER BY t.rowid DESC LIMIT :most"
    )

    def match_of(self, words: str) -> str:
        """Quote each word; a trailing * is a prefix."""
        parts = [word for word in words.replace("\0", " ").split() if any(c.isalnum() for c in word)]
        return " ".join(self._quoted(word.rstrip("*")) + "*" * word.endswith("*") for word in parts)

    @staticmethod
    def _quoted(word: str) -> str:
        return '"' + word.replace('"', '""') + '"'
