"""The generations as a table, and the difference of two."""

import json
import os

from agentctl.generations.vault import create_bare
from kit import deadline
from ledger_builder import agentctl


def test_generations(home):
    home.generation(1, is_golden=1)
    home.generation(2, "condemned", reason="exit \x1b[31mstatus 1; " + "because " * 20)
    home.generation(3, "candidate", branch="feature/" + "long-" * 10)
    home.launch(generation=3)
    lines = agentctl("generations").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[1] for line in lines[1:]] == ["candidate", "condemned", "golden"]
    assert lines[1].startswith("3*") and "\x1b" not in "".join(lines)
    rows = json.loads(agentctl("generations", "--json").stdout)
    keys = {"number", "commit", "tree", "status", "created_at", "blessed_at", "reason", "snapshot"}
    assert [row["status"] for row in rows] == ["golden", "condemned", "candidate"]
    assert all(row.keys() >= keys for row in rows)
    assert rows[0]["created_at"].endswith("Z") and rows[2]["blessed_at"] is None


def test_diff_is_readable_though_the_vault_calls_everything_binary(home):
    vault = home.paths.vault_path
    create_bare(vault)

    def git(*words, stdin=b""):
        identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a"}
        identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a"}
        argv = ["git", "--git-dir", vault, *words]
        env = {**os.environ, **identity}
        return deadline.run(argv, input=stdin, env=env, check=True, capture_output=True).stdout.strip().decode()

    for number, content in ((1, b"a\nb\n"), (2, b"a\nc\nd\n")):
        blob = git("hash-object", "-w", "--stdin", stdin=content)
        tree = git("mktree", stdin=f"100644 blob {blob}\tx.py\n".encode())
        home.generation(number, vault_commit=git("commit-tree", tree, "-m", "x"))
    assert "-b\n+c\n+d\n" in agentctl("diff", "1", "2").stdout
    assert "x.py | 3 ++-" in agentctl("diff", "--stat", "1", "2").stdout
    found = json.loads(agentctl("diff", "1", "2", "--json").stdout)
    assert (found["from"], found["to"]) == (1, 2) and "+c" in found["diff"]
    assert agentctl("diff", "1", "1").stderr == "no difference\n"
    unknown = agentctl("diff", "1", "9")
    assert unknown.returncode == 1 and "there is no generation 9" in unknown.stderr
