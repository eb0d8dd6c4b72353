"""Free what is over its budget: look, decide, and let go of one thing at a time, none of them the last copy.

It may be killed at any line and run again. A tree leaves its place by one rename, after the vault holds what exists
nowhere else. The lock of the rollback is held for each of these instants only: a recovery never waits for us.
"""

from __future__ import annotations

import os
import time

from ..config.context import Lock
from ..core.errors import EXIT_FAILED, AgentctlError, LockHeld, in_words
from ..generations.agent_context import AgentContext
from ..generations.vault import OF_A_GENERATION
from ..host import command
from ..ledger import clock, writers
from ..ledger.database import Ledger
from ..state.snapshots import snapshot
from . import archive, holdings, retention_rules, vault_compaction
from .holdings import Holdings
from .retention_rules import PruneChoice, Sizes

REF = "refs/agentctl/archive"
WORTH_A_COPY = 5  # the vault is copied when one part in so many is free afterwards


def main(name: str) -> int:
    """Prune one agent as its timer asks for; return the unit's exit status."""
    os.nice(10)
    try:
        context = AgentContext.open(name, lenient=True)
        with context.ledger() as ledger, alone(context):
            refuse_in_the_way(context, ledger)
            refuse_leapt_clock(ledger)
            plan = make_plan(context, ledger, time.time())
            carry_out(context, ledger, plan, lambda text: print(text, flush=True))
    except (AgentctlError, OSError) as error:
        print(in_words(error), flush=True)
        return getattr(error, "exit_code", EXIT_FAILED)
    print(f"agentctl: pruned {in_numbers(plan)}", flush=True)
    return 0


def in_numbers(plan: PrunePlan) -> str:
    """Say in one line what a plan has freed."""
    counts = {kind: sum(of == kind for of, _ in plan.done) for kind in retention_rules.KINDS}
    told = ", ".join(f"{count} of the {kind}" for kind, count in counts.items() if count)
    return f"{told}: {retention_rules.as_size(plan.freed_bytes)}" if told else "nothing: nothing is over its budget"


def carry_out(context: AgentContext, ledger: Ledger, plan: PrunePlan, say) -> None:
    """Do what was planned, step by step; raise LockHeld as soon as a rollback wants to work."""
    refuse_in_the_way(context, ledger)
    clear(context)
    for kind in ("quarantine", "evidence"):
        for item, why, _ in plan.choices[kind].pruned:
            if (kind, item.id) in plan.surveys:
                _let_go_of_folder(plan, context, ledger, kind, item.id, why, say)
    for item, why, _ in plan.choices["generations"].pruned:
        _let_go_of_generation(plan, context, ledger, int(item.id), why)
    for item, why, _ in plan.choices["snapshots"].pruned:
        _let_go_of_snapshot(plan, context, ledger, item.id, why)
    _tidy_refs(context, ledger)
    clear(context)
    # What captures have hashed and no index names; the index that is used next stays whole.
    context.staging.git.run("prune", "--expire=2.hours.ago", check=False, limit_seconds=3600)
    _copy_vault(plan, context, ledger, say)


def alone(context: AgentContext) -> Lock:
    """Take the lock that one prune at a time has; raise LockHeld if another one is at work."""
    return Lock(f"{context.paths.data_dir}/prune.lock", "another prune").take()


def archives(context: AgentContext) -> list[str]:
    """List what was archived, as kind/id."""
    return [ref.removeprefix(f"{REF}/") for ref in context.vault.refs(REF)]


def find_archive(context: AgentContext, name: str) -> str:
    """Return the ref of an archive, the tree's where only an id is given; raise AgentctlError if there is none."""
    known = archives(context)
    for wanted in (name, f"quarantine/{name}", f"evidence/{name}"):
        if wanted in known:
            return f"{REF}/{wanted}"
    raise AgentctlError(f"there is no archive '{name}'", f"there are: {', '.join(known) or 'none'}")


