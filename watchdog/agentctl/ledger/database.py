"""The ledger: our durable record of generations, launches, tries, incidents, steps, requests (SQLite, FULL).

A line is acknowledged when it is on disk (WAL + synchronous=FULL: 200 of 200 rows after a cut; NORMAL: 0).
It holds the truth; no code reads a log to learn it. It decides nothing.
"""

from __future__ import annotations

import _sqlite3 as sqlite3  # the package around it imports datetime and functools, 5 ms we do not use
import os
import time

from ..core import fast_json
from ..core.durable import Transaction
from ..core.errors import AgentctlError, TooNew
from ..core.record import Record
from .models import Attempt, ChangeRecord, Generation, Incident, Launch, Request, StepRecord, by_blessing
from .versions import MIGRATIONS, SCHEMA, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    R = TypeVar("R", bound=Record)

REBUILT = "the agent's next start or rollback rebuilds it from the vault and keeps the broken file"


class LedgerDamaged(AgentctlError):
    """The ledger cannot be read: torn, empty, missing, not ours, or of a newer version."""


class LedgerUnavailable(LedgerDamaged):
    """The file may be whole: the disk is full, it is locked, we are too old for it. Nothing to rebuild."""


class LedgerTooNew(TooNew, LedgerUnavailable):
    """A newer agentctl has written it."""


NOT_THE_FILE_S_FAULT = (
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
)  # fmt: skip
TABLES: dict[type[Record], str] = {
    Generation: "generations", Launch: "launches", Incident: "incidents", Attempt: "attempts", StepRecord: "steps",
    Request: "requests",
}  # fmt: skip
CHANGE_RECORDS = ("checked", "tried", "reviewed", "approved", "promotion")  # columns that hold JSON
OF_THE_FILE = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)


