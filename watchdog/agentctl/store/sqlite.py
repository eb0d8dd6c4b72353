"""The store on SQLite: WAL, synchronous=FULL, one writing thread, readers beside it.

What breaks is kept: a damaged file is set aside under another name and a new one begun; the agent's own file, read
again from its start, fills it. Refuses a file of a newer version.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import NullPool, QueuePool

from . import tables
from .errors import StoreUnavailable
from .index import Index
from .queries import Queries
from .salvage import salvage
from .writer import Writer

BUSY_SECONDS = 5.0
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FULL = "make room: 'df -h' shows where it is missing"

_new = insert(tables.messages)
ADD_MESSAGE = _new.on_conflict_do_nothing(index_elements=["agent", "id"])
ADD_FROM_FILE = _new.on_conflict_do_update(index_elements=["agent", "id"], set_={"is_in_file": 1})


class SqliteStore(Queries):
    """An open store; `problem` says in words what is wrong with it, '' while all is well."""

    def __init__(self, path: str, *, is_reader: bool = False) -> None:
        self.path, self.problem, self.renewals = path, "", 0
        self.kept_as: list[str] = []  # what was broken and is set aside
        if is_reader and not os.path.exists(path):
            raise StoreUnavailable(f"there is no store at {path}", "the watchdog makes it: agentctl watchdog")
        try:
            self._open()
        except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
            if is_reader or not self._is_damaged(error):
                raise self._in_words(error) from error
            self._renew()
        self._index = Index()
        self.writer = Writer(self._begin, self._mend, None if is_reader else self._index_some)

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if not os.path.exists(self.path):
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._writing = _engine(self.path, NullPool)
        self._connection = self._writing.connect()
        self._prepare()
        self._reading = _engine(self.path, QueuePool, pool_size=2, max_overflow=2)
        self._identity = os.stat(self.path).st_ino

    def _prepare(self) -> None:
        """Bring the tables to our version, all of it or nothing."""
        with self._connection.begin():
            has_tables = sa.inspect(self._connection).has_table("meta")
            found = 0
            if has_tables:
                found = int(self._connection.scalar(sa.select(tables.meta.c.value).where(
                    tables.meta.c.key == "version")) or 0)  # fmt: skip
            if found > tables.VERSION:
                raise StoreUnavailable(f"store {self.path} is of version {found}; this agentctl knows {tables.VERSION}",
                                       "use the agentctl that wrote it")
            if found == 0:
                tables.metadata.create_all(self._connection)
                Index.create(self._connection)
                self._connection.execute(sa.insert(tables.meta), {"key": "version", "value": str(tables.VERSION)})

    def close(self) -> None:
        """Write what waits, then close."""
        self.writer.close()
        self._connection.close()
        self._writing.dispose()
        self._reading.dispose()

    # -- writing ------------------------------------------------------------------------------------------------

    def append(self, rows: list[dict], *, from_file: bool = False):
        """Add messages; a future that is done when they are on the disk. Those that are there already stay."""
        return self.writer.submit_rows(ADD_FROM_FILE if from_file else ADD_MESSAGE, rows)

    def append_from_file(self, rows: list[dict], cursor: dict, *, is_anew: bool = False):
        """Add messages of the agent's file, and how far it is read, together; `is_anew` forgets what it had."""
        def work(connection) -> None:
            if is_anew:
                connection.execute(sa.update(tables.messages).values(is_in_file=0)
                                   .where(tables.messages.c.agent == cursor["agent"]))  # fmt: skip
            if rows:
                connection.execute(ADD_FROM_FILE, rows)
            statement = insert(tables.cursors).values(cursor)
            changes = {name: value for name, value in cursor.items() if name != "agent"}
            connection.execute(statement.on_conflict_do_update(index_elements=["agent"], set_=changes))

        return self.writer.submit(work)

    def set_meta(self, key: str, value: str):
        """Keep one fact by its key."""
        statement = insert(tables.meta).values(key=key, value=value)
        return self.writer.submit(lambda connection: connection.execute(
            statement.on_conflict_do_update(index_elements=["key"], set_={"value": value})) and None)

    @contextlib.contextmanager
    def _begin(self):
        if os.stat(self.path).st_ino != self._identity:
            raise FileNotFoundError(2, "another file has its name", self.path)
        with self._connection.begin():
            yield self._connection
        self.problem = ""

    def _index_some(self) -> bool:
        """Bring search up to date by a piece while nothing is to be written; True if there is more."""
        try:
            with self._connection.begin():
                return self._index.extend(self._connection)
        except Exception:  # the next write finds out what is wrong
            return False

    # -- when it breaks -----------------------------------------------------------------------------------------

    def _mend(self, error: Exception) -> Exception | None:
        """Do what can be done about an error; return what the callers are told, None if it is worth another try."""
        told = self._in_words(error)
        self.problem = told.message
        try:
            if isinstance(error, FileNotFoundError):
                self._take_back()
                return None
            if self._is_damaged(error):
                self._renew()
                return None
        except (sa.exc.DBAPIError, sqlite3.Error, OSError) as worse:
            self.problem = self._in_words(worse).message
        return told

    def _take_back(self) -> None:
        """The file was deleted or replaced while open: what we still hold becomes the file again."""
        if not os.path.exists(self.path):
            saved = f"{self.path}.saved"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(saved)
            with contextlib.suppress(sqlite3.Error):
                self._connection.connection.driver_connection.execute("VACUUM INTO ?", (saved,))
                os.chmod(saved, 0o600)
                for ending in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path + ending)
                os.rename(saved, self.path)
        self._let_go()
        self._open()
        self.renewals += 1

    def _renew(self) -> None:
        """Set the broken file aside and begin a new one."""
        self._let_go()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.urandom(2).hex()}"
        for ending in ("-wal", "-shm", ""):
            if os.path.lexists(self.path + ending):
                kept = f"{self.path}.broken-{stamp}{ending}"
                os.rename(self.path + ending, kept)
                self.kept_as.append(kept)
        self._open()
        salvage(f"{self.path}.broken-{stamp}", self._writing)
        self.renewals += 1

    def _let_go(self) -> None:
        for name in ("_connection", "_writing", "_reading"):
            part = self.__dict__.pop(name, None)
            try:
                if part is not None:
                    part.close() if name == "_connection" else part.dispose()
            except Exception:  # it is broken: nothing of it is needed any more
                continue

    @staticmethod
    def _is_damaged(error: Exception) -> bool:
        original = getattr(error, "orig", error)
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in DAMAGED

    def _in_words(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            return error
        original = getattr(error, "orig", None) or error
        hint = FULL if "full" in str(original) or "No space" in str(original) else "agentctl logs"
        return StoreUnavailable(f"the store {self.path} takes nothing now: {original}", hint)


def _engine(path: str, pool, **more) -> sa.Engine:
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")

    def connect():
        connection = sqlite3.connect(f"file:{quoted}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_SECONDS,
                                     check_same_thread=False)  # fmt: skip
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-2000")
        if pool is QueuePool:
            connection.execute("PRAGMA query_only=ON")
        return connection

    engine = sa.create_engine("sqlite+pysqlite://", creator=connect, poolclass=pool, **more)
    # The driver's own transactions begin too late; this one has the write lock from its beginning.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(
        "BEGIN" if pool is QueuePool else "BEGIN IMMEDIATE"))  # fmt: skip
    return engine