def forget(context: AgentContext, ledger: Ledger, name: str) -> str:
    """Let go of an archive, which may be the last copy: only ever asked for by name."""
    ref = find_archive(context, name)
    refuse_in_the_way(context, ledger)
    ledger.event("prune", f"forgotten by hand: {ref.removeprefix(REF + '/')}")
    context.vault.update({ref: None})
    return ref.removeprefix(f"{REF}/")


def refuse_in_the_way(context: AgentContext, ledger: Ledger) -> None:
    """Raise LockHeld while a rollback runs, is asked for or waits to go on."""
    if ledger.open_attempt() is not None or ledger.next_request() is not None:
        raise LockHeld("a rollback is asked for or not finished", "'agentctl status' shows it; prune again after it")
    with Lock(context.paths.rollback_lock_path, "a rollback").take():
        return


def refuse_leapt_clock(ledger: Ledger) -> None:
    """Raise AgentctlError where the clock has leapt: by a wrong one everything is old, or nothing is."""
    why = clock.look(ledger)
    if why:
        raise AgentctlError(
            f"nothing was pruned, the clock has leapt: {why}",
            "if it is right now: agentctl prune --yes --clock-is-right",
        )


def clear(context: AgentContext) -> None:
    """Remove what was let go of before, by us or by one that was killed."""
    trash = [f"{context.slots.folder}/pruned", f"{context.paths.incidents_dir}/.pruned"]
    root = context.paths.snapshots_dir
    names = os.listdir(root) if os.path.isdir(root) else []
    trash += [f"{root}/{name}" for name in names if name.startswith(".") and name.endswith(".pruned")]
    for path in trash:
        if os.path.lexists(path):
            archive.open_up(path)
            command.run(["/bin/rm", "-rf", "--one-file-system", "--", path], env={"LC_ALL": "C"}, limit_seconds=7200)
    vault_compaction.clear(context.vault)


# -- letting go ---------------------------------------------------------------------------------------------


def _let_go_of_folder(
    plan: PrunePlan, context: AgentContext, ledger: Ledger, kind: str, name: str, why: str, say
) -> None:
    """Archive what exists nowhere else, then take the folder out of its place in one rename."""
    folder = plan.held.paths[kind][name]
    mode = os.stat(folder).st_mode & 0o7777
    os.chmod(folder, 0o700)  # from here on nobody but us looks into it or adds to it
    try:
        archive.open_up(folder)
        found = survey(context, kind, folder)
        if found.unreadable:
            raise AgentctlError(f"cannot be read: {', '.join(found.unreadable[:3])}")
        limit = context.config.retention.archive_size
        if limit and found.new_bytes > limit:
            raise AgentctlError("more in it exists nowhere else by now")
        if found.entries:
            archive.pack(found, context.vault, f"{REF}/{kind}/{name}")
        with _Instant(context, ledger) as held:
            item = next((i for i in held.items(kind) if i.id == name), None)
            if item is None or item.guard:
                raise AgentctlError(f"is needed by now: {item.guard if item else 'gone'}")
            _move_away(folder, context, kind, name)
            ledger.event("prune", f"{kind} {name}: {why}")
    except LockHeld:
        os.chmod(folder, mode)
        raise
    except (AgentctlError, OSError) as error:
        if os.path.isdir(folder):
            os.chmod(folder, mode)
        plan.stays.append((kind, name, str(error)))
        say(f"{kind} {name} stays: {error}")
        return
    plan.done.append((kind, name))
    clear(context)


def _move_away(folder: str, context: AgentContext, kind: str, name: str) -> None:
    trash = f"{context.slots.folder}/pruned" if kind == "quarantine" else f"{context.paths.incidents_dir}/.pruned"
    os.makedirs(trash, mode=0o700, exist_ok=True)
    os.rename(folder, f"{trash}/{name.replace('/', '%')}-{os.urandom(3).hex()}")


