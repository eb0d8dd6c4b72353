"""`agentctl task`, `history`, `snapshot`: what the agent resumes from. Writes nothing but what is asked for."""

from __future__ import annotations

import json
import os
import time

import click

from ..core.errors import AgentctlError, UsageError
from ..core.text import clean


@click.group()
def task():
    """The task the agent works on (current_task.md)."""


@task.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show_task(ctx, as_json):
    """Print the task."""
    from ..core import durable
    from ..state import task

    context = ctx.obj.context()
    data = durable.read(context.task_path)
    if data is None:
        raise AgentctlError(f"there is no task: {context.task_path} is missing", "agentctl task edit writes one")
    if not (as_json or ctx.obj.as_json):
        click.echo(clean(data.decode("utf-8", "replace")), nl=False)
        return
    parsed = task.parse_bytes(data)
    click.echo(
        json.dumps(
            {
                "objective": parsed.objective,
                "context": parsed.context,
                "state": parsed.state,
                "pending": [{"done": done, "text": text} for done, text in parsed.pending],
                "path": context.task_path,
            }
        )
    )


@task.command("edit")
@click.pass_context
def edit_task(ctx):
    """Open the task in $EDITOR; what is not a task file is refused and kept beside."""
    from ..core import durable
    from ..state import task

    context = ctx.obj.context()
    before = (durable.read(context.task_path) or TEMPLATE.encode()).decode("utf-8", "replace")
    text = click.edit(before, extension=".md")
    if text is None or text == before:
        click.echo("not changed")
        return
    if not task.is_task(text.encode()):
        kept = f"{context.task_path}.rejected"
        durable.write(kept, text.encode(), 0o644, context.owner)
        raise AgentctlError(
            f"that is not a task file; it is kept as {kept}",
            "it begins with '# Current Task' and keeps its '## ' sections",
        )
    durable.write(context.task_path, text.encode(), 0o644, context.owner)
    click.echo(f"saved {context.task_path}; the agent reads it at its next start, or when it looks")


MOST_FOUND = 1000
TEMPLATE = "# Current Task\n\n\n## Conversation Context\n\n\n## Pending Actions\n\n\n## State\n\n"


@click.group()
def history():
    """The conversation (history.jsonl)."""


