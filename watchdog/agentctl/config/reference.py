"""The settings as texts for people: a complete sample, and the reference in docs/configuration.md.

Both come from the table, so they cannot differ from it. Refuses to say anything a setting does not.
"""

from __future__ import annotations

from . import schema
from .toml_edit import toml


def sample() -> str:
    """Return a complete agent.toml with every setting, its sentence and its limits."""
    text = "# Every setting with its default. Durations: 250ms, 90s, 15m, 1h30m, 2d.\n"
    for section, sentence in schema.SECTIONS.items():
        text += f"\n# {sentence}\n[{section}]\n"
        for setting in schema.TABLE:
            if setting.section == section:
                text += f"\n# {setting.sentence}\n# {_upper(setting.kind.allowed)}.\n"
                text += f"{setting.name} = {toml(setting.example)}\n"
    return text


REFERENCE_HEAD = """\
# Configuration

`agent.toml` is read by every part of agentctl. A file with a mistake is refused as a whole, and all
mistakes are named at once. `agentctl config sample` prints a complete file, `config check` checks
one, `config show` prints what counts and marks the defaults, `config set KEY VALUE` changes one
setting and leaves every other line, comments included, as it is. Where a value stands on several
lines, the old file is kept as `agent.toml.before`.

- A *duration* is a number with a unit, in quotes: `"250ms"`, `"90s"`, `"15m"`, `"1h30m"`, `"2d"`.
- A *command* is a list of words and never goes through a shell. `config set` also takes it as
  words, quoted as in a shell: `agentctl config set agent.command "python3 agent.py"`.
- If the file becomes invalid, a rollback still works, with the last valid configuration.

*Counts* says when a change counts: *at once*, after a *restart* (of the agent; for `offline` and
`watchdog`, of the watchdog), or after `agentctl install` has been run again.
"""


def reference_markdown() -> str:
    """Return the reference of all settings, which is docs/configuration.md."""
    text = REFERENCE_HEAD
    for section, sentence in schema.SECTIONS.items():
        text += f"\n## [{section}]\n\n{sentence}\n\n"
        text += "| Setting | Type | Default | Meaning | Allowed | Counts |\n" + "|---" * 6 + "|\n"
        text += "".join(_row(s) for s in schema.TABLE if s.section == section)
    return text


def _row(setting: schema.Setting) -> str:
    default = "(required)" if setting.is_required else f"`{toml(setting.default)}`"
    cells = [f"`{setting.key}`", setting.kind.noun, default.replace("{name}", "NAME")]
    cells += [setting.sentence, _upper(setting.kind.allowed), setting.applies]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    print(reference_markdown(), end="")
