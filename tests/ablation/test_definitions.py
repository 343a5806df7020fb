"""What each cell of a table stands for."""

from __future__ import annotations

import pytest

from effnet.ablation.definitions import ABLATIONS, ablation_named
from effnet.arch import network_cost
from effnet.config import COUPLED
from effnet.errors import UserError
from effnet.schedule.progressive import stage_schedule
from effnet.training.experiment import network_of


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
    with pytest.raises(UserError, match="unknown ablation 'table31'; did you mean 'table3'"):
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


# The other tables


def sizes_of(config):
    stages = schedule_of(config).stages
    return stages[0].image_size, stages[-1].image_size, config.evaluate.image_size


def test_table_3_fuses_stages_of_the_papers_network_and_of_a_thin_one(cells):
    suffixes = ["", ".fused1-3", ".fused1-5", ".fused1-7"]
    full = cells("table3", full=True)
    assert [config.model.network for config in full.values()] == [f"v1-b4{suffix}" for suffix in suffixes]
    small = [config.model.network for config in cells("table3").values()]
    assert small == [f"v1-b0.stride8{suffix}" for suffix in suffixes]
    assert [cell.paper.top1 for cell in ABLATIONS["table3"].full.cells] == [0.828, 0.831, 0.831, 0.817]


def test_table_5_crosses_three_sizes_with_three_magnitudes(cells):
    table = cells("table5", full=True)
    assert {sizes_of(config) for config in table.values()} == {(s, s, s) for s in (128, 192, 300)}
    magnitudes = [schedule_of(config).stages[0].randaugment_magnitude for config in table.values()]
    assert magnitudes == [5, 10, 15] * 3
    papers = [cell.paper.top1 for cell in ABLATIONS["table5"].full.cells]
    assert papers == [0.783, 0.78, 0.777, 0.812, 0.816, 0.815, 0.825, 0.827, 0.832]
    assert [sizes_of(config)[1] for config in cells("table5").values()] == [14] * 3 + [20] * 3 + [32] * 3


def test_sizes_of_ones_own_scale_the_table(cells):
    table = cells("table5", changes=["progressive.image_size=[50,150]"])
    assert [sizes_of(config) for config in table.values()][::3] == [(64,) * 3, (96,) * 3, (150,) * 3]


def test_table_10_trains_both_networks_to_their_sizes(cells):
    table = cells("table10", full=True)
    assert sizes_of(table["v1-b7"]) == (128, 600, 600)
    assert sizes_of(table["v2-m"]) == (128, 380, 480)
    small = {name: (config.model.network, config.model.width) for name, config in cells("table10").items()}
    assert small == {"v1-b7": ("v1-b7.stride8", 0.2), "v2-m": ("v2-m.stride8", 0.2)}


def test_table_12_has_every_network_at_one_size_and_progressively(cells):
    table = cells("table12", full=True)
    assert [config.model.network for config in table.values()][::2] == [
        "timm:resnet50",
        "timm:resnet50",
        "timm:resnet152",
        "v1-b4",
        "v1-b5",
    ]
    assert [sizes_of(config) for config in table.values()][:4] == [
        (224, 224, 224),
        (128, 224, 224),
        (380, 380, 380),
        (128, 380, 380),
    ]
    papers = [(cell.paper.top1, cell.paper.train_hours) for cell in ABLATIONS["table12"].full.cells]
    assert papers[:2] == [(0.781, 4.9), (0.784, 3.5)]
    assert papers[-2:] == [(0.837, 42.9), (0.840, 15.2)]


def test_table_14_crosses_first_sizes_with_numbers_of_stages(cells):
    table = cells("table14", full=True)
    assert [(sizes_of(c)[0], sizes_of(c)[1], len(schedule_of(c).stages)) for c in table.values()] == [
        (first, 300, stages) for first in (128, 256) for stages in (4, 8, 16)
    ]
    assert [cell.paper.train_hours for cell in ABLATIONS["table14"].full.cells] == [
        6.2,
        6.3,
        7.0,
        8.1,
        8.5,
        9.4,
    ]


