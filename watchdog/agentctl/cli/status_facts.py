"""Gather what `status` speaks of: the ledger, the runner's live status, /proc, locks. Reads only.

What cannot be read is named in `problems` and missing from the facts, no more. It never takes a lock:
even for an instant that could turn a runner away. It decides nothing.
"""

from __future__ import annotations

import contextlib
import os

from ..config.context import boot_id, find_paths
from ..config.sections import Config
from ..core import fast_json
from ..core.errors import AgentctlError
from ..core.paths import SYSTEM, AgentPaths
from ..host import procfs
from ..ledger import database
from ..ledger.incidents import counted_attempts
from ..ledger.models import Attempt, Generation, Incident, Launch
from ..recovery.policy import DAY_SECONDS
from ..runtime import status_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..generations.agent_context import AgentContext

LEDGER_HINT = (
    "the next start or rollback rebuilds it from the vault and keeps the broken file; 'agentctl logs' tells more"
)


class StatusFacts:
    """Plain facts about one agent at one moment; rows as the ledger gives them."""

    def __init__(self, name: str, now: float, **known: object) -> None:
        self.name, self.now = name, now
        self.problems: list[dict[str, str]] = []
        self.config: Config | None = None
        self.has_ledger = False
        self.generations: list[Generation] = []
        self.launch: Launch | None = None
        self.incident: Incident | None = None  # the newest, open or ended
        self.attempts: list[Attempt] = []  # of the open incident
        self.recent: list[Attempt] = []  # attempts of the last day
        self.trial: list[Launch] = []  # launches since the last good code ran, newest first
        self.head = ""  # the commit that the agent's repository is on, '' if nobody can say
        self.intent: Attempt | None = None  # the attempt that is decided and not carried out to its end
        self.step = ""  # which step of it is under way
        self.switched: int | None = None  # the generation that a rollback has just put in place
        self.halted, self.paused_until = "", 0.0
        self.over_budget: dict[str, str] = {}  # what of the past `prune` would free, by kind
        self.live: dict = {}
        self.is_runner_alive = self.is_agent_alive = False
        self.is_locked = False  # a runner, or the recovery process, holds the agent's lock
        self.is_rolling_back = False  # the recovery process holds its lock
        self.watchdog: dict = {}  # what the watchdog last said
        self.is_watchdog_alive = False
        vars(self).update(known)

    def add_problem(self, message: str, hint: str = "") -> None:
        """Note something that stands in the way of the whole picture."""
        self.problems.append({"message": message, "hint": hint})


def gather(name: str, now: float) -> StatusFacts:
    """Read everything that can be read; raise AgentctlError if there is no agent of that name."""
    facts = StatusFacts(name, now)
    paths = choose_paths(name)
    if not os.path.exists(paths.config_path):
        if not _ask_runner(facts, paths):
            raise AgentctlError(
                f"there is no agent called '{name}' here ({paths.config_path} is missing)",
                "agentctl init PATH -- COMMAND adopts one",
            )
        facts.add_problem("this is what the runner says; the rest cannot be read by this user")
        return facts
    _read_config(facts, paths)
    _read_ledger(facts, paths)
    _read_live(facts, paths)
    _read_head(facts, paths)
    _read_strays(facts, paths)
    return facts


def choose_paths(name: str) -> AgentPaths:
    """Find the agent's places; a user without an agent of that name may mean the system's."""
    paths = find_paths(name)
    is_own = paths.scope == SYSTEM or paths.root or "AGENTCTL_SCOPE" in os.environ
    if is_own or os.path.exists(paths.config_path):
        return paths
    system = AgentPaths(name, SYSTEM, dict(os.environ), os.getuid())
    return system if os.path.exists(system.config_path) else paths


def _read_config(facts: StatusFacts, paths: AgentPaths) -> None:
    from ..config.load import load_last_valid

    try:
        facts.config, complaint = load_last_valid(paths.config_path, paths.config_cache_path)
    except AgentctlError as error:
        facts.add_problem(error.message, error.hint)
        return
    if complaint:
        facts.add_problem(complaint, "the last valid settings are used until it is corrected")


def _read_ledger(facts: StatusFacts, paths: AgentPaths) -> None:
    if not _may_read(paths.ledger_path):
        facts.add_problem(
            f"the ledger {paths.ledger_path} cannot be read by this user",
            f"sudo agentctl --name {facts.name} status",
        )
        return
    try:
        with database.Ledger(paths.ledger_path, read_only=True) as ledger:
            _ask_ledger(facts, ledger)
            _ask_budgets(facts, paths, ledger)
        facts.has_ledger = True
    except database.LedgerDamaged as error:
        facts.add_problem(error.message, error.hint or LEDGER_HINT)
    except (database.sqlite3.Error, ValueError, TypeError) as error:
        facts.add_problem(f"the ledger {paths.ledger_path} is damaged: {error}", LEDGER_HINT)