def _let_go_of_generation(plan: PrunePlan, context: AgentContext, ledger: Ledger, number: int, why: str) -> None:
    """The ledger's line loses its commit first: from then on nobody chooses it, and its refs may go at any time."""
    with _Instant(context, ledger) as held:
        if any(item.guard for item in held.items("generations") if item.id == str(number)):
            return
        with ledger.transaction():
            writers.let_go(ledger, number)
            ledger.event("prune", f"generation {number}: {why}")
    plan.done.append(("generations", str(number)))


def _tidy_refs(context: AgentContext, ledger: Ledger) -> None:
    """Delete the refs of every generation whose line says that it is pruned, and keep those lines in the vault."""
    pruned = [g for g in ledger.generations() if g.is_pruned]
    held = context.vault.refs("refs/agentctl/g/")
    if any(f"refs/agentctl/g/{row.number}" in held for row in pruned):
        context.vault.prune(pruned)


def _let_go_of_snapshot(plan: PrunePlan, context: AgentContext, ledger: Ledger, name: str, why: str) -> None:
    root = context.paths.snapshots_dir
    with (
        Lock(f"{context.paths.data_dir}/snapshots.lock", "a snapshot").take(wait_seconds=60),
        _Instant(context, ledger) as held,
    ):
        gone = {int(i) for kind, i in plan.done if kind == "generations"}
        item = next((i for i in held.items("snapshots", gone) if i.id == name), None)
        if item is None or item.guard or name == snapshot.list_ids(root)[-1]:
            return
        with ledger.transaction():
            writers.forget_snapshot(ledger, name)
            ledger.event("prune", f"snapshot {name}: {why}")
        os.rename(f"{root}/{name}", f"{root}/.{name}.pruned")
    plan.done.append(("snapshots", name))


class _Instant:
    """Hold off a rollback for one change, and look again at what is needed."""

    def __init__(self, context: AgentContext, ledger: Ledger) -> None:
        self.context, self.ledger = context, ledger
        self.lock = Lock(context.paths.rollback_lock_path, "a rollback")

    def __enter__(self) -> Holdings:
        self.lock.take()
        try:
            if self.ledger.open_attempt() is not None or self.ledger.next_request() is not None:
                raise LockHeld("a rollback is asked for or not finished", "prune again after it")
            return Holdings(self.context, self.ledger)
        except BaseException:
            self.lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def _copy_vault(plan: PrunePlan, context: AgentContext, ledger: Ledger, say) -> None:
    """Free what no ref reaches, where that is worth a copy of the rest."""
    total, reached = plan.vault_bytes = vault_compaction.measure(context.vault, [])
    if total - reached <= total // WORTH_A_COPY:
        return
    must_hold = [
        row.vault_commit for row in ledger.generations() if row.vault_commit and (row.is_golden or row.status == "good")
    ]
    began = time.monotonic()
    try:
        vault_compaction.replace_by_copy(context.vault, must_hold)
    except AgentctlError as error:
        say(f"the vault stays as large as it is: {error.message}")
        return
    plan.vault_freed_bytes = total - vault_compaction.measure(context.vault, [])[0]
    ledger.event("prune", f"the vault was copied in {time.monotonic() - began:.1f}s")


# -- prune plan ------------------------------------------------------------------------------------
# What a prune is going to do: what is over its budget, with sizes, and what has to be archived first. Changes
# nothing.
# A tree that cannot be looked through, or holds more that exists nowhere else than is allowed, stays, and is named.


PLAIN_EVIDENCE = ("evidence.json", "pane.txt", "refs-")  # what is in the ledger too, or can be asked of git


