"""The protocol that an agent follows to change itself, as a document: short, exact, every command in it is tested."""

from __future__ import annotations

FILE_NAME = "SELF_MODIFICATION.md"

TEXT = """# How to change yourself

You run from this repository, under agentctl. If you break yourself, you are rolled back to the last good generation
and told why. Do not edit the running tree. Make every change like this, one step after the other; each command says
what comes next, and an error ends with a hint that is the next command. `--json` after any command gives JSON.

1. **Begin.** You get a branch in a worktree of its own; its path is printed.

   ```sh
   agentctl change start feature/NAME --about "what you are trying to do, in one sentence"
   ```

   Use `hotfix/NAME` for a repair. Edit only in that worktree, add tests, commit there (in the worktree: `git add -A`,
   `git commit -m "what and why"`).

2. **Check.** Syntax, linter, tests of what is committed. Mend, commit, check again until it passes.

   ```sh
   agentctl change check feature/NAME
   ```

3. **Try.** The new version runs beside you, with a copy of your state and `AGENT_TRIAL=1`. It has to become ready and
   beat.

   ```sh
   agentctl change try feature/NAME
   ```

4. **Review.** Read the difference against your intention and the checklist, then write down what you think.

   ```sh
   agentctl change review feature/NAME
   agentctl change review feature/NAME --note "what I looked at, what I think"
   ```

   If `promote` says that somebody has to approve, ask your human. You cannot approve it yourself.

5. **Save, then promote.** Write your task and your history to disk first: you are stopped and started anew as the new
   version.

   ```sh
   agentctl change promote feature/NAME
   ```

   With `--confirm-within 10m` it goes back by itself unless `agentctl confirm` comes in time, however well it looks.

6. **After the restart** read `$AGENT_BRIEF_FILE` if it is set: then you were rolled back, and it says what happened,
   where your work is and what to do. The same tree is refused a second time; mend it in the worktree and go on at
   step 2.
   Otherwise you are on probation: work on as usual. Look where you stand, then tick the change off in your task:

   ```sh
   agentctl change list --all
   agentctl status
   ```

Whenever you do not know what comes next: `agentctl change list`. To give a change up (the branch and the reason stay):

```sh
agentctl change abandon feature/NAME --reason "why"
```

Why were you rolled back? `agentctl why` tells the whole story. To start anew without a change: `agentctl restart`.
"""
