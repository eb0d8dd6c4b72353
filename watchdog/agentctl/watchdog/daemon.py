"""The watchdog: `agentctl watchdog`, `NAME-watchdog.service`. HTTP API, history, heartbeats, offline detection.

The recovery path works with it dead. This opens everything, serves until it is told to stop, and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time

from ..config.context import Lock, find_paths
from ..core.errors import EXIT_DONE, EXIT_LOCK_HELD, AgentctlError, LockHeld, StoreUnavailable, in_words
from ..generations.agent_context import AgentContext
from ..host.journald import Journal, open_journal
from ..host.sd_notify import Notifier
from ..state import mask
from .api.app import WatchdogApi
from .history_ingest import Shipper
from .monitor import Monitor, steady
from .presence import Presences
from .store import open_store

SHIP_SECONDS = 1.0
TROUBLE_SECONDS = 5.0


def main(name: str) -> int:
    """Serve until a signal ends it; return the exit status."""
    notifier = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    journal = open_journal(f"{name}-watchdog", find_paths(name))
    try:
        context = AgentContext.open(name, lenient=True)
        os.makedirs(context.paths.runtime_dir, mode=0o755, exist_ok=True)
        with Lock(context.paths.watchdog_lock_path, f"a watchdog of '{name}'").take():
            asyncio.run(_serve(context, notifier, journal))
        return EXIT_DONE
    except LockHeld as error:
        journal.error(in_words(error))
        return EXIT_LOCK_HELD
    except (AgentctlError, OSError) as error:
        journal.error(in_words(error))
        return getattr(error, "exit_code", 1)


async def _serve(context: AgentContext, notifier: Notifier, journal: Journal) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    store = open_store(context.paths.store_path)
    lives = Presences(context.paths.name, steady())
    server = Daemon(context, store, lives, mask.Masker(_secrets(context)), journal)
    server.watch = Monitor(server, notifier)
    await server.open()
    tasks = [asyncio.create_task(server.watch.run()), asyncio.create_task(_ship(server))]
    gc.collect()
    gc.freeze()  # what is here now stays: walking over it again would only cost
    notifier.ready(f"watching '{context.paths.name}'")
    journal.info(f"agentctl: watching '{context.paths.name}', {context.config.watchdog.listen}")
    waiting = asyncio.create_task(over.wait())
    done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    notifier.stopping()
    for task in [waiting, *tasks]:
        task.cancel()
    await server.close()
    await asyncio.to_thread(store.close)
    for task in done - {waiting}:
        task.result()  # a watch that ended has failed, and says why


class Daemon(WatchdogApi):
    """The server that tells the journal and the store what happens."""

    def __init__(self, context, store, lives, masker, journal: Journal) -> None:
        super().__init__(context, store, lives, masker, lambda text: journal.info(f"agentctl: {masker.all(text)}"))

    def note(self, kind: str, text: str, agent: str = "") -> None:
        """Record what happened, in the store and in the journal."""
        name = agent or self.name
        self.say(f"{name}: {kind}" + (f": {text}" if text else ""))
        self.store.add_event(time.time(), name, kind, text)


async def _ship(server: WatchdogApi) -> None:
    """Carry the agent's history file into the store, for ever; what goes wrong is tried again."""
    shipper = Shipper(server.name, server.context.history_path, server.store)
    told = ""
    while True:
        try:
            has_more = await server.blocking(shipper.step)
            told = ""
        except (StoreUnavailable, OSError) as error:
            if str(error) != told:
                told = str(error)
                server.say(f"the history is not carried into the store: {error}")
            has_more = False
            await asyncio.sleep(TROUBLE_SECONDS)
        if not has_more:
            await asyncio.sleep(SHIP_SECONDS)


def _secrets(context: AgentContext) -> list[str]:
    """List what is secret and was given to us: by variables that are called so, and by systemd's credentials."""
    known = mask.of_agent(context.config.agent, dict(os.environ))
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if folder:
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError, UnicodeDecodeError), open(entry.path, encoding="utf-8") as file:
                known.append(file.read(65536).strip())
    return known
