import itertools
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.api import configure, run_config
from effnet.recipes import resolve_config
from effnet.reporting.facts import read_runs
from effnet.reporting.repeating import as_override, repetition, shown
from effnet.training.journal import open_run
from effnet.training.same_run import check_same_config

STARTED = ["/usr/bin/effnet", "train", "photos here", "--recipe", "scratch", "--set", "train.epochs=2"]


def started_by(run, command):
    (facts,) = read_runs([run])
    return replace(facts, environment={"command": command})


def given_by(command):
    """Return what `effnet train` would make of a command line."""
    words = shlex.split(command)
    assert words[:2] == ["effnet", "train"]
    options: dict[str, list[str]] = {}
    data = None if words[2].startswith("--") else words[2]
    for option, value in itertools.pairwise(words):
        if option.startswith("--"):
            options.setdefault(option, []).append(value)
    one = {name.removeprefix("--"): values[0] for name, values in options.items() if name != "--set"}
    one.pop("out")
    return configure(data, **one, changes=options.get("--set", ()))


@pytest.mark.parametrize(
    "command", [STARTED, ["pytest"], [*STARTED[:4], "gone.toml"]], ids=["recorded", "another program", "gone"]
)
def test_both_commands_give_the_configuration_again(finished, command):
    facts = started_by(finished, command)
    again = repetition(facts)
    assert given_by(again.exact) == facts.config
    check_same_config(given_by(again.portable), facts.config, finished)


def test_a_scaling_that_is_the_recipes_is_given_where_the_network_is_another(finished, workspace, tmp_path):
    """``--model`` resets the recipe's scaling, so that the same scaling must be said."""
    recipe = tmp_path / "wide.toml"
    recipe.write_text('extends = "scratch"\n[model]\nwidth = 1.5\n')
    facts = started_by(finished, ["effnet", "train", "photos", "--recipe", str(recipe)])
    wide = replace(facts, config=replace(facts.config, model=replace(facts.config.model, width=1.5)))
    portable = repetition(wide).portable
    assert "--set model.width=1.5" in portable
    check_same_config(given_by(portable), wide.config, finished)


def test_a_command_for_another_run_does_not_give_this_one(finished, another):
    (facts,) = read_runs([another])
    with pytest.raises(ValueError, match=r"train\.epochs"):
        check_same_config(given_by(repetition(facts).portable), run_config(open_run(finished)), finished)


def test_changes_are_those_from_the_recipe(finished):
    again = repetition(started_by(finished, STARTED))
    assert again.is_recorded
    assert again.recipe == "scratch"
    assert again.started == ("effnet train 'photos here' --recipe scratch --set train.epochs=2")
    changes = {change.key: (change.recipe, change.run) for change in again.changes}
    assert changes["train.epochs"] == ("100", "2")
    assert changes["model.network"][0] == "v2-b0"
    assert not {"data.source", "evaluate.image_size", "preprocessing.mean", "model.padding"} & changes.keys()


def test_what_a_recipe_leaves_open_is_a_change_only_where_it_was_named(finished):
    def keys(*more):
        return {change.key for change in repetition(started_by(finished, [*STARTED, *more])).changes}

    assert "evaluate.image_size" not in keys()
    assert "evaluate.image_size" in keys("--set", "evaluate.image_size=16")
    assert "evaluate.image_size" in keys("--set=evaluate.image_size=16")


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        (["effnet", "train", "digits"], "scratch"),
        (["effnet", "train", "photos", "--weights", "a.safetensors"], "finetune"),
        (["effnet", "train", "photos", "--recipe=demo"], "demo"),
    ],
)
def test_a_command_without_a_recipe_has_that_of_the_command_line(finished, command, recipe):
    assert repetition(started_by(finished, command)).recipe == recipe


def test_without_a_command_it_is_the_nearest_recipe(finished):
    again = repetition(started_by(finished, []))
    assert (again.recipe, again.is_recorded, again.started) == ("scratch", False, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (True, "true"),
        (2.0, "2"),
        (0.25, "0.25"),
        ([8.0, 0.5], "[8,0.5]"),
        ("v2-s", "v2-s"),
        ("/photos/x", "/photos/x"),
        ("true", '"true"'),
        ("10", '"10"'),
        ("", '""'),
        ("two words", '"two words"'),
    ],
)
def test_values_are_shown_as_people_write_them(value, text):
    assert shown(value) == text


@given(st.text(st.characters(exclude_categories=["C"]), max_size=30))
def test_any_text_is_read_again_as_it_was(text):
    assert resolve_config(None, [as_override("data.source", text)]).data.source == text


@given(st.floats(1e-9, 1e9))
def test_any_number_is_read_again_as_it_was(value):
    assert resolve_config(None, [as_override("train.epochs", value)]).train.epochs == value


def test_the_toml_is_that_of_the_run(finished):
    (facts,) = read_runs([finished])
    assert repetition(facts).toml == (finished / "config.toml").read_text()
