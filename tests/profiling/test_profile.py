from __future__ import annotations

import json

import pytest
import torch

from effnet.api import configure
from effnet.errors import UserError
from effnet.native import has_numba
from effnet.nn.layers import ConvNorm
from effnet.profiling import device
from effnet.profiling.alone import time_alone
from effnet.profiling.device import Peaks, Setting
from effnet.profiling.layers import layers_of
from effnet.profiling.plot import plot_profile
from effnet.profiling.profile import Profile, measure_profile
from effnet.profiling.rows import Measured, PassTime, sums_of
from effnet.profiling.table import COLUMNS, summary, table_rows
from effnet.profiling.work import Work
from effnet.training.unread import prepare_unread

CPU = Setting(device=torch.device("cpu"), precision=torch.float32, memory_format=torch.channels_last)
STEP_PARTS = {"input", "loss", "optimizer", "moving average"}


@pytest.fixture(scope="module")
def small_roofs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_COPIED", {"cpu": 1 << 16})
        patch.setattr(device, "_SIDE", {"cpu": 32})
        yield


def _profile(*, is_training: bool, **changes: object) -> Profile:
    stage = {"progressive.stages": 1, "progressive.image_size": "[32,32]", "train.batch_size": 2}
    data = {
        "data.train_images": 100,
        "data.classes": 10,
        "train.device": "cpu",
        "model.width": 0.2,
        "model.depth": 0.3,
    }
    given = stage | data | {"model.network": "v2-b0"} | changes
    config = configure(recipe="scratch", changes=[f"{key}={value}" for key, value in given.items()])
    return measure_profile(prepare_unread(config), is_training=is_training, rounds=2)


@pytest.fixture(scope="module")
def profile(small_roofs) -> Profile:
    return _profile(is_training=True)


def test_a_step_has_all_its_kinds_and_two_calls_of_each_pass(profile):
    kinds = {row.kind for row in profile.kinds}
    assert kinds >= STEP_PARTS | {"stem", "batch norm", "activation", "depthwise 3x3", "squeeze-excite"}
    assert all(len(done.seconds) == 2 for item in profile.measured for done in item.passes)
    assert list(profile.wholes) == (["plain", "numba"] if has_numba() else ["plain"])
    assert profile.seconds == pytest.approx(
        sum(item.count * done.median for item in profile.measured for done in item.passes)
    )


def test_the_optimizer_reads_gradients_and_moves_weights_and_slots(profile):
    """RMSprop has two slots: gradient, weight twice, slots twice; the average reads two and writes one."""
    params = sum(row.params for row in profile.kinds)
    rows = {row.kind: row.passes[0] for row in profile.kinds}
    assert rows["optimizer"].bytes == 4 * 7 * params
    norms = next(row.params for row in profile.kinds if row.kind == "batch norm")
    counters = 3 * 8 * sum(row.count for row in profile.kinds if row.kind == "batch norm")
    assert rows["moving average"].bytes == 3 * 4 * (params + norms) + counters


def test_answers_have_neither_backward_pass_nor_optimizer(small_roofs):
    profile = _profile(is_training=False)
    assert {done.name for row in profile.kinds for done in row.passes} == {"forward"}
    assert not {row.kind for row in profile.kinds} & (STEP_PARTS | {"batch norm"})
    assert all(row.kept_bytes == 0 for row in profile.kinds)


def test_clipping_is_part_of_a_step_that_clips(small_roofs):
    profile = _profile(is_training=True, **{"train.gradient_clip": 1.0, "ema.decay": 0})
    kinds = {row.kind for row in profile.kinds}
    assert "clipping" in kinds
    assert "moving average" not in kinds


def test_networks_of_others_have_no_kinds(fake_timm, small_roofs):
    with pytest.raises(UserError, match="is not of the family, and only its layers have kinds"):
        _profile(
            is_training=True, **{"model.network": "timm:resnet50", "model.width": 1.0, "model.depth": 1.0}
        )


