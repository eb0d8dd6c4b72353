"""A PostgreSQL server of our own: in a temporary folder, behind a unix socket in it, as a user who is not root."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from kit import deadline

START_SECONDS, STOP_SECONDS = 60.0, 30.0
USER = "agentctl"  # of the database; who can reach the socket is let in
DEBIAN = "/usr/lib/postgresql/*/bin"
UNPRIVILEGED = ("postgres", "nobody")  # the server refuses to be root


class PostgresError(Exception):
    """The server could not do what was asked."""


def why_not() -> str:
    """Say what hinders a server on this machine, or nothing."""
    lacking = [name for name in ("initdb", "postgres") if not _program(name)]
    return f"not installed: {', '.join(lacking)} (Debian: postgresql)" if lacking else ""


class Postgres:
    """One server; `with Postgres() as server:` makes and starts it, and removes all of it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agp", dir="/tmp"))  # a socket's path has to be short
        self.log_path = self.folder / "log"
        self._as_user = ["setpriv", "--pdeathsig", "INT"]  # it ends when we do, however that happens
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user += ["--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
        self._process: subprocess.Popen | None = None
        self._places = 0

    def __enter__(self) -> Postgres:
        try:
            self._process = self._run("initdb", "--no-sync", "--auth=trust", f"--username={USER}", "--encoding=UTF8",
                                      "--locale=C", "--pgdata", self.data)  # fmt: skip
            if done := deadline.wait(self._process, "initdb", START_SECONDS, self.log_path):
                raise PostgresError(f"initdb ended with status {done}:\n{self.log()}")
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def data(self) -> str:
        return f"{self.folder}/data"

    def start(self) -> Postgres:
        """Start it, for the first time or again; return when it answers."""
        self._process = self._run("postgres", "-D", self.data, "-k", self.folder, "-c", "listen_addresses=",
                                  "-c", "shared_buffers=16MB", "-c", "max_connections=30",
                                  "-c", "recovery_init_sync_method=syncfs")  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect().close()
                return self
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise PostgresError(f"the server does not answer: {error}\n{self.log()}") from None
                time.sleep(0.02)

    def crash(self) -> None:
        """End it without a word to its clients and without writing what it has in memory."""
        self._end(signal.SIGQUIT)

    def new_place(self) -> str:
        """Make an empty place for tables, a schema (cheaper than a database); return its address for SQLAlchemy."""
        self._places += 1
        name = f"place{self._places}"
        with self._connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql+psycopg://{USER}@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def close(self) -> None:
        """End it and remove its folder."""
        self.crash()  # what it would write in peace is removed anyway
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")[-4000:]

    def _connect(self):
        return psycopg.connect(host=str(self.folder), user=USER, dbname="postgres", autocommit=True)

    def _run(self, program: str, *words: object) -> subprocess.Popen:
        argv = [*self._as_user, "--", _program(program), *map(str, words)]
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(argv, env={"LC_ALL": "C"}, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log)  # fmt: skip

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        with contextlib.suppress(TimeoutError):  # it is killed then
            deadline.wait(process, timeout=STOP_SECONDS)


def _program(name: str) -> str | None:
    newest_first = sorted(glob.glob(DEBIAN), key=lambda path: float(path.split("/")[4]), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*newest_first, os.environ.get("PATH", "")]))


def _unprivileged() -> pwd.struct_passwd:
    known = {user.pw_name: user for user in pwd.getpwall()}
    return next(known[name] for name in UNPRIVILEGED if name in known)
