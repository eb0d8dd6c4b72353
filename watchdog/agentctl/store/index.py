"""Full text search on SQLite: FTS5 without a copy of the text, brought up to date behind the writes."""

from __future__ import annotations

import sqlalchemy as sa

from . import messages
from .tables import messages as table

PIECE = 1000
CREATE = """CREATE VIRTUAL TABLE messages_text USING fts5(text, content='', tokenize="unicode61 remove_diacritics 2")"""
MATCHING = sa.text(
    "SELECT m.seq, m.line FROM messages_text t JOIN messages m ON m.seq = t.rowid "
    "WHERE messages_text MATCH :words AND m.agent = :agent ORDER BY t.rowid DESC LIMIT :most"
)
THROUGH = sa.text("SELECT coalesce(max(id), 0) FROM messages_text_docsize")
ADD = sa.text("INSERT INTO messages_text (rowid, text) VALUES (:seq, :text)")


class Index:
    """Knows how far the messages are searchable."""

    @staticmethod
    def create(connection) -> None:
        connection.exec_driver_sql(CREATE)

    def extend(self, connection, pieces: int = 1) -> bool:
        """Index the next messages; tell whether there may be more."""
        for _ in range(pieces):
            through = connection.scalar(THROUGH)
            rows = connection.execute(sa.select(table.c.seq, table.c.line).where(table.c.seq > through)
                                      .order_by(table.c.seq).limit(PIECE)).all()  # fmt: skip
            if rows:
                connection.execute(ADD, [{"seq": seq, "text": messages.text_of(line)} for seq, line in rows])
            if len(rows) < PIECE:
                return False
        return True
