"""The classes of the sections say the same as the table of settings: names, order, types."""

import typing

import pytest

from agentctl.config import schema, sections, toml_file
from agentctl.config.value_kinds import Argv, Choice, Duration, Listed, Ready, Size, Text, Variables, Whole

NAMES = {"Literal": typing.Literal}  # what `sections` imports for types only
PLAIN = {Whole: int, Size: int, Duration: float, Argv: list[str], Text: str, Variables: dict[str, str],
         Ready: typing.Literal["auto", "notify"] | float | list[str]}  # fmt: skip


def type_of(kind):
    """Return the type of what a kind's `check` returns."""
    if isinstance(kind, Choice):
        return typing.Literal[kind.words]
    return list[type_of(kind.item)] if isinstance(kind, Listed) else PLAIN[type(kind)]


def fields_of(section):
    """Return the settings of a section in the table, by the names of their attributes, with their types."""
    found = [setting for setting in schema.TABLE if setting.section == section]
    return [({"from": "from_"}.get(setting.name, setting.name), type_of(setting.kind)) for setting in found]


@pytest.mark.parametrize("section", schema.SECTIONS)
def test_a_section_has_the_settings_of_the_table(section):
    fields = typing.get_type_hints(sections.CLASSES[section], localns=NAMES)
    assert list(fields.items()) == fields_of(section)


def test_a_configuration_has_the_sections_of_the_table():
    assert list(sections.CLASSES) == list(schema.SECTIONS)
    assert list(typing.get_type_hints(sections.Config).items()) == list(sections.CLASSES.items())
    assert schema.BY_KEY.keys() == sections.KEYS


@pytest.mark.parametrize("section", schema.SECTIONS)
def test_the_attributes_have_the_values_of_the_settings(section):
    config = toml_file.check({"agent": {"code": "/srv/agent", "command": ["agent"]}})
    found = getattr(config, section)
    assert type(found) is sections.CLASSES[section]
    values = {key: value for key, value in config.values.items() if key.startswith(f"{section}.")}
    assert list(vars(found).values()) == list(values.values())
    assert list(vars(found)) == [name for name, _ in fields_of(section)]
