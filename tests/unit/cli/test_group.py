"""The verbs as click has them: global options in any place, its errors in our words, near names."""

import click
import pytest

from agentctl.cli import group
from agentctl.cli.verbs import BY_NAME, TABLE
from agentctl.core.errors import AgentctlError, UsageError


@pytest.mark.parametrize("name", BY_NAME)
def test_every_verb_is_there_and_takes_the_global_options(name):
    command = group.root.get_command(click.Context(group.root), name)
    assert isinstance(command, click.Command) and command.help
    assert {"--name", "--json"} <= {text for param in command.params for text in param.opts}


def commands_below(command):
    """Yield a command and all that is below it."""
    yield command
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        yield from commands_below(below)


@pytest.mark.parametrize("name", BY_NAME)
def test_no_two_parameters_have_one_name(name):
    """Python would warn of it, on the standard error of whoever calls the verb."""
    for command in commands_below(group.root.get_command(click.Context(group.root), name)):
        names = {param.name: param.opts for param in command.params}
        assert len(names) == len({tuple(param.opts) for param in command.params}), command.name


def test_an_option_that_a_verb_has_itself_stays_its_own():
    @click.command()
    @click.option("--json", "own")
    def verb(own):
        """One with an option of its own."""

    made = group.with_global_options(verb)
    assert [param.name for param in made.params if "--json" in param.opts] == ["own"]
    assert [param.opts for param in made.params if "--name" in param.opts] == [["--name"]]


@pytest.mark.parametrize("words", [["--name", "wren", "--json", "look"], ["look", "--json", "--name=wren"]])
def test_global_options_count_in_any_place(monkeypatch, words):
    seen = []

    @click.command()
    @click.pass_context
    def look(ctx):
        """Look."""
        seen.append((ctx.obj.name, ctx.obj.as_json))
        return 5

    monkeypatch.setattr(group.LazyGroup, "get_command", lambda self, ctx, name: group.with_global_options(look))
    monkeypatch.setitem(BY_NAME, "look", TABLE[0])
    assert group.run(words) == 5 and seen == [("wren", True)]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["staus"], "there is no verb 'staus'", "did you mean 'agentctl status'?"),
        (["xyzzy"], "there is no verb 'xyzzy'", "agentctl --help lists the verbs"),
        (["why", "--nonsense"], "No such option", "agentctl why --help shows what it takes"),
        (["config"], "agentctl config: what of it? (", "agentctl config --help"),
    ],
)
def test_what_is_wrong_with_the_words_is_said_in_ours(words, message, hint):
    with pytest.raises(UsageError) as refused:
        group.run(words)
    assert message in refused.value.message and refused.value.hint == hint


@pytest.mark.parametrize(
    ("error", "ours"),
    [(click.exceptions.Abort(), KeyboardInterrupt), (click.ClickException("no"), AgentctlError)],
)
def test_click_ends_as_we_do(monkeypatch, error, ours):
    def fail(*_args, **_more):
        raise error

    monkeypatch.setattr(group.root, "main", fail)
    with pytest.raises(ours):
        group.run(["status"])


@pytest.mark.parametrize(("answer", "status"), [(None, 0), (3, 3), (True, 0), ("text", 0)])
def test_only_a_number_is_an_exit_status(monkeypatch, answer, status):
    monkeypatch.setattr(group.root, "main", lambda *_args, **_more: answer)
    assert group.run(["status"]) == status