class PrunePlan:
    """What is to go, by kind, with sizes and what has to be archived first; `stays` says what cannot go, and why."""

    def __init__(self, held: Holdings, choices: dict[str, PruneChoice], vault_bytes: tuple[int, int]) -> None:
        self.held, self.choices, self.vault_bytes = held, choices, vault_bytes
        self.surveys: dict[tuple[str, str], archive.Survey] = {}
        self.stays: list[tuple[str, str, str]] = []
        self.done: list[tuple[str, str]] = []
        self.vault_freed_bytes = 0

    @property
    def freed_bytes(self) -> int:
        """Bytes that what goes will free, or what has gone has freed; without what comes into the vault for it."""
        stays = {(kind, name) for kind, name, _ in self.stays}
        sizes = {
            (kind, item.id): size
            for kind, choice in self.choices.items()
            for item, _, size in choice.pruned
            if kind != "generations" and (kind, item.id) not in stays
        }
        return sum(size for key, size in sizes.items() if not self.done or key in self.done) + self.vault_freed_bytes


def make_plan(context: AgentContext, ledger: Ledger, now: float) -> PrunePlan:
    """Look at everything and decide; changes nothing but the note of what was measured."""
    holdings.pin_slots(context)
    held = Holdings(context, ledger)
    sizes = {kind: holdings.measure(paths) for kind, paths in held.paths.items()}
    holdings.remember_sizes(context, sizes)
    choices = held.choose(now, {**sizes, "generations": _measure_generations(context, held)})
    refs = [
        f"refs/agentctl/{kind}/{item.id}" for item, _, _ in choices["generations"].pruned for kind in OF_A_GENERATION
    ]
    plan = PrunePlan(held, choices, vault_compaction.measure(context.vault, refs))
    for kind in ("quarantine", "evidence"):
        for item, _, _ in choices[kind].pruned:
            _look_into(plan, context, kind, item.id)
    return plan


def _measure_generations(context: AgentContext, held: Holdings) -> Sizes:
    """Measure what each generation brought into the vault; only where the vault is over its size."""
    limit = context.config.retention.generations_size
    total, _ = vault_compaction.measure(context.vault, [])
    if not limit or total <= limit:
        return Sizes()
    refs, before, parts = context.vault.refs("refs/agentctl/"), [], []
    for number in (row.number for row in held.held):
        tips = [oid for kind in ("g", "commit") if (oid := refs.get(f"refs/agentctl/{kind}/{number}"))]
        asked = "".join(f"{oid}\n" for oid in tips) + "".join(f"^{oid}\n" for oid in before)
        told = context.vault.git.run("rev-list", "--objects", "--disk-usage", "--stdin", stdin=asked.encode())
        parts.append(((str(number),), int(told.text or 0)))
        before += tips
    return Sizes([*parts, (("the rest of the vault",), max(0, total - sum(size for _, size in parts)))])


def _look_into(plan: PrunePlan, context: AgentContext, kind: str, name: str) -> None:
    """Survey a folder that is to go; where it cannot, say so."""
    folder = plan.held.paths[kind][name]
    settings = context.config
    try:
        found = survey(context, kind, folder)
    except (OSError, RecursionError) as error:
        plan.stays.append((kind, name, f"cannot be looked through: {error}"))
        return
    limit = settings.retention.archive_size
    if limit and found.new_bytes > limit:
        plan.stays.append(
            (
                kind,
                name,
                (
                    f"{retention_rules.as_size(found.new_bytes)} in it exist nowhere else, more than "
                    f"retention.archive_size ({retention_rules.as_size(limit)})"
                ),
            )
        )
        return
    if found.unreadable and os.geteuid() == 0:
        plan.stays.append((kind, name, f"cannot be read: {', '.join(found.unreadable[:3])}"))
        return
    plan.surveys[kind, name] = found


def survey(context: AgentContext, kind: str, folder: str) -> archive.Survey:
    """Survey a folder that is to go; evidence of which all is known elsewhere has nothing to archive."""
    if kind == "evidence" and all(n.startswith(PLAIN_EVIDENCE) for n in os.listdir(folder)):
        return archive.Survey(folder)
    rebuildable = tuple(context.config.environment.paths) if kind == "quarantine" else ()
    return archive.survey(folder, context.vault, context.code_dir, rebuildable)
