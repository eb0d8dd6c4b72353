"""The store on SQLite: WAL, synchronous=FULL, one writing thread, readers; what a damaged file still gives.

What breaks is kept: a damaged file is set aside under another name and a new one begun; the agent's own file, read
again from its start, fills it. Refuses a file of a newer version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import NullPool, QueuePool

from ...core.errors import StoreUnavailable
from .search import Fts5
from .store import Store
from .tables import messages

BUSY_SECONDS = 5.0
NO_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SqliteStore(Store):
    """The store as one file."""

    insert, index = staticmethod(insert), Fts5()

    def __init__(self, path: str, *, is_reader: bool = False) -> None:
        self.path, self._is_reader = path, is_reader
        if is_reader and not os.path.exists(path):
            raise StoreUnavailable(f"there is no store at {path}", "the watchdog makes it: agentctl watchdog")
        super().__init__(path, is_reader=is_reader)

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._connect()
        except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
            if self._is_reader or not self._is_damaged(error):
                raise self._in_words(error) from error
            self._renew()

    def _connect(self) -> None:
        if not os.path.exists(self.path):
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        self._writing = _engine(self.path, NullPool)
        self._connection = self._writing.connect()
        with self._connection.begin():
            self._prepare(self._connection)
        self._reading = _engine(self.path, QueuePool, pool_size=2, max_overflow=2)
        self._identity = os.stat(self.path).st_ino

    @contextlib.contextmanager
    def _write(self):
        if os.stat(self.path).st_ino != self._identity or not hasattr(self, "_connection"):
            raise FileNotFoundError(2, "another file has its name", self.path)
        with self._connection.begin():
            yield self._connection

    def _close(self) -> None:
        self._connection.close()
        self._writing.dispose()
        self._reading.dispose()

    # -- when it breaks -----------------------------------------------------------------------------------------

    def _repair(self, error: Exception) -> Exception | None:
        told = super()._repair(error)
        try:
            if isinstance(error, FileNotFoundError):
                self._take_back()
                return None
            if self._is_damaged(error):
                self._renew()
                return None
        except Exception as worse:  # noqa: BLE001 - the thread that writes has to live on and try again
            self.problem = self._in_words(worse).message
        return told

    def _take_back(self) -> None:
        """The file was deleted or replaced while open: what we still hold becomes the file again."""
        if not os.path.exists(self.path) and hasattr(self, "_connection"):
            saved = f"{self.path}.saved"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(saved)
            with self._unless_unreadable():
                self._connection.connection.driver_connection.execute("VACUUM INTO ?", (saved,))
                os.chmod(saved, 0o600)
                for ending in ("-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path + ending)
                os.rename(saved, self.path)
        self._let_go()
        self._connect()
        self.renewals += 1

    @contextlib.contextmanager
    def _unless_unreadable(self):
        """Pass over that what is held open cannot be read; where there is no place for it, it is held on to."""
        try:
            yield
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in NO_PLACE:
                raise

    def _renew(self) -> None:
        """Set the broken file aside and begin a new one."""
        self._let_go()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.urandom(2).hex()}"
        for ending in ("-wal", "-shm", ""):
            if os.path.lexists(self.path + ending):
                kept = f"{self.path}.broken-{stamp}{ending}"
                os.rename(self.path + ending, kept)
                self.kept_as.append(kept)
        self._connect()
        salvage(f"{self.path}.broken-{stamp}", self._writing)
        self.renewals += 1

    def _let_go(self) -> None:
        for name in ("_connection", "_writing", "_reading"):
            part = self.__dict__.pop(name, None)
            try:
                if part is not None:
                    part.close() if name == "_connection" else part.dispose()
            except Exception:  # noqa: BLE001, S112 - it is broken: nothing of it is needed any more
                continue

    @staticmethod
    def _is_damaged(error: Exception) -> bool:
        original = getattr(error, "orig", error)
        return getattr(original, "sqlite_errorcode", 0) & 0xFF in DAMAGED


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


# -- salvage ---------------------------------------------------------------------------------------
# Take out of a damaged SQLite file the messages that can still be read. The file itself is not changed.


COLUMNS = ("agent", "id", "at", "role", "line")
READ = f"SELECT {', '.join(COLUMNS)} FROM messages ORDER BY seq"


def salvage(path: str, engine: sa.Engine) -> int:
    """Copy what can be read, from both ends, into a new store; return how many messages that were."""
    found: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="agentctl-salvage-") as folder:
        for ending in ("", "-wal"):  # a copy: reading may recover the file, and it is to stay as it is
            with contextlib.suppress(OSError):
                shutil.copyfile(path + ending, f"{folder}/copy{ending}")
        with contextlib.suppress(sqlite3.Error):
            source = sqlite3.connect(f"{folder}/copy")
            found = _rows(source, READ)
            found += reversed(_rows(source, f"{READ} DESC"))
            source.close()
    if not found:
        return 0
    with engine.begin() as connection:
        connection.execute(insert(messages).on_conflict_do_nothing(), found)
    return len({(row["agent"], row["id"]) for row in found})


def _rows(source: sqlite3.Connection, sql: str) -> list[dict]:
    """Read until the first page that is broken."""
    rows: list[dict] = []
    with contextlib.suppress(sqlite3.Error):
        for values in source.execute(sql):
            if all(value is not None for value in values) and isinstance(values[-1], bytes):
                rows.append({**dict(zip(COLUMNS, values, strict=True)), "is_in_file": 0})
    return rows
