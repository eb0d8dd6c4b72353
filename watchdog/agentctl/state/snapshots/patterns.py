"""Say which paths a list of globs means, the way a gitignore line does.

`*.db` is a name at any depth, `config/*` is anchored at the folder, what is below a match matches
too. `*`, `?`, `[a-z]` and `[!a-z]` stay within one name, `**` crosses names, a backslash takes
the magic out of the next character. There is no negation: `!x` is a file called `!x`.

No `re`: it would double the start time.
"""

from __future__ import annotations

_STAR, _ANY, _DEEP = 0, 1, 2


class Patterns:
    """A compiled list of globs: ask for whole paths, or carry a state down a walk and prune it."""

    def __init__(self, patterns) -> None:
        self._programs = [_compile(text) for text in patterns]

    def matches(self, path: str) -> bool:
        """Tell whether any pattern means `path` or a folder above it."""
        state = self.start()
        for name in path.strip("/").split("/"):
            state = self.step(state, name)
            if not state:
                return False
        return self.is_hit(state)

    def start(self) -> list:
        """Return the state above the first name."""
        return _spread(self._programs, [(number, 0) for number in range(len(self._programs))])

    def step(self, state: list, name: str) -> list:
        """Go one name down; an empty state means nothing below can match."""
        reached = {}  # an ordered set: no state twice, or a hostile glob grows
        for number, at in state:
            program = self._programs[number]
            if at == len(program):
                return [(number, at)]
            segment = program[at]
            if segment is _DEEP:
                reached[number, at] = True
            elif segment == name if isinstance(segment, str) else _fits(segment, name):
                reached[number, at + 1] = True
        return _spread(self._programs, list(reached))

    def is_hit(self, state: list) -> bool:
        """Tell whether the path walked so far matches, and so everything below it."""
        return any(at == len(self._programs[number]) for number, at in state)


def fixed_folder(pattern: str) -> tuple[str, str]:
    """Split an absolute pattern into the folder that needs no matching and the anchored rest."""
    names = [name for name in pattern.split("/") if name]
    fixed = 0
    while fixed < len(names) - 1 and isinstance(_segment(names[fixed]), str):
        fixed += 1
    folder = "/" + "/".join(_segment(name) for name in names[:fixed])
    return folder, "/" + "/".join(names[fixed:])


def _compile(text: str) -> list:
    body = text.removeprefix("./")
    names = [name for name in body.split("/") if name]
    if not names:
        return [_DEEP, []] if not text else [_DEEP, [_STAR]]
    program = [_segment(name) for name in names]
    if "/" not in body.rstrip("/"):
        program.insert(0, _DEEP)
    if body.endswith("/"):
        program.append([_STAR])  # the folder's contents, so that a file of that name is not meant
    if program[-1] is _DEEP:
        program.append([_STAR])
    return program


def _spread(programs: list, state: list) -> list:
    """`**` may stand for no name at all."""
    for number, at in state:
        program = programs[number]
        if at < len(program) and program[at] is _DEEP and (number, at + 1) not in state:
            state.append((number, at + 1))
    return state


def _segment(text: str):
    """Turn one name's glob into `_DEEP`, a plain string, or a list of tokens."""
    if text == "**":
        return _DEEP
    if not any(letter in text for letter in "*?[\\"):
        return text
    tokens, at = [], 0
    while at < len(text):
        token, at = _token(text, at)
        tokens.append(token)
    if all(isinstance(token, str) for token in tokens):
        return "".join(tokens)
    return tokens


def _token(text: str, at: int):
    letter = text[at]
    if letter == "*":
        return _STAR, at + 1
    if letter == "?":
        return _ANY, at + 1
    if letter == "\\" and at + 1 < len(text):
        return text[at + 1], at + 2
    # A `]` right after the opening (or its `!`) is a member; one that never closes is a plain `[`.
    first = at + 2 if text[at + 1 : at + 2] in ("!", "^") else at + 1
    end = text.find("]", first + 1)
    if letter != "[" or end < 0:
        return letter, at + 1
    return (first == at + 2, _ranges(text[first:end])), end + 1


def _ranges(body: str) -> list[tuple[str, str]]:
    ranges, at = [], 0
    while at < len(body):
        is_range = body[at + 1 : at + 2] == "-" and at + 2 < len(body)
        ranges.append((body[at], body[at + 2] if is_range else body[at]))
        at += 3 if is_range else 1
    return ranges


def _fits(tokens: list, name: str) -> bool:
    """Match one name; only the last star is ever tried again, so the cost is bounded."""
    at = token_at = 0
    star_at = retry_at = -1
    while at < len(name):
        token = tokens[token_at] if token_at < len(tokens) else None
        if token is _STAR:
            star_at, retry_at = token_at, at
            token_at += 1
        elif token is not None and _is_one(token, name[at]):
            token_at, at = token_at + 1, at + 1
        elif star_at >= 0:
            retry_at += 1
            token_at, at = star_at + 1, retry_at
        else:
            return False
    return all(token is _STAR for token in tokens[token_at:])


def _is_one(token, letter: str) -> bool:
    if isinstance(token, str):
        return token == letter
    if token is _ANY:
        return True
    is_negated, ranges = token
    return any(low <= letter <= high for low, high in ranges) != is_negated
