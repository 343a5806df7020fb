"""Where the batches of a run come from."""

from dataclasses import replace

import pytest
import torch

from effnet.api import start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import AugmentConfig, Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig
from effnet.config import ProgressiveConfig as Progressive
from effnet.data.device_augment import augment_images
from effnet.data.sources import open_configured
from effnet.errors import UserError
from effnet.training import batches as batches_module
from effnet.training import loop
from effnet.training.batches import check_workers, eval_worker_kind, run_batches, worker_kind
from effnet.training.experiment import prepare_experiment


@pytest.fixture
def config(tmp_path) -> Config:
    """Twenty steps of 140 digits."""
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=1, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=8, image_size=8, train_size=8
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return Config(
        model=ModelConfig(network=str(tmp_path / "tiny.json")),
        data=DataConfig(source="digits", workers=1, resident=True),
        progressive=Progressive(stages=1, image_size=(8, 8)),
        train=TrainConfig(epochs=2.0, batch_size=140, device="cpu"),
        evaluate=EvaluateConfig(batch_size=400),
    )


def test_resident_images_give_the_views_that_files_give(config):
    kept = prepare_experiment(config)
    read = prepare_experiment(replace(config, data=replace(config.data, resident=False)))
    assert read.resident is None
    assert tuple(kept.resident.pixels.shape) == (1438, 8, 8, 3)
    ours, theirs = (list(run_batches(run, run.schedule, seed=1, start_step=18)) for run in (kept, read))
    assert [batch.step for batch in ours] == [batch.step for batch in theirs] == [18, 19]
    for own, other in zip(ours, theirs, strict=True):
        assert other.drawn is None
        assert torch.equal(own.labels, other.labels)
        views = augment_images(own.images, own.drawn)
        difference = (views.int() - other.images.int()).abs()
        # Operations that stretch levels turn a difference of one into more.
        assert (difference > 1).float().mean() < 0.05


def test_a_run_trains_from_resident_images_alone(config, tmp_path, monkeypatch):
    for name in ("plot_schedule", "plot_learning_curve"):
        monkeypatch.setattr(loop, name, lambda *_: None)
    monkeypatch.delattr(batches_module, "train_batches")
    result = start_run(config, tmp_path / "run", quiet=True)
    assert result.steps == 20
    assert 0 < result.val_top1 < 1
    assert "resident = true" in (tmp_path / "run" / "config.toml").read_text()


def test_images_that_cannot_be_resident_are_told_before_a_run_begins(config, tmp_path, class_folders):
    photos = replace(config, data=DataConfig(source=str(class_folders), resident=True))
    with pytest.raises(UserError, match=r"needs images of one size, but train/dog/1\.png has 9 x 8"):
        start_run(photos, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_processes_that_cannot_read_the_images_are_told_before_a_run_begins(config, tmp_path):
    data = replace(config.data, resident=False, worker_kind="processes")
    found = open_configured(data)
    unsendable = replace(found, train=replace(found.train, read=lambda index: b""))
    with pytest.raises(
        UserError, match=r"'processes', but .* cannot be sent .*; set data\.worker_kind=threads"
    ):
        start_run(replace(config, data=data), tmp_path / "run", quiet=True, images=unsendable)
    assert not (tmp_path / "run").exists()
    check_workers(replace(data, worker_kind="auto"), unsendable.train)
    check_workers(replace(data, resident=True), unsendable.train)


@pytest.mark.parametrize(
    ("asked", "device", "workers", "blocks", "kind"),
    [
        ("auto", "cuda", 4, (), "processes"),
        ("auto", "cuda", 3, (), "threads"),
        ("auto", "cuda", 16, (3,), "threads"),
        ("auto", "cpu", 16, (), "threads"),
        ("threads", "cuda", 16, (), "threads"),
        ("processes", "cpu", 1, (), "processes"),
    ],
)
def test_processes_prepare_images_where_a_gpu_trains(config, *, asked, device, workers, blocks, kind):
    images = replace(open_configured(config.data).train, blocks=blocks)
    data = replace(config.data, worker_kind=asked)
    assert worker_kind(data, workers, torch.device(device), images) == kind


def test_processes_read_what_is_evaluated_where_there_is_much_of_it(config, monkeypatch):
    run = prepare_experiment(replace(config, data=replace(config.data, worker_kind="processes")))
    assert eval_worker_kind(run) == "threads"
    monkeypatch.setattr(batches_module, "FEWEST_IMAGES", len(run.data.val))
    assert eval_worker_kind(run) == "processes"
    unsendable = replace(run.data.val, read=lambda index: b"")
    assert eval_worker_kind(replace(run, data=replace(run.data, val=unsendable))) == "threads"


@pytest.fixture
def class_folders(tmp_path):
    """Two images of each class; a single one is wider than the others."""
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "pets" / "train" / name).mkdir(parents=True)
        (tmp_path / "pets" / "val" / name).mkdir(parents=True)
        for index in range(2):
            width = 9 if (name, index) == ("dog", 1) else 8
            Image.new("RGB", (width, 8)).save(tmp_path / "pets" / "train" / name / f"{index}.png")
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / "val" / name / f"{index}.png")
    return tmp_path / "pets"


def test_without_randaugment_resident_images_are_mirrored_still(config):
    plain = prepare_experiment(replace(config, augment=AugmentConfig(operations=0)))
    batch = next(run_batches(plain, plain.schedule, seed=1))
    views = augment_images(batch.images, batch.drawn)
    assert 0.4 < (views == batch.images.flip(2)).flatten(1).all(1).float().mean() < 0.6
