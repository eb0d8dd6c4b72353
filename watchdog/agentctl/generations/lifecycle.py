"""The life of a generation: captured, recorded, laid out in a slot, and blessed.

Each of it can be killed at any line and is then simply done again. Nothing here decides; nothing is condemned here.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..config.context import Lock
from ..core import fast_json
from ..core.errors import AgentctlError, CommandFailed, is_no_storage
from ..ledger import models, writers
from ..ledger.database import Ledger
from ..ledger.models import Generation
from ..state import agent_state
from . import slots
from .agent_context import AgentContext
from .tree_capture import CapturedTree, is_byte_code, is_data

FORCED = "forced"  # the source of a generation whose tree was condemned before
BY_FAILURE = (models.FAILED, models.LOST, models.REBOOTED)
MOST_DATA_FILES = 1000  # more are asked about too slowly; the tree counts as another one then
STANDBY_WAIT_SECONDS = 60.0
CANDIDATE_WAIT_SECONDS = 600.0


def identify(
    context: AgentContext, ledger: Ledger, choose_tries: Callable[[Generation | None], tuple[int, bool]] | None = None
) -> Generation:
    """Find the generation that the live tree is, or capture it as a new candidate; return its row.

    `choose_tries(before)` says with how many tries that begins, and whether they are the rest of those of `before`,
    the generation that ran last.
    """
    choose_tries = choose_tries or (lambda _before: (context.config.probation.tries, False))
    try:
        return _identify(context, ledger, choose_tries)
    except CommandFailed as error:  # a power cut may have emptied the scratch repository's objects
        if is_no_storage(error):
            raise
        from .repair_staging import renew

        renew(context.staging)
        return _identify(context, ledger, choose_tries)


def _identify(
    context: AgentContext, ledger: Ledger, choose_tries: Callable[[Generation | None], tuple[int, bool]]
) -> Generation:
    capture = _capture(context)
    _note_left_out(ledger, capture.problems)
    known = ledger.generations_of_tree(capture.tree)
    for generation in known:
        if generation.source == FORCED and generation.status != "condemned":
            break  # somebody wanted this tree once more, after it was condemned
        if generation.status == "condemned":
            return generation
    held = [g for g in known if not g.is_pruned]
    for generation in held:
        if generation.commit_id == capture.commit:
            return generation
    good = next((g for g in (*held, *known) if g.status == "good"), None)
    if good in held and not capture.is_clean:
        return good  # a good tree over another commit: that commit says nothing of what would run
    ran = ledger.last_run()
    before = ledger.generation(ran.generation) if ran else None
    if not known and ran and before and _is_same_code(context, before, capture, after_failure=ran.end in BY_FAILURE):
        return before
    tries, is_rest = (0, False) if good else choose_tries(before)
    heir_of = before if is_rest else None
    return add_generation(
        context, ledger, capture, source="capture", same_as=good, tries=None if good else tries, heir_of=heir_of
    )


def _capture(context: AgentContext) -> CapturedTree:
    commit, tree, branch = context.repository.look()
    branch = branch or context.config.agent.branch
    return context.staging.capture(context.repository.git, commit, branch, commit_tree=tree)


def has_changed(context: AgentContext, ledger: Ledger, generation: Generation) -> bool:
    """Tell whether the live tree is another one than a generation's, and not only in what is no code."""
    capture = _capture(context)
    is_known = any(known.number == generation.number for known in ledger.generations_of_tree(capture.tree))
    return not is_known and not _is_same_code(context, generation, capture, after_failure=False)


def _is_same_code(context: AgentContext, before: Generation, capture: CapturedTree, *, after_failure: bool) -> bool:
    """Tell whether a tree differs from a generation of the same commit only in byte code.

    `after_failure` also in data that the agent wrote beside its code: what it wrote while it failed is no change of it.
    """
    if before.status == "condemned" or before.is_pruned or before.commit_id != capture.commit or not capture.commit:
        return False
    changed = context.staging.compare(before.tree, capture.tree)
    if not changed:
        return False
    others = [name for name, _ in changed if not is_byte_code(name)]
    if not others:
        return True
    if not after_failure or len(others) > MOST_DATA_FILES or not all(is_data(*one) for one in changed):
        return False
    return not context.staging.list_tracked(context.repository.git, others)


def _note_left_out(ledger: Ledger, problems: list[str]) -> None:
    """What a capture could not take is said when it is new, and known until a capture takes everything."""
    said = "; ".join(problems)[:2000]
    if said == (ledger.meta("left_out") or ""):
        return
    with ledger.transaction():
        ledger.set_meta("left_out", said or None)
        if said:
            ledger.event("left-out", f"the copy of the tree lacks: {said}")


