"""The store: conversations, periods, tokens, events, in SQL that every engine speaks. One subclass is one engine."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod

import sqlalchemy as sa

from ...core.errors import StoreTooNew, StoreUnavailable
from ...state.history_repair import STORE_VERSION as VERSION
from . import tables
from .search import SearchIndex
from .tables import cursors, events, meta, periods, tokens
from .tables import messages as said
from .write_queue import WriteQueue

AT_ONCE = 1000  # rows that an export holds in memory
INDEX_PIECES = 20  # that a search waits for
ADD_PERIOD = sa.insert(periods)
FULL = "make room: 'df -h' shows where it is missing"


class Store(ABC):
    """An open store; what it cannot do now raises StoreUnavailable.

    An engine brings, and nothing else:

    - `insert`: its dialect's INSERT, which knows what to do on a conflict;
    - `index`: its search, four statements and how it is asked for words;
    - `_open()`: sets `_reading`, an engine of SQLAlchemy, and has the tables made (`_prepare`);
    - `_write()`: a transaction that is on the disk when it ends, and that no other writer's runs beside, also none of
      another process: `seq` is the order of the commits, or a reader that goes on after the newest one misses some;
    - `_close()`; and `_mend(error)`, where more can be done about an error than to say it.
    """

    insert: staticmethod
    index: SearchIndex

    def __init__(self, place: str, *, is_reader: bool = False) -> None:
        self.place = place  # where it is, in words
        self.problem, self.renewals = "", 0  # what is wrong with it, '' while all is well; how often it was made anew
        self.kept_as: list[str] = []  # what was broken and is set aside
        new, key = self.insert(said), ["agent", "id"]
        self._add_message = new.on_conflict_do_nothing(index_elements=key)
        self._add_from_file = new.on_conflict_do_update(index_elements=key, set_={"is_in_file": 1})
        try:
            self._open()
        except (sa.exc.DBAPIError, OSError) as error:
            raise self._in_words(error) from error
        self.writer = WriteQueue(self._begin, self._repair, None if is_reader else self._index_some)

    def close(self) -> None:
        """Write what waits, then close."""
        self.writer.close()
        self._close()

    # -- what an engine brings ----------------------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> None:
        """Open the store; make what is missing."""

    @abstractmethod
    def _write(self):
        """Return a context with a connection: a transaction, the only one that writes."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of every connection."""

    def _repair(self, error: Exception) -> Exception | None:
        """Do what can be done about an error; return what the callers are told, None if it is worth another try."""
        told = self._in_words(error)
        self.problem = told.message
        return told

    # -- what every engine has ----------------------------------------------------------------------------------

    def _prepare(self, connection) -> None:
        """Bring the tables to our version; who calls it has a transaction open, for all of it or nothing."""
        found = 0
        if sa.inspect(connection).has_table("meta"):
            found = int(connection.scalar(sa.select(meta.c.value).where(meta.c.key == "version")) or 0)
        if found > VERSION:
            raise StoreTooNew(f"store {self.place}", found, VERSION)
        if found == 0:
            tables.metadata.create_all(connection)
            self.index.make(connection)
            connection.execute(sa.insert(meta), {"key": "version", "value": str(VERSION)})

    @contextlib.contextmanager
    def _read(self):
        try:
            with self._reading.connect() as connection:
                yield connection
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, AttributeError) as error:
            original = getattr(error, "orig", None) or error
            raise StoreUnavailable(f"the store {self.place} cannot be read now: {original}", "agentctl logs") from error

    @contextlib.contextmanager
    def _begin(self):
        with self._write() as connection:
            yield connection
        self.problem = ""

    def _index_some(self) -> bool:
        """Bring search up to date by a piece while nothing is to be written; True if there is more."""
        try:
            with self._write() as connection:
                return self.index.extend(connection)
        except Exception:  # noqa: BLE001 - the next write finds out what is wrong
            return False

    def _in_words(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            return error
        original = getattr(error, "orig", None) or error
        hint = FULL if "full" in str(original) or "No space" in str(original) else "agentctl logs"
        return StoreUnavailable(f"the store {self.place} takes nothing now: {original}", hint)

    # -- the conversation ---------------------------------------------------------------------------------------

    def last(self, agent: str, count: int) -> list[bytes]:
        """Return the newest `count` messages as their lines, oldest first."""
        statement = (sa.select(said.c.line).where(said.c.agent == agent).order_by(said.c.seq.desc())
                     .limit(max(0, count)))  # fmt: skip
        with self._read() as connection:
            return list(connection.scalars(statement))[::-1]

    def after(self, agent: str, message_id: str, count: int) -> list[bytes] | None:
        """Return up to `count` messages that came after one, oldest first; None if that one is unknown."""
        is_it = (said.c.agent == agent, said.c.id == tables.storable(message_id))
        with self._read() as connection:
            place = connection.scalar(sa.select(said.c.seq).where(*is_it))
            if place is None:
                return None
            return list(connection.scalars(
                sa.select(said.c.line).where(said.c.agent == agent, said.c.seq > place)
                .order_by(said.c.seq).limit(count)))  # fmt: skip

    def search(self, agent: str, words: str, count: int) -> list[bytes]:
        """Return the newest messages that hold all the words, oldest first."""
        match = self.index.match_of(words)
        if not match:
            return []
        self.writer.submit(lambda connection: self.index.extend(connection, INDEX_PIECES)).result()
        with self._read() as connection:
            return self.index.find(connection, agent, match, count)[::-1]

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

    def without_ids(self, agent: str):
        """Yield (place, id, line) of every message whose line has no id of its own, oldest first."""
        is_it = (said.c.agent == agent, said.c.id.startswith(tables.DERIVED, autoescape=True))
        statement = sa.select(said.c.seq, said.c.id, said.c.line).where(*is_it).order_by(said.c.seq)
        with self._read() as connection:
            yield from connection.execution_options(yield_per=AT_ONCE).execute(statement)

    def place_of(self, agent: str, message_id: str) -> int | None:
        """Return the place of a message among all; None if it is unknown."""
        with self._read() as connection:
            return connection.scalar(sa.select(said.c.seq).where(said.c.agent == agent, said.c.id == message_id))

    def count(self, agent: str, *, only_missing: bool = False) -> int:
        """Count the messages of an agent, or those that its own file has not."""
        statement = sa.select(sa.func.count()).select_from(said).where(said.c.agent == agent)
        if only_missing:
            statement = statement.where(said.c.is_in_file == 0)
        with self._read() as connection:
            return connection.scalar(statement)

    def append(self, rows: list[dict], *, from_file: bool = False):
        """Add messages; a future that is done when they are on the disk. Those that are there already stay."""
        return self.writer.submit_rows(self._add_from_file if from_file else self._add_message, rows)

    def append_from_file(self, rows: list[dict], cursor: dict, *, is_anew: bool = False):
        """Add messages of the agent's file, and how far it is read, together; `is_anew` forgets what it had."""

        def work(connection) -> None:
            if is_anew:
                connection.execute(sa.update(said).values(is_in_file=0).where(said.c.agent == cursor["agent"]))
            if rows:
                connection.execute(self._add_from_file, rows)
            connection.execute(self._upsert(cursors, "agent", cursor))

        return self.writer.submit(work)

    def cursor(self, agent: str) -> dict | None:
        """Return how far the agent's file was read."""
        return self._one(sa.select(cursors).where(cursors.c.agent == agent))

    # -- facts --------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """Return one fact by its key."""
        row = self._one(sa.select(meta.c.value).where(meta.c.key == key))
        return row and row["value"]

    def set_meta(self, key: str, value: str):
        """Keep one fact by its key; a future."""
        statement = self._upsert(meta, "key", {"key": key, "value": value})
        return self.writer.submit(lambda connection: connection.execute(statement) and None)

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

    def _upsert(self, table: sa.Table, key: str, row: dict):
        changes = {name: value for name, value in row.items() if name != key}
        return self.insert(table).values(row).on_conflict_do_update(index_elements=[key], set_=changes)

    def _one(self, statement) -> dict | None:
        with self._read() as connection:
            row = connection.execute(statement).mappings().first()
        return dict(row) if row is not None else None

    def _all(self, statement) -> list[dict]:
        with self._read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]
