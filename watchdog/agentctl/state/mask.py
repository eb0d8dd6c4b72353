"""Mask secrets in what leaves us: those we were given, exactly, and what looks like one, by patterns. Pure.

It changes copies on their way out; what is stored stays as it was said.
"""

from __future__ import annotations

import re

SHORTEST_SECRET = 8  # shorter values are words that occur by chance
MASKED = "[masked]"
SECRET_NAMES = re.compile(r"(?i)(key|token|secret|passw|credential|auth|cookie)")
PATTERNS = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{30,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)


class Masker:
    """Knows the secrets that were given to us."""

    def __init__(self, secrets: list[str]) -> None:
        known = {part for secret in secrets for part in _shapes(secret) if len(part) >= SHORTEST_SECRET}
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def exact(self, text: str) -> str:
        """Mask the secrets that were given to us."""
        return self._known.sub(MASKED, text) if self._known else text

    def all(self, text: str) -> str:
        """Mask the secrets that were given to us, and what looks like one."""
        return PATTERNS.sub(MASKED, self.exact(text))

    def lines(self, lines: list[bytes]) -> str:
        """Mask JSON lines; each is one message as before, whatever its texts look like."""
        text = b"".join(lines).decode("utf-8", "replace")
        if self.all(text) == text:
            return text
        return "".join(map(self._line, lines))

    def _line(self, line: bytes) -> str:
        from . import history

        text = line.decode("utf-8", "replace")
        if self.all(text) == text:
            return text
        try:
            return history.encode(self._within(history.parse(line))).decode()
        except (ValueError, RecursionError):
            return history.encode({"content": MASKED}).decode()

    def _within(self, value: object) -> object:
        if isinstance(value, dict):
            return {self.all(key): self._within(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._within(inner) for inner in value]
        shown = str(value)
        masked = self.all(shown)
        return value if masked == shown else masked


def given(variables: dict[str, str]) -> list[str]:
    """Return the values of those variables whose names say that they are secret."""
    return [value for name, value in variables.items() if SECRET_NAMES.search(name)]


def of_agent(settings, variables: dict[str, str]) -> list[str]:
    """Return what is secret among the agent's variables: those that are set, and of `variables` those passed on."""
    return given(settings.environment) + given({name: variables.get(name, "") for name in settings.pass_environment})


def _shapes(secret: str) -> list[str]:
    """A secret as it is, and as it stands inside a JSON string."""
    import json

    return [secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]]