def add_generation(
    context: AgentContext,
    ledger: Ledger,
    capture: CapturedTree,
    *,
    source: str,
    same_as: Generation | None = None,
    status: str = "candidate",
    reason: str = "",
    tries: int | None = None,
    heir_of: Generation | None = None,
) -> Generation:
    """Bring a captured tree into the vault and record it: ledger line last, so that it never points at nothing.

    A tree that equals a good one (`same_as`) is good: only the commit around it is new. It has `tries`, by default as
    many as are set; those are taken from `heir_of`, if it is another's heir.
    """
    number = ledger.newest_number() + 1
    now = time.time()
    if same_as is not None:
        status, reason = "good", f"same tree as generation {same_as.number}"
    facts = {"number": number, "commit": capture.commit, "branch": capture.branch, "created_at": now, "source": source}
    message = f"generation {number}\n\n{fast_json.dumps(facts)}\n"
    made = context.vault.add_generation(number, capture, context.staging, context.repository.git, message)
    if status == "good":
        context.vault.update({f"refs/agentctl/good/{number}": made})
    with ledger.transaction():
        writers.add_generation(
            ledger,
            number,
            vault_commit=made,
            commit_id=capture.commit,
            tree=capture.tree,
            branch=capture.branch,
            status=status,
            source=source,
            created_at=now,
            blessed_at=now if status == "good" else None,
            reason=reason,
            tries_left=context.config.probation.tries if tries is None else tries,
        )
        told = f"generation {number} ({status}): {capture.commit[:12]} on {capture.branch}"
        if heir_of is not None:
            writers.set_tries(ledger, heir_of.number, 0)
            told += f", with what generation {heir_of.number} had left of its tries: {tries}"
        ledger.event("generation", told)
    return known_generation(ledger, number)


def known_generation(ledger: Ledger, number: int) -> Generation:
    """Return a generation that is on record for sure."""
    found = ledger.generation(number)
    assert found is not None, f"generation {number} is on record"
    return found


def make_good(
    context: AgentContext, ledger: Ledger, number: int, reason: str, *, mark_image: Callable[[], None] | None = None
) -> None:
    """Bless a generation, and its image by `mark_image`: raise AgentctlError if the vault does not hold it whole."""
    generation = known_generation(ledger, number)
    if generation.is_pruned:
        raise AgentctlError(
            f"cannot bless generation {number}: it was pruned, the vault holds its tree no more",
            "put its code in place and restart: it becomes a new generation",
        )
    damage = context.vault.check([generation.vault_commit])
    if damage:
        raise AgentctlError(f"cannot bless generation {number}: the vault is damaged: {damage[:500]}")
    last = ledger.last_launch()
    is_of_now = not generation.snapshot or (last is not None and last.generation == number)
    snapshot = agent_state.take_snapshot(context) if is_of_now else generation.snapshot
    context.vault.update({f"refs/agentctl/good/{number}": generation.vault_commit})
    if f"refs/agentctl/condemned/{number}" in context.vault.refs("refs/agentctl/condemned/"):
        context.vault.update({f"refs/agentctl/condemned/{number}": None})
    if mark_image is not None:
        mark_image()
    with ledger.transaction():
        writers.bless(ledger, number, at=time.time(), reason=reason, snapshot=snapshot)
        ledger.event("bless", f"generation {number} is good: {reason}")


def prepare_standby(context: AgentContext, ledger: Ledger, number: int) -> None:
    """Lay out the standby of the last known good generation, unless it stands already; `number` is the live one."""
    good = ledger.last_known_good()
    if good is None or context.slots.standby_note().get("generation") == good.number:
        return
    # The environment can only be copied while the tree it belongs to is the live one.
    links = list(context.vault.links(good.vault_commit))  # the vault has no content of theirs
    environment = [*context.config.environment.paths, *links] if good.number == number else []
    with _standby_lock(context).take(wait_seconds=STANDBY_WAIT_SECONDS):
        context.slots.prepare(
            context.vault, good.number, good.vault_commit, context.vault.own_commit(good), environment
        )
    context.vault.keep_branches(context.repository.git)
    context.repository.hide()


def candidate_slot(context: AgentContext) -> slots.Slots:
    """Return a slot like the standby, beside it: the standby has to stay what a failing candidate goes back to."""
    own = context.slots
    if own.is_inside:  # the code is a mount point: one tree inside it has to do, and a rollback lays its own out
        return own
    slot = slots.Slots(own.folder, own.live, own.owner, notes=own.notes, is_mounted=own.is_mounted)
    slot.standby = f"{own.folder}/standby-candidate"
    slot.standby_index, slot._note_path = (f"{own.notes}/standby-candidate.{end}" for end in ("index", "json"))
    return slot


def prepare_candidate(context: AgentContext, generation: Generation) -> slots.Slots:
    """Lay out the candidate's tree, unless it stands already."""
    slot = candidate_slot(context)
    with _standby_lock(context).take(wait_seconds=CANDIDATE_WAIT_SECONDS):
        if slot.standby_note().get("generation") != generation.number:
            slot.prepare(context.vault, generation.number, generation.vault_commit, generation.commit_id, [])
    return slot


def _standby_lock(context: AgentContext) -> Lock:
    return Lock(f"{context.paths.data_dir}/standby.lock", "another standby")
