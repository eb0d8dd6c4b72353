"""The ledger's tables, and what each version of them added."""

from __future__ import annotations

VERSION = 5

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE generations (
    number INTEGER PRIMARY KEY, vault_commit TEXT NOT NULL, commit_id TEXT NOT NULL, tree TEXT NOT NULL,
    branch TEXT NOT NULL, status TEXT NOT NULL, source TEXT NOT NULL, created_at REAL NOT NULL,
    blessed_at REAL, condemned_at REAL, reason TEXT NOT NULL DEFAULT '', tries_left INTEGER NOT NULL,
    snapshot TEXT NOT NULL DEFAULT '', is_golden INTEGER NOT NULL DEFAULT 0);
CREATE INDEX generations_tree ON generations (tree);
CREATE TABLE launches (
    id TEXT PRIMARY KEY, generation INTEGER NOT NULL, started_at REAL NOT NULL, boot_id TEXT NOT NULL,
    snapshot TEXT NOT NULL DEFAULT '', incident TEXT NOT NULL DEFAULT '', ready_at REAL, first_beat_at REAL,
    ended_at REAL, end TEXT NOT NULL DEFAULT '', trigger TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    exit_status INTEGER, exit_signal INTEGER);
CREATE INDEX launches_started ON launches (started_at);
CREATE TABLE incidents (
    id TEXT PRIMARY KEY, at REAL NOT NULL, trigger TEXT NOT NULL, reason TEXT NOT NULL, launch TEXT NOT NULL,
    generation_from INTEGER, generation_to INTEGER, decision TEXT NOT NULL DEFAULT '',
    evidence TEXT NOT NULL DEFAULT '{}', outcome TEXT NOT NULL DEFAULT '', ended_at REAL);
CREATE TABLE attempts (
    incident TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL, rung TEXT NOT NULL, target INTEGER,
    reason TEXT NOT NULL, is_open INTEGER NOT NULL, PRIMARY KEY (incident, number));
CREATE TABLE steps (
    incident TEXT NOT NULL, attempt INTEGER NOT NULL, name TEXT NOT NULL, started_at REAL NOT NULL,
    ended_at REAL, detail TEXT NOT NULL DEFAULT '', PRIMARY KEY (incident, attempt, name));
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, verb TEXT NOT NULL, target TEXT NOT NULL, author TEXT NOT NULL,
    reason TEXT NOT NULL, incident TEXT NOT NULL DEFAULT '');
CREATE TABLE events (number INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
"""

# What each version added; a ledger that lacks it is brought up to date when it is opened for writing.
MIGRATIONS = {
    2: (
        "ALTER TABLE generations ADD COLUMN change TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN on_failure TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN confirm_by REAL",
        ("CREATE TABLE changes (name TEXT PRIMARY KEY, about TEXT NOT NULL, author TEXT NOT NULL, "
         "started_at REAL NOT NULL, base TEXT NOT NULL, worktree TEXT NOT NULL, snapshot TEXT NOT NULL DEFAULT '', "
         "status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', checked TEXT NOT NULL DEFAULT '{}', "
         "tried TEXT NOT NULL DEFAULT '{}', reviewed TEXT NOT NULL DEFAULT '{}', "
         "approved TEXT NOT NULL DEFAULT '{}', promotion TEXT NOT NULL DEFAULT '{}', generation INTEGER, "
         "ended_at REAL)"),
    ),
    3: (  # the image a generation runs in, and what it was built from (runtime `compose`)
        "ALTER TABLE generations ADD COLUMN image TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN image_inputs TEXT NOT NULL DEFAULT ''",
    ),
    4: (  # what is newest, without a clock: the order of blessings, and which launch an attempt answers
        "ALTER TABLE generations ADD COLUMN blessing INTEGER NOT NULL DEFAULT 0",
        ("UPDATE generations SET blessing = (SELECT count(*) FROM generations AS o WHERE o.blessed_at IS NOT NULL AND "
         "(o.blessed_at, o.number) <= (generations.blessed_at, generations.number)) WHERE blessed_at IS NOT NULL"),
        "ALTER TABLE attempts ADD COLUMN launch TEXT NOT NULL DEFAULT ''",
    ),
    5: (  # what kinds of life a launch has shown; who has beaten while that was asked for goes on being judged by it
        "ALTER TABLE launches ADD COLUMN life TEXT NOT NULL DEFAULT ''",
        "INSERT INTO meta SELECT 'heartbeat.from', 'notify' FROM launches WHERE first_beat_at IS NOT NULL LIMIT 1"),
}  # fmt: skip
