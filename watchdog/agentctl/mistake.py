"""One thing wrong in a configuration, in words."""

from __future__ import annotations


class Mistake:
    """One thing wrong in a configuration: the key, the value found there, what is allowed."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        self.key, self.value, self.allowed = key, value, allowed

    def __str__(self) -> str:
        key = self.key if self.key.isprintable() else ascii(self.key)
        found = "" if self.value is None else f" = {shown(self.value)}"
        return f"{key}{found}: {self.allowed}"


def shown(value: object) -> str:
    """Return a value the way it stands in the file, cut to a readable length."""
    import json  # only a mistake or a document is shown

    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."
