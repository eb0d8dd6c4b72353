"""Full text search on SQLite: FTS5 without a copy of the text."""

from __future__ import annotations

import sqlalchemy as sa

from .index import Index


class Fts5(Index):
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
