"""Schedules as points, as changes of a recipe, and at one cost."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest

from effnet.errors import UserError
from effnet.recipes import resolve_config, with_values
from effnet.schedule.learning_rate import peak_rate
from effnet.schedule.progressive import stage_schedule
from effnet.search.points import Domain
from effnet.search.schedules.cost import StepCost
from effnet.search.schedules.space import schedule_from_json, space_for


def stages_of(space, schedule, recipe):
    run = schedule.applied_to(recipe)
    return stage_schedule(
        run.progressive, run.train, train_images=space.train_images, train_size=space.last_size
    )


def test_first_sizes_are_the_recipes_and_shares_of_the_last(space, recipe):
    assert isinstance(space, Domain)
    # 0.375, 0.5, 0.625 and 0.75 of 16 px, rounded down to multiples of 4.
    assert space.first_sizes == (4, 8, 12)
    # Of 300 px, and the recipe's 128.
    run = with_values(recipe, {"progressive.image_size": [128, 300]})
    large = space_for(run, train_size=224, train_images=400, seeds=1)
    assert large.first_sizes == (112, 128, 148, 184, 224)


def test_the_first_schedules_are_the_papers_the_fixed_size_and_composers(space, recipe, cost):
    paper, fixed, composer = (
        stages_of(space, space.schedule(point, recipe, cost), recipe) for point in space.first
    )
    assert [stage.image_size for stage in paper.stages] == [8, 10, 13, 16]
    assert [stage.steps for stage in paper.stages] == [100] * 4
    assert [stage.image_size for stage in fixed.stages] == [16]
    assert [stage.image_size for stage in composer.stages] == [8, 9, 11, 12, 14, 16, 16]
    steps = [stage.steps for stage in composer.stages]
    assert sum(steps[:1]) / composer.total_steps == pytest.approx(0.55, abs=0.01)
    assert steps[-1] / composer.total_steps == pytest.approx(0.2, abs=0.01)


def test_a_fixed_size_has_fewer_epochs_by_hand(space, recipe, cost):
    # The paper's 10 epochs cost (64 + 100 + 169 + 256) / 4 / 256 of the fixed size's.
    schedule = space.schedule(space.fixed, recipe, cost)
    assert schedule.name == "fixed 16 px"
    assert schedule.changes["train.epochs"] == pytest.approx(10 * 589 / 1024, abs=0.03)
    assert schedule.changes["learning_rate.warmup_epochs"] == pytest.approx(589 / 1024, abs=0.003)


def test_all_schedules_take_as_long_as_the_papers(space, recipe):
    cost = StepCost(a_step=0.01, an_image=0.001, a_megapixel=20.0)
    budget = space.seconds(space.schedule(space.paper, recipe, cost).applied_to(recipe), cost)
    draws = Random(0)
    for _ in range(60):
        point = space.canonical(tuple(draws.randrange(len(each.values)) for each in space.variables))
        run = space.schedule(point, recipe, cost).applied_to(recipe)
        # To within the steps that are lost where the batch changes.
        assert space.seconds(run, cost) == pytest.approx(budget, rel=0.02)


def test_the_papers_schedule_has_the_recipes_epochs_whatever_a_step_costs(space, recipe):
    for cost in (
        StepCost(a_step=1.0, an_image=0.0, a_megapixel=0.0),
        StepCost(a_step=0.1, an_image=1.0, a_megapixel=9.0),
    ):
        schedule = space.schedule(space.paper, recipe, cost)
        assert schedule.changes["train.epochs"] == 10.0
        assert schedule.changes["learning_rate.warmup_epochs"] == 1.0


def test_steps_that_cost_the_same_reward_larger_batches(space, recipe):
    cost = StepCost(a_step=1.0, an_image=0.0, a_megapixel=0.0)
    grown = space.schedule(space.point(batch_limit=4.0), recipe, cost)
    assert grown.changes["train.epochs"] > 1.3 * recipe.train.epochs
    assert grown.name == "4 stages from 8 px, batch x4 linear"


@pytest.mark.parametrize(("scaling", "growth"), [("linear", 4.0), ("sqrt", 2.0)])
def test_growing_batches_leave_the_rate_of_the_recipes_batch_alone(space, recipe, cost, scaling, growth):
    plain = with_values(recipe, {"learning_rate.batch_scaling": "sqrt"})
    point = space.point(batch_limit=4.0, batch_scaling=scaling)
    run = space.schedule(point, plain, cost).applied_to(plain)
    assert run.progressive.batch_rule == "pixels"
    assert peak_rate(run.learning_rate, 10) == pytest.approx(0.005)
    assert peak_rate(run.learning_rate, 40) == pytest.approx(0.005 * growth)


def test_seeds_are_counted_from_the_recipes(space, recipe, cost):
    run = with_values(recipe, {"train.seed": 5})
    assert space.schedule(space.fixed, run, cost, seed=2).applied_to(run).train.seed == 7


def test_every_schedule_has_one_canonical_point(space, recipe, cost):
    grid = itertools.product(*(range(len(variable.values)) for variable in space.variables))
    canonical = {space.canonical(point) for point in grid}
    assert len(canonical) == space.count() == 2521
    assert all(space.canonical(point) == point and space.is_feasible(point) for point in canonical)
    shapes = {
        str(space.schedule(point, recipe, cost).changes) for point in Random(1).sample(sorted(canonical), 300)
    }
    assert len(shapes) == 300


def test_what_makes_no_difference_has_the_papers_value(space):
    assert space.point(stages=1, hold_share=0.5, size_power=2.0, batch_limit=4.0) == space.fixed
    assert space.point(stages=2, size_power=2.0) == space.point(stages=2)
    assert space.point(batch_scaling="sqrt") == space.paper
    assert space.point(batch_scaling="sqrt", batch_limit=2.0) != space.point(batch_limit=2.0)


def test_points_outside_are_not_feasible(space):
    assert not space.is_feasible(space.paper[:-1])
    assert not space.is_feasible((99, *space.paper[1:]))


def test_a_schedule_is_read_back_and_can_be_given_on_a_command_line(space, recipe, cost):
    schedule = space.schedule(space.composer, recipe, cost)
    assert schedule_from_json(schedule.to_json(), "x") == schedule
    by_hand = resolve_config("search", ["train.batch_size=10", *schedule.overrides])
    assert by_hand.progressive == schedule.applied_to(recipe).progressive
    assert by_hand.train.epochs == schedule.changes["train.epochs"]


def test_a_network_is_no_schedule():
    assert schedule_from_json('{"name": "v2-b0", "stages": []}', "x") is None
    with pytest.raises(UserError, match="x is not JSON"):
        schedule_from_json("{", "x")


def test_a_recipe_of_one_size_is_refused(recipe):
    fixed = replace(recipe, progressive=replace(recipe.progressive, image_size=(16, 16)))
    with pytest.raises(UserError, match=r"16 px throughout.*progressive.image_size=\[8,16\]"):
        space_for(fixed, train_size=32, train_images=400, seeds=1)