def test_scalings_of_figure_8_are_the_networks_of_figure_7(cells):
    table = cells("fig-scaling", full=True)
    compound = table["compound-2"]
    assert (compound.model.width, compound.model.depth, sizes_of(compound)[1]) == (1.2, 1.4, 291)
    assert sizes_of(table["resolution-2"]) == (448, 448, 448)
    small = cells("fig-scaling")
    assert (small["base"].model.width, sizes_of(small["base"])[1]) == (0.25, 16)
    assert (small["width-2"].model.width, small["depth-4"].model.depth) == (0.5, 2.0)
    assert sizes_of(small["resolution-2"]) == (32, 32, 32)


def test_what_is_evaluated_at_its_own_size_cannot_be_told_another(study):
    with pytest.raises(UserError, match=r"table5 sets evaluate\.image_size itself"):
        study("table5", changes=["evaluate.image_size=40"])


def test_table_3_of_v1_scales_three_networks_as_the_paper(cells):
    table = cells("v1-table3", full=True)
    assert len(table) == 14
    networks = [config.model.network for config in table.values()]
    assert networks == ["mobilenet-v1"] * 4 + ["mobilenet-v2"] * 5 + ["resnet-50"] * 5
    compound = table["resnet-50-compound"]
    assert (compound.model.width, compound.model.depth, sizes_of(compound)) == (1.2, 1.4, (291, 291, 291))
    assert sizes_of(table["mobilenet-v2-resolution-2"]) == (448, 448, 448)
    assert {config.progressive.drop_path_rate for config in table.values()} == {(0.0, 0.0)}
    papers = {cell.name: (cell.paper.top1, cell.paper.macs) for cell in ABLATIONS["v1-table3"].full.cells}
    assert papers["mobilenet-v1-base"] == (0.706, 0.6e9)
    assert papers["mobilenet-v2-depth-4"] == (0.768, 1.2e9)
    assert papers["resnet-50-width-2"] == (0.777, 14.7e9)


def test_the_small_networks_of_table_3_of_v1_cost_more_where_they_are_scaled(cells):
    macs = {
        name: network_cost(network_of(config.model), config.evaluate.image_size).macs
        for name, config in cells("v1-table3").items()
    }
    for name, cost in macs.items():
        base = next(macs[other] for other in macs if other.endswith("-base") and other[:-4] in name)
        assert name.endswith("-base") or 2.5 < cost / base < 6, name


# Figure 7


def test_figure_7_has_the_papers_networks_and_numbers(cells):
    paper = {cell.name: (cell.paper.top1, cell.paper.macs) for cell in ABLATIONS["figure7"].full.cells}
    assert paper == {
        "baseline": (0.763, 0.4e9),
        "deeper": (0.79, 1.8e9),
        "wider": (0.789, 1.8e9),
        "higher-resolution": (0.791, 1.9e9),
        "compound": (0.811, 1.8e9),
    }
    for name, config in cells("figure7", full=True).items():
        size = config.progressive.image_size[1]
        macs = network_cost(network_of(config.model), size).macs
        assert macs == pytest.approx(paper[name][1], rel=0.2), name
        assert (config.progressive.stages, config.evaluate.image_size) == (1, size)


def test_figure_7_scales_one_network_whose_weights_are_grown(cells):
    table = cells("figure7")
    assert {config.model.grow_from for config in table.values()} == {"v2-b0"}
    assert {config.model.weights for config in table.values()} == {"pretrained"}
    base = table["baseline"]
    macs = {
        name: network_cost(network_of(config.model), config.progressive.image_size[1]).macs
        for name, config in table.items()
    }
    for name, config in table.items():
        larger = 1 if config is base else 4
        assert macs[name] / macs["baseline"] == pytest.approx(larger, rel=0.15), name
        assert config.evaluate.image_size == config.progressive.image_size[1]
    assert [ablation.name for ablation in ABLATIONS.values() if ablation.looks] == ["figure7"]
