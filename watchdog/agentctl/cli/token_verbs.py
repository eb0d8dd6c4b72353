"""`agentctl token`: who may use the watchdog's API.

A token is shown once, or written into a file that only its owner reads; what is stored is its digest.
"""

from __future__ import annotations

import json
import os
import time

import click

from ..core import text
from ..core.errors import AgentctlError, UsageError

SCOPES = ("beat", "append", "read", "admin")
MOST_VALID = 2


@click.group()
def token():
    """Tokens for the watchdog's API."""


@token.command("create")
@click.option("--scope", "scopes", default="read", show_default=True, help=f"Some of {', '.join(SCOPES)}, with commas.")
@click.option("--label", default="", help="What it is for; two of a label can be valid at once.")
@click.option("--agent", default="", help="Only for that agent (default: for all).")
@click.option("--out", type=click.Path(), help="Write it into this new file, mode 0600, instead of showing it.")
@click.pass_context
def create(ctx, scopes, label, agent, out):
    """Make a token. It is stored hashed: nobody can show it again."""
    from ..watchdog.api.auth import digest_of, new_token

    wanted = sorted({scope.strip() for scope in scopes.split(",") if scope.strip()})
    if not wanted or set(wanted) - set(SCOPES):
        raise UsageError(f"--scope {scopes}: unknown scope", f"known: {', '.join(SCOPES)}")
    secret = new_token()
    row = {"id": os.urandom(4).hex(), "label": label or "+".join(wanted), "digest": digest_of(secret),
           "scopes": " ".join(wanted), "agent": agent, "created_at": time.time(), "revoked_at": None}  # fmt: skip
    with _store(ctx) as store:
        if not store.add_token(row, MOST_VALID).result():
            raise AgentctlError(
                f"there are {MOST_VALID} valid tokens labelled '{row['label']}' already",
                "agentctl token list; agentctl token revoke ID",
            )
    if out:
        with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(secret + "\n")
    if ctx.obj.as_json:
        click.echo(json.dumps({"id": row["id"], "label": row["label"], "scopes": wanted,
                               **({"path": out} if out else {"token": secret})}))  # fmt: skip
    else:
        click.echo(f"token {row['id']} is in {out}" if out else secret)


@token.command("list")
@click.pass_context
def list_tokens(ctx):
    """List the tokens; their secrets are not known any more."""
    with _store(ctx) as store:
        rows = store.tokens()
    keys = ("id", "label", "scopes", "agent", "created_at", "revoked_at")
    if ctx.obj.as_json:
        click.echo(text.to_json([{key: row[key] for key in keys} for row in rows]))
        return
    now = time.time()
    cells = [
        [
            row["id"],
            row["label"],
            row["scopes"],
            row["agent"] or "all",
            text.ago(row["created_at"], now),
            f"revoked {text.ago(row['revoked_at'], now)}" if row["revoked_at"] else "valid",
        ]
        for row in rows
    ]
    for line in text.table(["id", "label", "scopes", "agent", "made", ""], cells) if rows else ["no token yet"]:
        click.echo(line)


@token.command("revoke")
@click.argument("token_id")
@click.pass_context
def revoke(ctx, token_id):
    """Make a token invalid, at once and for ever."""
    with _store(ctx) as store:
        if not store.revoke_token(token_id, time.time()).result():
            raise AgentctlError(f"there is no valid token {token_id}", "agentctl token list")
    click.echo(f"revoked {token_id}")


def _store(ctx):
    """Open the agent's store beside the watchdog."""
    from contextlib import closing

    from ..watchdog.store import open_store

    return closing(open_store(ctx.obj.context(lenient=True).paths.store_path))
