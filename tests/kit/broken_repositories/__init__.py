"""Broken repositories: named states that an agent, a crash or a hostile hand can leave a repository in.

A state is a function that breaks a `Subject`: a repository with a good `main`, a bad commit on it, work that is not
committed, other branches, tags and stashes. What a state destroys beyond repair it names (`loses=`), all else has to
be there afterwards.
"""

from __future__ import annotations

from . import configs, folders, heads, hostile, indexes, locks, objects, operations, refs, trees  # noqa: F401
from .subject import STATES, State, Subject

__all__ = ["STATES", "State", "Subject"]