@history.command("tail")
@click.option("-n", "count", default=10, show_default=True, help="How many messages.")
@click.option("--stored", is_flag=True, help="Of all that the watchdog has stored.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_context
def tail_history(ctx, count, stored, as_json):
    """Print the newest messages."""
    from ..state import history

    if stored:
        with _store(ctx) as store:
            _print(_parsed(history, store.last(ctx.obj.name, count)), as_json or ctx.obj.as_json)
        return
    _print(history.tail(ctx.obj.context().history_path, count), as_json or ctx.obj.as_json)


@history.command("search")
@click.argument("words")
@click.option("--stored", is_flag=True, help="In all that the watchdog has stored, by its index: each word counts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_context
def search_history(ctx, words, stored, as_json):
    """Print the messages that contain WORDS (not case sensitive)."""
    from ..state import history

    if stored:
        with _store(ctx) as store:
            _print(_parsed(history, store.search(ctx.obj.name, words, MOST_FOUND)), as_json or ctx.obj.as_json)
        return
    wanted = words.casefold()
    found = (
        m
        for m in _messages(history, ctx.obj.context().history_path)
        if wanted in json.dumps(m, ensure_ascii=False).casefold()
    )
    _print(found, as_json or ctx.obj.as_json)


@history.command("export")
@click.option("--stored", is_flag=True, help="All that the watchdog has stored.")
@click.pass_context
def export_history(ctx, stored):
    """Write every whole message to standard output as JSON lines."""
    from ..state import history

    if stored:
        with _store(ctx) as store:
            for message in _parsed(history, store.export(ctx.obj.name)):
                click.echo(json.dumps(message, ensure_ascii=False))
        return
    for message in _messages(history, ctx.obj.context().history_path):
        click.echo(json.dumps(message, ensure_ascii=False))


@history.command("import")
@click.argument("source", type=click.File("r", encoding="utf-8"))
@click.pass_context
def import_history(ctx, source):
    """Append messages from JSON lines; a message whose id is there already is passed over."""
    from ..state import history

    context = ctx.obj.context()
    known = {history.id_of(m) for m in _messages(history, context.history_path)}
    added = passed = 0
    for number, line in enumerate(source, 1):
        try:
            message = history.parse(line.encode())
        except ValueError as error:
            hint = f"{added} messages before it were added"
            raise UsageError(f"line {number} is no message: {error}", hint) from None
        if history.id_of(message) in known:
            passed += 1
            continue
        known.add(history.append(context.history_path, message))
        added += 1
    if context.owner and os.path.exists(context.history_path):
        os.chown(context.history_path, *context.owner, follow_symlinks=False)
    click.echo(f"{added} messages added, {passed} were there already")


def _store(ctx):
    """Open the watchdog's store to read, whether the watchdog runs or not."""
    from contextlib import closing

    from ..watchdog.store import open_store

    return closing(open_store(ctx.obj.context(lenient=True).paths.store_path, is_reader=True))


def _parsed(histories, lines):
    return (histories.parse(line) for line in lines)


def _messages(histories, path: str):
    for raw, _ in histories.lines(path):
        try:
            yield histories.parse(raw)
        except ValueError:
            continue


def _print(messages, as_json: bool) -> None:
    for message in messages:
        if as_json:
            click.echo(json.dumps(message, ensure_ascii=False))
            continue
        content = message.get("content", "")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        click.echo(clean(f"{message.get('at', '?')}  {message.get('role', '?')}: {text}"))


@click.group()
def snapshot():
    """Copies of the state folder."""


@snapshot.command("take")
@click.pass_context
def take_snapshot(ctx):
    """Take a snapshot now."""
    from ..state import agent_state

    click.echo(agent_state.take_snapshot(ctx.obj.context()))


@snapshot.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_snapshots(ctx, as_json):
    """List the snapshots, oldest first, with the generations they belong to."""
    from ..state.snapshots import snapshot

    context = ctx.obj.context()
    with context.ledger(read_only=True) as ledger:
        used = {}
        for row in ledger.generations():
            used.setdefault(row.snapshot, []).append(row.number)
    root = context.paths.snapshots_dir
    rows = [
        {"id": i, "at": os.stat(f"{root}/{i}").st_mtime, "generations": used.get(i, [])}
        for i in snapshot.list_ids(root)
    ]
    if as_json or ctx.obj.as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
        owners = ", ".join(f"generation {n}" for n in row["generations"])
        click.echo(f"{row['id']}  {at}  {owners}".rstrip())


@snapshot.command("restore")
@click.argument("snapshot_id")
@click.option("--pattern", "patterns", multiple=True, help="What goes back (default: [state] restore).")
@click.pass_context
def restore_snapshot(ctx, snapshot_id, patterns):
    """Put state files back from a snapshot; the agent must be stopped. What is replaced is kept."""
    from ..config.context import Lock, new_id
    from ..state.snapshots import snapshot

    context = ctx.obj.context()
    if snapshot_id not in snapshot.list_ids(context.paths.snapshots_dir):
        raise AgentctlError(f"there is no snapshot {snapshot_id}", "agentctl snapshot list")
    kept = f"{context.paths.incidents_dir}/by-hand-{new_id()}"
    with Lock(context.paths.agent_lock_path, f"agent '{context.paths.name}'").take():
        settings = context.config.state
        report = snapshot.restore(
            context.paths.snapshots_dir,
            snapshot_id,
            context.state_dir,
            list(patterns) or settings.restore,
            kept,
            extra=context.extra_state,
            keep=settings.keep,
        )
    click.echo(f"{len(report.restored)} restored, {len(report.removed)} moved away; what was replaced: {kept}")