class Ledger:
    """An open ledger; use as a context manager around one piece of work."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Open the ledger at `path`; raise LedgerDamaged if it is missing or not a whole ledger of ours."""
        self.path = path
        if not os.path.exists(path) or os.path.getsize(path) == 0:
            raise LedgerDamaged(f"ledger {path} is {'empty' if os.path.exists(path) else 'missing'}", REBUILT)
        if not os.path.isfile(path):
            raise LedgerDamaged(f"ledger {path} is no file", REBUILT)
        try:
            version = self._look(read_only)
            if not read_only:
                self.close()
                self._connect(read_only=False)
                if 0 < version < VERSION:
                    version = self._bring_up_to_date()
        except (sqlite3.Error, ValueError) as error:
            if hasattr(self, "db"):
                self.close()  # not when the error is forgotten: an open file keeps its file system busy
            if not _is_the_file_s_fault(getattr(error, "sqlite_errorcode", 0)):
                raise LedgerUnavailable(f"ledger {path} cannot be opened now: {_in_words(error, path)}") from error
            raise LedgerDamaged(f"ledger {path} cannot be read: {error}", REBUILT) from error
        self.version = version
        if version > VERSION:
            self.close()
            raise LedgerTooNew(f"ledger {path}", version, VERSION)
        if version < 1:
            self.close()
            raise LedgerDamaged(f"ledger {path} is of version {version}; this agentctl knows {VERSION}", REBUILT)

    @classmethod
    def create(cls, path: str) -> Ledger:
        """Make an empty ledger, complete or not at all: built under another name, then renamed."""
        temp = f"{path}.new"
        for leftover in (temp, f"{temp}-wal", f"{temp}-shm", f"{temp}-journal"):
            if os.path.exists(leftover):
                os.unlink(leftover)
        fd = os.open(temp, os.O_CREAT | os.O_WRONLY, 0o600)
        os.close(fd)
        connection = sqlite3.connect(temp, isolation_level=None)
        connection.execute("PRAGMA synchronous=EXTRA")
        added = "".join(f"{statement}; " for statements in MIGRATIONS.values() for statement in statements)
        connection.executescript(f"BEGIN; {SCHEMA} {added} INSERT INTO meta VALUES ('version', '{VERSION}'); COMMIT;")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        os.rename(temp, path)
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        return cls(path)

    def _look(self, read_only: bool) -> int:
        """Return the file's version, seen by a connection that may not write.

        One that may would, at its end, remove the log of a file that is broken, and with it what only the log holds.
        """
        try:
            self._connect(read_only=True)
            return int(self.meta("version") or 0)
        except sqlite3.Error as error:
            if read_only or _is_the_file_s_fault(error.sqlite_errorcode):
                raise
        self.close()
        self._connect(read_only=False)  # it may be allowed more
        return int(self.meta("version") or 0)

    def _connect(self, read_only: bool) -> None:
        mode = "ro" if read_only else "rw"
        quoted = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        self.db = sqlite3.connect(f"file:{quoted}?mode={mode}", uri=True, isolation_level=None, timeout=20)
        self.db.row_factory = _as_dict
        self.db.execute("PRAGMA synchronous=FULL")

    def _bring_up_to_date(self) -> int:
        """Add what newer versions have, all of it or nothing; whoever else does it at this moment was first."""
        with self.transaction():
            for version in range(int(self.meta("version") or 0) + 1, VERSION + 1):
                for statement in MIGRATIONS[version]:
                    self.db.execute(statement)
            self.set_meta("version", str(VERSION))
        return VERSION

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def transaction(self) -> Transaction:
        """Group writes: all of them on disk at its end, or none."""
        return Transaction(self.db)

    def check(self) -> str:
        """Return '' if the file is sound, else what SQLite says; raise LedgerUnavailable if it cannot tell now."""
        try:
            rows = self.db.execute("PRAGMA quick_check(3)").fetchall()
        except sqlite3.Error as error:
            if not _is_the_file_s_fault(getattr(error, "sqlite_errorcode", 0)):
                raise LedgerUnavailable(f"ledger {self.path} cannot be read now: {_in_words(error)}") from error
            return str(error)
        said = "; ".join(str(next(iter(row.values()))) for row in rows)
        return "" if said == "ok" else said

    # -- facts by key ---------------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """Return a fact about the agent as a whole, None if it is not known."""
        row = self.db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return row["value"] if row else None

    def set_meta(self, key: str, value: str | None) -> None:
        """Note a fact about the agent as a whole; None forgets it."""
        if value is None:
            self.db.execute("DELETE FROM meta WHERE key=?", (key,))
        else:
            self.db.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value=excluded.value", (key, value)
            )

    def event(self, kind: str, text: str) -> None:
        """Record something that happened, for people; nothing decides by it."""
        self.db.execute("INSERT INTO events (at, kind, text) VALUES (?, ?, ?)", (time.time(), kind, text))

    # -- rows -----------------------------------------------------------------------------------------------

    def _all(self, made: type[R], rest: str, *values: object) -> list[R]:
        """Return the rows of a table that `rest` (WHERE, ORDER BY) means, as models."""
        found = self.db.execute(f"SELECT * FROM {TABLES[made]} {rest}", values).fetchall()
        return [made(**row) for row in found]

    def _one(self, made: type[R], rest: str, *values: object) -> R | None:
        """Return the first row of a table that `rest` means, None if there is none."""
        row = self.db.execute(f"SELECT * FROM {TABLES[made]} {rest}", values).fetchone()
        return made(**row) if row else None

    def insert(self, table: str, **row: object) -> int:
        """Add a row; return its rowid."""
        names = ", ".join(row)
        marks = ", ".join("?" * len(row))
        added = self.db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))
        return added.lastrowid or 0

    def update(self, table: str, key: dict[str, object], **changes: object) -> int:
        """Change the rows that `key` means; return how many."""
        sets = ", ".join(f"{name}=?" for name in changes)
        where = " AND ".join(f"{name}=?" for name in key)
        return self.db.execute(f"UPDATE {table} SET {sets} WHERE {where}", (*changes.values(), *key.values())).rowcount

    # -- generations and launches ---------------------------------------------------------------------------

    def generation(self, number: int | None) -> Generation | None:
        """Return a generation, None if there is none of that number."""
        return self._one(Generation, "WHERE number=?", number)

    def generations(self) -> list[Generation]:
        """Return all generations, oldest first."""
        return self._all(Generation, "ORDER BY number")

    def newest_number(self) -> int:
        """Return the number of the newest generation, 0 before the first."""
        newest = self._one(Generation, "ORDER BY number DESC LIMIT 1")
        return newest.number if newest else 0

    def generations_of_tree(self, tree: str) -> list[Generation]:
        """Return the generations of one tree, newest first."""
        return self._all(Generation, "WHERE tree=? ORDER BY number DESC", tree)

    def last_known_good(self) -> Generation | None:
        """Return the good generation that was blessed last and was not pruned."""
        goods = self._all(Generation, "WHERE status='good' AND (vault_commit<>'' OR number=0)")  # without: pruned
        return max(goods, key=by_blessing, default=None)

    def next_blessing(self) -> int:
        """Return the place of the next blessing in their order."""
        return int(self.newest("generations", "blessing")) + 1

    def launch(self, launch_id: str) -> Launch | None:
        """Return a launch, None if there is none of that id."""
        return self._one(Launch, "WHERE id=?", launch_id)

    def last_launch(self) -> Launch | None:
        """Return the newest launch, None before the first."""
        return self._one(Launch, "ORDER BY rowid DESC LIMIT 1")  # a clock may have gone back

    def launches_but(self, launch_id: str, count: int) -> list[Launch]:
        """Return the `count` newest launches without this one, newest first."""
        return self._all(Launch, "WHERE id<>? ORDER BY rowid DESC LIMIT ?", launch_id, count)

    def lives(self, generation: int, count: int = 200) -> list[str]:
        """Return what kinds of life the newest launches of a generation have shown, where somebody looked."""
        seen = self._all(Launch, "WHERE generation=? ORDER BY rowid DESC LIMIT ?", generation, count)
        return [launch.life for launch in seen if launch.life]

    def last_run(self) -> Launch | None:
        """The newest launch of which an agent came: one that was refused or could not begin changed no state."""
        return self._one(Launch, "WHERE trigger NOT IN ('cannot-launch', 'refused') ORDER BY rowid DESC LIMIT 1")

    def launches_since_good(self) -> list[Launch]:
        """Return the launches since the last one of a good generation, newest first: they are of one trial."""
        good = "SELECT max(l.rowid) FROM launches l JOIN generations ON number=l.generation WHERE status='good'"
        return self._all(Launch, f"WHERE rowid > coalesce(({good}), 0) ORDER BY rowid DESC")

    # -- incidents, attempts, steps, requests ---------------------------------------------------------------

    def incident(self, incident_id: str) -> Incident | None:
        """Return an incident, None if there is none of that id."""
        return self._one(Incident, "WHERE id=?", incident_id)

    def incidents(self, count: int = -1) -> list[Incident]:
        """Return the `count` newest incidents (all of them), newest first."""
        return self._all(Incident, "ORDER BY rowid DESC LIMIT ?", count)

    def last_incident(self) -> Incident | None:
        """Return the newest incident, None before the first."""
        return self._one(Incident, "ORDER BY rowid DESC LIMIT 1")

    def open_incident(self) -> Incident | None:
        """Return the incident without an outcome, None if there is none."""
        return self._one(Incident, "WHERE outcome='' ORDER BY rowid DESC LIMIT 1")

    def evidence(self, incident: str) -> dict[str, Any]:
        """Return what is known about an incident."""
        found = self.incident(incident)
        known = fast_json.loads(found.evidence) if found else None
        return known if isinstance(known, dict) else {}

    def add_evidence(self, incident: str, **facts: object) -> None:
        """Add facts to what is known about an incident."""
        merged = {**self.evidence(incident), **facts}
        self.update("incidents", {"id": incident}, evidence=fast_json.dumps(merged))

    def attempt(self, incident: str, number: int) -> Attempt | None:
        """Return one attempt of an incident, None if there is none."""
        return self._one(Attempt, "WHERE incident=? AND number=?", incident, number)

    def attempts(self, incident: str) -> list[Attempt]:
        """Return the attempts of an incident, oldest first."""
        return self._all(Attempt, "WHERE incident=? ORDER BY number", incident)

    def attempts_since(
        self, since: float, until: float = float("inf"), *, after: int = 0, launch: str = "-"
    ) -> list[Attempt]:
        """Return the attempts in a time, of any incident, in the order in which they were made.

        Those that answer `launch` count whatever the clock said; none up to the rowid `after` does.
        """
        found = "WHERE ((at>? AND at<=?) OR launch=?) AND rowid>? ORDER BY rowid"
        if self.version < 4:
            found = found.replace("launch=?", "?=''")
        return self._all(Attempt, found, since, until, launch or "-", after)

    def newest(self, table: str, column: str = "rowid", *, after: int = 0) -> float:
        """Return the highest value of a column, the place of the newest row; 0 if no row is `after` that place."""
        row = self.db.execute(f"SELECT max({column}) AS newest FROM {table} WHERE rowid>?", (after,)).fetchone()
        return row["newest"] or 0

    def open_attempt(self) -> Attempt | None:
        """The intent: an attempt that was decided and not yet carried out to its end."""
        return self._one(Attempt, "WHERE is_open=1 ORDER BY rowid DESC LIMIT 1")

    def last_move(self) -> tuple[Attempt, Incident] | None:
        """Return the attempt that moved code last, with its incident, None before the first."""
        attempt = self._one(
            Attempt,
            "WHERE rung NOT IN ('restart', 'halted', 'asked') AND is_open=0 AND incident IN "
            "(SELECT id FROM incidents WHERE generation_from IS NOT NULL) ORDER BY rowid DESC LIMIT 1",
        )
        incident = self.incident(attempt.incident) if attempt else None
        return (attempt, incident) if attempt and incident else None

    def step(self, incident: str, attempt: int, name: str) -> StepRecord | None:
        """Return a step of an attempt, None if it was not begun."""
        return self._one(StepRecord, "WHERE incident=? AND attempt=? AND name=?", incident, attempt, name)

    def steps(self, incident: str) -> list[StepRecord]:
        """Return the steps of an incident in the order of their beginning."""
        return self._all(StepRecord, "WHERE incident=? ORDER BY attempt, rowid", incident)

    def request(self, number: int) -> Request | None:
        """Return a request, None if there is none of that number."""
        return self._one(Request, "WHERE number=?", number)

    def next_request(self) -> Request | None:
        """Return the oldest request that no incident has taken up."""
        return self._one(Request, "WHERE incident='' ORDER BY number LIMIT 1")

    def waiting_requests(self, verb: str) -> list[Request]:
        """Return the requests of one verb that no incident has taken up, oldest first."""
        return self._all(Request, "WHERE incident='' AND verb=? ORDER BY number", verb)

    # -- changes --------------------------------------------------------------------------------------------

    def changes(self) -> list[ChangeRecord]:
        """Every change, oldest first; none in a ledger from before there were any."""
        if self.version < 2:
            return []
        rows = self.db.execute("SELECT * FROM changes ORDER BY rowid").fetchall()
        return [_change_of(row) for row in rows]

    def change(self, name: str) -> ChangeRecord | None:
        """Return a change by its name, None if there is none."""
        if self.version < 2:
            return None
        row = self.db.execute("SELECT * FROM changes WHERE name=?", (name,)).fetchone()
        return _change_of(row) if row else None


def _change_of(row: dict[str, Any]) -> ChangeRecord:
    return ChangeRecord(**{**row, **{name: fast_json.loads(row[name]) for name in CHANGE_RECORDS}})


def _in_words(error: Exception, path: str = "") -> str:
    """SQLite says `disk I/O error` of many things; its name tells them apart, of a file the system's word."""
    name = getattr(error, "sqlite_errorname", "")
    if "CANTOPEN" in name and path:
        return f"{error}: {_why_not(path)}"
    return f"{error} ({name})" if "IOERR" in name else str(error)


def _why_not(path: str) -> str:
    """Open what SQLite could not, as it would; return what the system says."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        for suffix in ("-wal", "-shm"):
            os.close(os.open(path + suffix, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        return str(error)
    return "now it can be"


def _is_the_file_s_fault(code: int) -> bool:
    """Tell damage from a disk that is full or broken elsewhere: then the same file may be whole tomorrow."""
    if code & 0xFF == sqlite3.SQLITE_IOERR:
        return code in OF_THE_FILE
    return code & 0xFF not in NOT_THE_FILE_S_FAULT


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
