"""The store on PostgreSQL: all that another engine has to bring. Not shipped; it keeps the store's interface honest."""

from __future__ import annotations

import contextlib
import unicodedata

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from agentctl.watchdog.store.search import SearchIndex
from agentctl.watchdog.store.store import Store

ONE_WRITER = sa.text("SELECT pg_advisory_xact_lock(1)")
LONGEST_WORD = 500  # characters; the server takes 2046 bytes


class TextVectors(SearchIndex):
    """The index as vectors of words, which are made plain here: FTS5 ignores case and accents, too."""

    CREATE = (
        "CREATE TABLE messages_text (seq bigint PRIMARY KEY, words tsvector NOT NULL)",
        "CREATE INDEX messages_text_words ON messages_text USING gin (words)",
    )
    THROUGH = sa.text("SELECT coalesce(max(seq), 0) FROM messages_text")
    ADD = sa.text("INSERT INTO messages_text (seq, words) VALUES (:seq, to_tsvector('simple', :text))")
    MATCHING = sa.text(
        "SELECT m.seq, m.line FROM messages_text t JOIN messages m ON m.seq = t.seq "
        "WHERE t.words @@ to_tsquery('simple', :words) AND m.agent = :agent ORDER BY t.seq DESC LIMIT :most"
    )

    def match_of(self, words: str) -> str:
        """Return all words, each the parts of it in their order; a trailing * is a prefix."""
        phrases = [(" <-> ".join(_plain(word).split()), ":*" if word.endswith("*") else "") for word in words.split()]
        return " & ".join(f"({phrase}{ending})" for phrase, ending in phrases if phrase)

    def text_of(self, line: bytes) -> str:
        return _plain(super().text_of(line))


class PostgresStore(Store):
    """The store as a database of a server; `place` is its address."""

    insert, index = staticmethod(insert), TextVectors()

    def _open(self) -> None:
        self._reading = sa.create_engine(self.place, pool_pre_ping=True)  # the server may have been started again
        with self._write() as connection:
            self._prepare(connection)

    @contextlib.contextmanager
    def _write(self):
        with self._reading.begin() as connection:
            connection.execute(ONE_WRITER)
            yield connection

    def _close(self) -> None:
        self._reading.dispose()


def _plain(text: str) -> str:
    """Return letters and digits without case and accents, and spaces."""
    parts = unicodedata.normalize("NFKD", text.lower())
    kept = "".join(c if c.isalnum() else " " for c in parts if not unicodedata.combining(c))
    return " ".join(word[:LONGEST_WORD] for word in kept.split())
