"""What the children of `job_queue` do: bless a candidate, prepare the standby, save condemned work.

Each can be killed at any line and is then simply done again.
"""

from __future__ import annotations

import _sqlite3 as sqlite3
import os

from ..core import fast_json
from ..core.errors import EXIT_FAILED, AgentctlError, CommandFailed, in_words
from ..generations import lifecycle
from ..generations.agent_context import AgentContext
from ..host import command, disk_space
from ..host.command import DEFAULT_PATH
from ..ledger import incidents, models, writers
from ..ledger.database import Ledger
from ..ledger.models import Attempt, Generation

EXIT_CHECK_FAILED = 3
KEPT = "refs/agentctl/kept/"
KNOWN = ("refs/agentctl/commit/", KEPT)  # what the vault has of the agent's own history


def main(name: str, job: str, *args: str) -> int:
    """Run one job by name; return its exit status."""
    os.nice(10)
    try:
        context = AgentContext.open(name, lenient=True)
        with context.ledger() as ledger:
            known = {
                "bless": bless,
                "standby": standby,
                "save-work": save_work,
                "ballast": ballast,
                "change-snapshot": change_snapshot,
                "promote": promote,
                "page": page,
            }
            return known[job](context, ledger, *args)
    except (AgentctlError, OSError, sqlite3.Error) as error:
        print(f"agentctl: {job}: {in_words(error)}", flush=True)
        return EXIT_FAILED


def bless(context: AgentContext, ledger: Ledger, number: str, launch_id: str) -> int:
    """End a trial well: required checks, a whole vault, a snapshot, then the line that makes it good."""
    settings = context.config.probation
    complaint = failing_check(context, settings.advisory)
    if complaint:
        ledger.event("advice", complaint)
        print(f"agentctl: advisory only: {complaint}", flush=True)
    failed = failing_check(context, settings.required)
    if failed:
        ledger.set_meta(f"check {launch_id}", failed)
        return EXIT_CHECK_FAILED
    make_good(context, ledger, int(number), "passed its trial")
    return standby(context, ledger, number)


def change_snapshot(context: AgentContext, ledger: Ledger, name: str) -> int:
    """Snapshot the state at the departure of a change that the agent began."""
    from ..changes import service  # needs what the recovery path must not load

    service.snapshot_for(context, ledger, name)
    return 0


def page(context: AgentContext, ledger: Ledger, number: str) -> int:
    """Tell a human that a confirmation did not come; who asked to be paged wants it to run on."""
    from ..host.alert_command import send

    ledger.event("page", f"generation {number} was not confirmed in time; it runs on, as its promotion asked")
    writers.set_deadline(ledger, int(number), None)
    send(context, f"running on unconfirmed (generation {number})")
    return 0


def promote(context: AgentContext, ledger: Ledger, name: str) -> int:
    """Prepare a promotion that the agent asked for; 0 if the recovery process is to be started for it."""
    from ..changes import promote as promotion

    try:
        why = promotion.prepare(context, ledger, name)
    except (AgentctlError, OSError) as error:  # who asked waits for the request or for a reason
        promotion.cancel(ledger, name, in_words(error)[:500])
        raise
    if why:
        print(f"agentctl: change {name} is not promoted: {why}", flush=True)
    return EXIT_FAILED if why else 0


def make_good(context: AgentContext, ledger: Ledger, number: int, reason: str) -> None:
    """Bless a generation and, in a container, the image that it runs in."""
    lifecycle.make_good(context, ledger, number, reason, mark_image=lambda: _mark_image(context, ledger, number))


def _mark_image(context: AgentContext, ledger: Ledger, number: int) -> None:
    if context.is_contained:
        from ..runtime.container import compose_project, images

        images.mark_good(compose_project.ComposeProject(context), ledger, number)


def standby(context: AgentContext, ledger: Ledger, number: str) -> int:
    """Prepare the standby of the last known good generation."""
    lifecycle.prepare_standby(context, ledger, int(number))
    return 0


def failing_check(context: AgentContext, checks: list[list[str]]) -> str:
    """Run checks as the agent's user; return the first that fails, in words, or ''."""
    settings = context.config.probation
    for argv in checks:
        env = {"PATH": DEFAULT_PATH, "AGENT_CODE_DIR": context.code_dir, "AGENT_STATE_DIR": context.state_dir}
        try:
            if context.is_contained:
                _check_inside(context, argv, settings.check_timeout)
                continue
            command.run(
                ["/usr/bin/env", "--", *argv],
                env=env,
                cwd=context.code_dir,
                user=context.user,
                limit_seconds=settings.check_timeout,
            )
        except CommandFailed as error:
            return f"check failed: {error.message}"
    return ""


def _check_inside(context: AgentContext, argv: list[str], limit_seconds: float) -> None:
    """Run a check in the agent's container; raise CommandFailed where it fails there."""
    from ..runtime.container.compose_project import ComposeProject

    place, settings = ComposeProject(context), context.config.compose
    code, state_dir = settings.code or context.code_dir, settings.state or context.state_dir
    words = place.engine.words_inside(
        place.known_container(), argv, code, {"AGENT_CODE_DIR": code, "AGENT_STATE_DIR": state_dir}
    )
    done = place.engine.run(*words, limit_seconds=limit_seconds, check=False)
    if done.status != 0:  # what failed is the check, not docker
        raise CommandFailed(argv, done.status, done.stdout, done.stderr)


