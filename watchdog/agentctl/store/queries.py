"""What the store is asked: conversations, periods, tokens, events. Plain SQL that every engine speaks, but search."""

from __future__ import annotations

import contextlib

import sqlalchemy as sa

from . import messages
from .errors import StoreUnavailable
from .index import MATCHING, Index
from .tables import cursors, events, meta, periods, tokens
from .tables import messages as said

AT_ONCE = 1000  # rows that an export holds in memory
INDEX_PIECES = 20  # that a search waits for
ADD_PERIOD = sa.insert(periods)


class Queries:
    """Reads from the store; what cannot be read raises StoreUnavailable."""

    @contextlib.contextmanager
    def _read(self):
        try:
            with self._reading.connect() as connection:
                yield connection
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, AttributeError) as error:
            original = getattr(error, "orig", None) or error
            raise StoreUnavailable(f"the store {self.path} cannot be read now: {original}", "agentctl logs") from error

    # -- the conversation ---------------------------------------------------------------------------------------

    def last(self, agent: str, count: int) -> list[bytes]:
        """Return the newest `count` messages as their lines, oldest first."""
        statement = (sa.select(said.c.line).where(said.c.agent == agent).order_by(said.c.seq.desc())
                     .limit(max(0, count)))  # fmt: skip
        with self._read() as connection:
            return list(connection.scalars(statement))[::-1]

    def after(self, agent: str, message_id: str, count: int) -> list[bytes] | None:
        """Return up to `count` messages that came after one, oldest first; None if that one is unknown."""
        with self._read() as connection:
            place = connection.scalar(sa.select(said.c.seq).where(said.c.agent == agent, said.c.id == message_id))
            if place is None:
                return None
            return list(connection.scalars(
                sa.select(said.c.line).where(said.c.agent == agent, said.c.seq > place)
                .order_by(said.c.seq).limit(count)))  # fmt: skip

    def search(self, agent: str, words: str, count: int) -> list[bytes]:
        """Return the newest messages that hold all the words, oldest first."""
        match = messages.match_of(words)
        if not match:
            return []
        self.writer.submit(lambda connection: Index().extend(connection, INDEX_PIECES)).result()
        with self._read() as connection:
            rows = connection.execute(MATCHING, {"words": match, "agent": agent, "most": count}).all()
        return [line for _, line in rows][::-1]

    def export(self, agent: str):
        """Yield every message as its line, oldest first, holding few of them in memory."""
        place = 0
        while True:
            statement = (sa.select(said.c.seq, said.c.line).where(said.c.agent == agent, said.c.seq > place)
                         .order_by(said.c.seq).limit(AT_ONCE))  # fmt: skip
            with self._read() as connection:
                rows = connection.execute(statement).all()
            if not rows:
                return
            yield from (line for _, line in rows)
            place = rows[-1][0]

    def count(self, agent: str, *, only_missing: bool = False) -> int:
        """Count the messages of an agent, or those that its own file has not."""
        statement = sa.select(sa.func.count()).select_from(said).where(said.c.agent == agent)
        if only_missing:
            statement = statement.where(said.c.is_in_file == 0)
        with self._read() as connection:
            return connection.scalar(statement)

    def cursor(self, agent: str) -> dict | None:
        """Return how far the agent's file was read."""
        return self._one(sa.select(cursors).where(cursors.c.agent == agent))

    # -- facts --------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """Return one fact by its key."""
        row = self._one(sa.select(meta.c.value).where(meta.c.key == key))
        return row and row["value"]

    def periods(self, agent: str, since: float) -> list[dict]:
        """Return the periods that reach past `since`, oldest first."""
        return self._all(sa.select(periods).where(
            periods.c.agent == agent, sa.or_(periods.c.ended_at.is_(None), periods.c.ended_at > since))
            .order_by(periods.c.number))  # fmt: skip

    def open_periods(self) -> list[dict]:
        """Return the periods without an end, of every agent."""
        return self._all(sa.select(periods).where(periods.c.ended_at.is_(None)).order_by(periods.c.number))

    def add_period(self, agent: str, period) -> None:
        """Record a period, begun or whole; a future."""
        row = {"agent": agent, "kind": period.kind, "reason": period.reason, "began_at": period.began_at,
               "ended_at": period.ended_at, "seconds": period.seconds}  # fmt: skip
        return self.writer.submit_rows(ADD_PERIOD, [row])

    def end_period(self, agent: str, ended_at: float, seconds: float | None):
        """Record the end of an agent's open periods; a future."""
        statement = (sa.update(periods).where(periods.c.agent == agent, periods.c.ended_at.is_(None))
                     .values(ended_at=ended_at, seconds=seconds))  # fmt: skip
        return self.writer.submit(lambda connection: connection.execute(statement) and None)

    def add_event(self, at: float, agent: str, kind: str, text: str):
        """Record what happened, for people; a future."""
        row = {"at": at, "agent": agent, "kind": kind, "text": text}
        return self.writer.submit(lambda connection: connection.execute(sa.insert(events), row) and None)

    def events(self, agent: str, count: int) -> list[dict]:
        """Return the newest events, newest first."""
        return self._all(sa.select(events).where(events.c.agent == agent).order_by(events.c.number.desc())
                         .limit(count))  # fmt: skip

    # -- tokens -------------------------------------------------------------------------------------------------

    def token(self, digest: str) -> dict | None:
        """Return the valid token with that digest."""
        return self._one(sa.select(tokens).where(tokens.c.digest == digest, tokens.c.revoked_at.is_(None)))

    def tokens(self) -> list[dict]:
        """Return all tokens, the revoked ones too; no secret is among it."""
        return self._all(sa.select(tokens).order_by(tokens.c.created_at, tokens.c.id))

    def add_token(self, row: dict, most_valid: int):
        """Add a token unless `most_valid` of its label are valid already; a future of True or False."""
        def work(connection) -> bool:
            valid = connection.scalar(sa.select(sa.func.count()).select_from(tokens).where(
                tokens.c.label == row["label"], tokens.c.revoked_at.is_(None)))  # fmt: skip
            if valid >= most_valid:
                return False
            connection.execute(sa.insert(tokens), row)
            return True

        return self.writer.submit(work)

    def revoke_token(self, token_id: str, at: float):
        """Revoke a token; a future of whether there was one to revoke."""
        is_it = (tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        statement = sa.update(tokens).where(*is_it).values(revoked_at=at)
        return self.writer.submit(lambda connection: connection.execute(statement).rowcount == 1)

    def _one(self, statement) -> dict | None:
        with self._read() as connection:
            row = connection.execute(statement).mappings().first()
        return dict(row) if row is not None else None

    def _all(self, statement) -> list[dict]:
        with self._read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]