def test_what_layers_keep_is_what_their_network_keeps():
    """Convolution and norm keep their inputs, the former padded to 33 pixels, and SiLU the norm's output."""
    from effnet.arch import load_spec

    layers = layers_of(load_spec("v2-b0"), image_size=32, batch=2, is_training=True)
    kept = {layer.name: time_alone(layer, CPU, rounds=1).kept_bytes for layer in layers[:3]}
    images, activation = 4 * 2 * 3 * 33 * 33, 4 * 2 * 32 * 16 * 16
    statistics = 2 * 4 * 32
    assert kept == {"stem.conv": images, "stem.norm": activation + statistics, "stem.act": activation}

    module, pointers = ConvNorm(load_spec("v2-b0"), 3, 32, kernel_size=3, stride=2), {}

    def pack(tensor):
        pointers[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(torch.zeros(2, 3, 32, 32).to(memory_format=torch.channels_last))
    for tensor in (*module.parameters(), *module.buffers()):
        pointers.pop(tensor.untyped_storage().data_ptr(), None)
    assert sum(pointers.values()) == sum(kept.values())


def test_sums_by_hand():
    """Roofs of 100 bytes and 1000 operations a second; 2 x 400 operations and 10 bytes, 1 x no operation."""
    peaks = Peaks(bytes_per_second=100.0, flops_per_second=1000.0)
    computing = PassTime(name="forward", work=Work(macs=200, bytes=10), seconds=(1.0, 0.5, 9.0))
    moving = PassTime(name="forward", work=Work(macs=0, bytes=50), seconds=(2.0,))
    items = [
        Measured(kind="a", name="one", shape=(1,), count=2, passes=(computing,), params=3, macs=200),
        Measured(kind="a", name="two", shape=(1,), count=1, passes=(moving,), params=4),
        Measured(kind="b", name="three", shape=(), count=1, passes=(moving,)),
    ]
    first, second = sums_of(items, peaks)
    assert (first.kind, first.count, first.params, first.macs) == ("a", 3, 10, 400)
    (row,) = first.passes
    assert row.seconds == 2 * 1.0 + 2.0
    assert row.least_seconds == pytest.approx(2 * 0.4 + 0.5)
    assert row.bound == "arithmetic"
    assert row.flops_per_second == 2 * 400 / 4.0
    assert row.bytes_per_second == 70 / 4.0
    assert row.reached == pytest.approx(1.3 / 4.0)
    assert second.passes[0].bound == "memory"
    assert second.seconds == 2.0


def test_the_figures_are_plain_json(profile):
    values = json.loads(json.dumps(profile.to_dict()))
    assert {"network", "batch", "peak_bytes_per_second", "wholes", "sum_seconds", "kinds", "layers"} <= set(
        values
    )
    for row in (*values["kinds"], *values["layers"]):
        assert {"kind", "count", "params", "macs", "activation_bytes", "kept_bytes", "passes"} <= set(row)
        for done in row["passes"]:
            assert {"pass", "least_bytes", "seconds", "least_seconds", "bound", "reached"} <= set(done)
    assert values["wholes"]["plain"]["peak_bytes"] is None
    total = sum(row["seconds"] for row in values["kinds"])
    assert values["sum_seconds"] == pytest.approx(total)


def test_the_table_has_a_line_for_each_pass(profile):
    rows = table_rows(profile)
    assert len(rows) == sum(len(row.passes) for row in profile.kinds)
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert [row[0] for row in rows if row[0]] == [row.kind for row in profile.kinds]
    assert "whole training step, kernels plain: " in summary(profile)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_picture_is_drawn(profile, tmp_path, ending):
    path = tmp_path / f"layers.{ending}"
    plot_profile(profile, path)
    assert path.read_bytes()[:5] == {"png": b"\x89PNG\r", "svg": b"<?xml"}[ending]