def ballast(context: AgentContext, _ledger: Ledger) -> int:
    """Make the ballast as large as the settings say and the disk allows."""
    disk_space.ballast_of(context).refill()
    return 0


def tell_vault(context: AgentContext, ledger: Ledger) -> None:
    """Let the vault know which generations are condemned, so that a lost ledger can be rebuilt."""
    known = context.vault.refs("refs/agentctl/condemned/")
    rows = [g for g in ledger.generations() if g.status == "condemned" and not g.is_pruned]
    wanted = {f"refs/agentctl/condemned/{r.number}": r.vault_commit for r in rows}
    news = {ref: oid for ref, oid in wanted.items() if ref not in known}
    context.vault.update({**news, **{ref: None for ref in known if ref not in wanted}})


def add_journal(ledger: Ledger, incident_id: str) -> None:
    """Where the runner left no last lines (it was killed itself), take them from the journal."""
    proof = ledger.evidence(incident_id)
    if proof.get("last_lines") or not proof.get("launch"):
        return
    from ..recovery import evidence

    argv = ["/usr/bin/journalctl", "--no-pager", "-q", "-o", "cat", "-n", "60", f"AGENTCTL_LAUNCH_ID={proof['launch']}"]
    try:
        lines = command.run(argv, env={"LC_ALL": "C"}, limit_seconds=10).text.splitlines()
    except CommandFailed:
        return  # no journal here; the evidence stays without its lines
    ledger.add_evidence(incident_id, last_lines=lines, stack=evidence.find_stack(lines))


def repair(context: AgentContext, ledger: Ledger, attempt: Attempt, quarantine: str) -> dict:
    """Give the repository back what its broken forerunner still had, and what fsck finds missing; tell what it was."""
    from ..generations import repair_objects

    repository, told = context.repository, {}
    branch, aside = context.config.agent.branch, f"{quarantine}/git-state"
    names = sorted(os.listdir(quarantine)) if os.path.isdir(quarantine) else []
    launched = _launched(ledger, attempt)
    rescue = incidents.rescue_branch(attempt.incident, 1)
    for name in names:
        if name.startswith("git-broken"):
            told["salvaged"] = repair_objects.salvage(repository, f"{quarantine}/{name}", aside, branch, rescue)
    damaged = repair_objects.find(repository)
    if damaged:
        known = [oid for ref, oid in context.vault.refs("refs/agentctl/").items() if ref.startswith(KNOWN)]
        known += [launched.tree] if launched else []  # files that were captured, and are gone from its own commit
        told["damaged"] = damaged
        told["set_aside"] = repair_objects.repair(repository, context.vault.git, list(dict.fromkeys(known)), aside)
        for ref, oid in context.vault.refs(KEPT).items():
            repository.git.run("update-ref", f"refs/{ref.removeprefix(KEPT)}", oid, "0" * len(oid), check=False)
        told["left"] = repair_objects.find(repository)
    target = ledger.generation(attempt.target)
    for path, commit in context.vault.links(target.vault_commit).items():
        repair_objects.put_submodule(repository, path, commit, rescue)
    if launched:
        repair_objects.keep_launched(repository, context.vault.git, launched.commit_id, f"{rescue}-launched")
    return told


def _launched(ledger: Ledger, attempt: Attempt) -> Generation | None:
    """Find the generation that failed; an undo condemns none."""
    incident = ledger.incident(attempt.incident)
    return ledger.generation(incident.generation_from) if incident and attempt.rung != "undo" else None


def tell_repaired(context: AgentContext, ledger: Ledger, attempt: Attempt, quarantine: str) -> None:
    """Mend the repository and tell the incident; where that fails, the rest is saved all the same."""
    try:
        told = repair(context, ledger, attempt, quarantine)
    except (AgentctlError, OSError) as error:
        told = {"not mended": str(error)[:1000]}
    if told:
        ledger.add_evidence(attempt.incident, repository=told)


def save_work(context: AgentContext, ledger: Ledger, incident_id: str) -> int:
    """Commit what the condemned tree held beyond its commit onto `rescue/<incident>`, complete the evidence."""
    add_journal(ledger, incident_id)
    tell_vault(context, ledger)
    moves = [a for a in ledger.attempts(incident_id) if a.rung != models.RESTART]
    for move, attempt in enumerate(moves, 1):
        tell_repaired(context, ledger, attempt, context.slots.quarantine_path(incident_id, move))
    for move, attempt in enumerate(moves, 1):
        tree = f"{context.slots.quarantine_path(incident_id, move)}/tree"
        done = [s for s in ledger.steps(incident_id) if s.attempt == attempt.number]
        steps = {s.name: s.detail for s in done if s.detail}
        if attempt.rung == "undo" or not os.path.isdir(tree) or "evidence" not in steps:
            continue
        told = fast_json.loads(steps.get("repository", "{}"))
        branch = told.get("rescue_branch") or incidents.rescue_branch(incident_id, move)
        head = told.get("head") or fast_json.loads(steps["evidence"]).get("head", "")
        message = f"Work set aside by incident {incident_id}\n"
        try:
            context.repository.commit_work(tree, branch, head, message, context.staging.path)
        except CommandFailed:
            if not head:
                raise
            context.repository.commit_work(tree, branch, "", message, context.staging.path)
    return 0