def _may_read(path: str) -> bool:
    """Tell whether we may; a file that is missing is the ledger's own complaint."""
    try:
        os.stat(path)
    except PermissionError:
        return False
    except OSError:
        return True
    return os.access(path, os.R_OK)


def _ask_ledger(facts: StatusFacts, ledger: database.Ledger) -> None:
    facts.generations = ledger.generations()
    facts.launch = ledger.last_launch()
    facts.halted = ledger.meta("halted") or ""
    facts.paused_until = float(ledger.meta("paused_until") or 0)
    facts.incident = ledger.last_incident()
    facts.intent = ledger.open_attempt()
    if facts.intent is not None:
        begun = [s for s in ledger.steps(facts.intent.incident) if s.attempt == facts.intent.number]
        facts.step = begun[-1].name if begun else ""
    opened = ledger.open_incident()
    if opened is not None:
        facts.attempts = ledger.attempts(opened.id)
    facts.recent = counted_attempts(ledger, facts.now, DAY_SECONDS)
    facts.trial = ledger.launches_since_good()
    facts.switched = fast_json.loads(ledger.meta("switched") or "{}").get("generation")


def _open(paths: AgentPaths, config: Config) -> AgentContext:
    from ..generations.agent_context import AgentContext

    return AgentContext(paths, config)


def _read_head(facts: StatusFacts, paths: AgentPaths) -> None:
    """Look which commit the agent's repository is on; whoever may not ask as the agent's user is not told."""
    if facts.config is None:
        return
    with contextlib.suppress(AgentctlError, OSError):
        facts.head = _open(paths, facts.config).repository.head()[0]


def _ask_budgets(facts: StatusFacts, paths: AgentPaths, ledger: database.Ledger) -> None:
    """Look whether the past takes more than it may; whoever cannot look is not told."""
    if facts.config is None:
        return
    from ..retention.holdings import over_budget

    with contextlib.suppress(AgentctlError, OSError):
        facts.over_budget = over_budget(_open(paths, facts.config), ledger, facts.now)


def _read_live(facts: StatusFacts, paths: AgentPaths) -> None:
    """Read the live status and tell who of it is still alive."""
    locks = procfs.read_locks()
    facts.is_locked = procfs.is_locked(paths.agent_lock_path, locks)
    facts.is_rolling_back = procfs.is_locked(paths.rollback_lock_path, locks)
    facts.watchdog = status_file.read(paths.watchdog_status_path)
    facts.is_watchdog_alive = procfs.is_watchdog(facts.watchdog, facts.now)
    if facts.is_watchdog_alive and facts.watchdog.get("store_problem"):
        facts.add_problem(
            f"the watchdog keeps no history now: {facts.watchdog['store_problem']}", "heartbeats and rollbacks go on"
        )
    if kept := facts.watchdog.get("set_aside"):
        facts.add_problem(
            f"the watchdog's store was broken and is set aside: {kept[0]}", "move it away when it has been looked at"
        )
    if not facts.has_ledger and _ask_runner(facts, paths):
        return
    facts.live = status_file.read(paths.live_status_path)
    is_same_boot = facts.launch is None or facts.launch.boot_id == boot_id()
    facts.is_runner_alive = is_same_boot and procfs.is_runner(facts.live.get("runner_pid", 0), facts.name)
    is_contained = "container" in facts.live  # the runner sees its end; its process may be of another world
    facts.is_agent_alive = facts.is_runner_alive and (is_contained or procfs.is_alive(facts.live.get("pid") or 0))


def _read_strays(facts: StatusFacts, paths: AgentPaths) -> None:
    """In a container: a compose file or .env in the repository that differs from the admin's is told."""
    if facts.config is None or facts.config.agent.runtime != "compose":
        return
    from ..config.context import Context
    from ..runtime.container.compose_project import strays

    with contextlib.suppress(AgentctlError, OSError):
        found = strays(Context(paths, facts.config))
        if found:
            facts.add_problem(found, "look at the change, and copy over what you want of it")


def _ask_runner(facts: StatusFacts, paths: AgentPaths) -> bool:
    """Ask the runner itself, which answers root and the agent's user; False if nobody does."""
    from ..runtime import runner_client

    is_inside = os.environ.get("AGENT_NAME") == facts.name and "AGENT_API_URL" in os.environ
    path = runner_client.socket_inside(facts.name) if is_inside else paths.api_socket_path
    if not os.path.exists(path):
        return False
    try:
        facts.live = runner_client.ask(path, "GET", "/health")
    except (AgentctlError, ValueError):
        return False
    facts.is_runner_alive = True
    facts.is_agent_alive = bool(facts.live.get("pid"))
    return True
