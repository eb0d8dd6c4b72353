"""Presets: what is known of the agents that people run, as data; one TOML file each.

A preset gives `init` its settings: `{state}` and `{home}` in them become the agent's own folders. A user's own is a
file of the same form in the config folder, `presets/NAME.toml`, and wins over ours of that name.
"""

from __future__ import annotations

import os

from ..core.errors import AgentctlError, ConfigError, Mistake
from ..core.paths import PACKAGE_DIR
from . import schema, toml_file
from .toml_file import Document

OURS = f"{PACKAGE_DIR}/presets"
LEVELS = ("full", "headless", "documented")
TEXTS = ("about", "verified", "level", "comes_back", "does_not_come_back", "set_up")


class Preset:
    """One preset: its facts for people, and settings by section."""

    def __init__(self, name: str, document: Document, path: str) -> None:
        self.name, self.path = name, path
        self.about, self.verified, self.level, self.comes_back, self.does_not_come_back, self.set_up = (
            str(document.get(key, "")) for key in TEXTS)  # fmt: skip
        settings = document.get("settings")
        self.settings: dict[str, Document] = settings if isinstance(settings, dict) else {}

    @property
    def command(self) -> list[str]:
        """The command that starts the agent."""
        command = self.settings.get("agent", {}).get("command")
        return list(command) if isinstance(command, list) else []

    def settings_for(self, state_dir: str, home: str) -> dict[str, Document]:
        """Return the settings with this agent's own folders in them."""
        words = {"{state}": state_dir, "{home}": home}
        return {section: _fill_in(content, words) for section, content in self.settings.items()}


def put_command(argv: list[str], command: list[str], resume: list[str]) -> tuple[list[str], list[str]]:
    """Return command and resume command with the user's `argv` in the preset's place; resume [] if it cannot be told.

    No word: the preset's own. One word is its program under another path. More words stand for the whole command, and
    for the beginning of the resume command where that begins so. Pure.
    """
    if not argv:
        return command, resume
    if len(argv) == 1:
        return [*argv, *command[1:]], [*argv, *resume[1:]] if resume else []
    begins_so = resume and resume[: len(command)] == command
    return argv, [*argv, *resume[len(command) :]] if begins_so else []


def find(name: str, config_folder: str) -> Preset:
    """Return a preset by name; raise AgentctlError if there is none, ConfigError if its file is wrong."""
    for folder in (f"{config_folder}/presets", OURS):
        path = f"{folder}/{name}.toml"
        if name.replace("-", "").replace("_", "").isalnum() and os.path.isfile(path):
            return read(name, path)
    known = ", ".join(names(config_folder))
    raise AgentctlError(f"there is no preset '{name}'", f"known: {known}; 'agentctl presets' says what they are")


def names(config_folder: str) -> list[str]:
    """Return the names of all presets, the user's own included."""
    found = set()
    for folder in (f"{config_folder}/presets", OURS):
        if os.path.isdir(folder):
            found |= {n.removesuffix(".toml") for n in os.listdir(folder) if n.endswith(".toml")}
    return sorted(found)


def read(name: str, path: str) -> Preset:
    """Read a preset's file; raise ConfigError with everything that is wrong in it."""
    document = toml_file.parse(path, toml_file.decode(path, toml_file.read(path)[0]))
    mistakes = _mistakes(document)
    if mistakes:
        raise ConfigError(path, mistakes, "'agentctl presets show generic' is a complete one")
    return Preset(name, document, path)


def _mistakes(document: Document) -> list[Mistake]:
    found = [
        Mistake(key, document[key], f"unknown; a preset has {', '.join(TEXTS)} and [settings]")
        for key in document
        if key not in (*TEXTS, "settings")
    ]
    found += [
        Mistake(key, document[key], "must be a text")
        for key in TEXTS
        if key in document and not isinstance(document[key], str)
    ]
    if document.get("level", "documented") not in LEVELS:
        found.append(Mistake("level", document["level"], f"must be one of {', '.join(LEVELS)}"))
    content = document.get("settings", {})
    if not isinstance(content, dict):
        return [*found, Mistake("settings", content, "must be a section: [settings.agent]")]
    example = _fill_in(content, {"{state}": "/var/lib/agentctl/agent/state", "{home}": "/home/agent"})
    agent = example.get("agent", {})
    if isinstance(agent, dict):
        example["agent"] = {"command": ["agent"], **agent, "code": "/srv/agent"}
    return found + schema.validate(example)[1]


def _fill_in(content: Document, words: dict[str, str]) -> Document:
    return {name: _fill(value, words) for name, value in content.items()}


def _fill(value: object, words: dict[str, str]) -> object:
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
        return value
    if isinstance(value, list):
        return [_fill(item, words) for item in value]
    if isinstance(value, dict):
        return _fill_in(value, words)
    return value
