"""What each cell of a table stands for."""

from __future__ import annotations

import pytest

from effnet.ablation.definitions import ABLATIONS, ablation_named
from effnet.config import COUPLED
from effnet.errors import UserError
from effnet.schedule.progressive import stage_schedule


@pytest.fixture
def cells(study):
    def configs(name, **options):
        made = study(name, **options)
        return {cell.name: made.config(cell) for cell in made.form.cells}

    return configs


def schedule_of(config):
    return stage_schedule(config.progressive, config.train, train_images=10_000, train_size=32)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_cell_has_a_name_of_its_own_and_a_valid_configuration(cells, name, full):
    form = ABLATIONS[name].form(full=full)
    assert len(cells(name, full=full)) == len(form.cells)
    assert all(cell.label for cell in form.cells)


def test_an_unknown_table_names_the_nearest():
    with pytest.raises(UserError, match="unknown ablation 'table31'; did you mean 'table13'"):
        ablation_named("table31")


# Table 13


def test_table_13_has_the_papers_numbers():
    paper = {cell.name: cell.paper for cell in ABLATIONS["table13"].small.cells if cell.paper}
    numbers = {name: (value.top1, value.top1_std) for name, value in paper.items()}
    assert numbers == {
        "progressive": (0.843, 0.0014),
        "progressive-adaptive": (0.851, 0.0007),
        "random": (0.835, 0.0011),
        "random-adaptive": (0.842, 0.0010),
    }


def test_table_13_varies_sizes_and_coupling_and_nothing_else(cells):
    table = {name: schedule_of(config) for name, config in cells("table13").items()}
    base = cells("table13")["fixed"].progressive
    last = {name: getattr(base, name)[1] for name in COUPLED}
    first = {name: getattr(base, name)[0] for name in COUPLED}
    sizes = {name: [stage.image_size for stage in schedule.stages] for name, schedule in table.items()}

    assert sizes["fixed"] == [base.image_size[1]]
    assert sizes["progressive"] == sizes["progressive-adaptive"] == sorted(set(sizes["progressive"]))
    assert (sizes["progressive"][0], sizes["progressive"][-1]) == base.image_size
    assert sizes["random"] == sizes["random-adaptive"] != sorted(sizes["random"])
    for name in ("fixed", "progressive", "random"):
        assert all(stage.coupled == last for stage in table[name].stages)
    assert table["progressive-adaptive"].stages[0].coupled == first
    assert table["progressive-adaptive"].stages[-1].coupled == last
    assert first != last
    assert len({schedule.total_steps for schedule in table.values()}) == 1


def test_random_sizes_are_redrawn_as_often_as_in_the_paper(cells):
    config = cells("table13")["random"]
    assert config.progressive.redraw_epochs / config.train.epochs == pytest.approx(8 / 350, rel=0.1)
    assert cells("table13", full=True)["random"].progressive.redraw_epochs == 8.0
