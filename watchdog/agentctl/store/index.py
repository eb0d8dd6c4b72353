"""Full text search as every engine has it: a table `messages_text` of ours, brought up to date behind the writes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import sqlalchemy as sa

from . import messages
from .tables import messages as table

PIECE = 1000


class Index(ABC):
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
        return messages.text_of(line)

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
