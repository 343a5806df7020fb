"""The races, with the settings that were found on other seeds than those that are reported (docs/log.md)."""

from __future__ import annotations

from dataclasses import replace

from race.case import Race

_FLOWERS = Race(
    name="flowers",
    title="Flowers from scratch, V2-B0 at half width and depth, 128 px",
    folder="flower_photos",
    recipe="scratch",
    needs_weights=False,
    changes=(
        "model.network=v2-b0",
        "model.width=0.5",
        "model.depth=0.5",
        "train.epochs=24",
        "train.batch_size=32",
        "learning_rate.base=8e-3",
        "learning_rate.warmup_epochs=2",
        "ema.decay=0.99",
        "evaluate.image_size=128",
        "evaluate.batch_size=100",
        "evaluate.every_epochs=4",
        "augment.place=device",
        "progressive.stages=1",
        "progressive.image_size=[128,128]",
        "progressive.size_multiple=8",
        "progressive.randaugment_magnitude=[6,6]",
        "progressive.mixup_alpha=[0,0]",
        "progressive.dropout_rate=[0.2,0.2]",
        "progressive.drop_path_rate=[0.1,0.1]",
    ),
    full=128,
    paper=(
        "progressive.stages=4",
        "progressive.image_size=[64,128]",
        "progressive.randaugment_magnitude=[2,6]",
        "progressive.dropout_rate=[0.0,0.2]",
        "progressive.drop_path_rate=[0.0,0.1]",
    ),
    better=(
        "progressive.stages=4",
        "progressive.image_size=[64,128]",
        "progressive.size_power=2",
        "progressive.hold_share=0.4",
        "progressive.randaugment_magnitude=[2,6]",
        "progressive.dropout_rate=[0.0,0.2]",
        "progressive.drop_path_rate=[0.0,0.1]",
    ),
    timm_sizes=(64, 80, 104, 128),
    timm_epochs=24,
    judged_images=0,
    short_sides=(80, 160),
)

_CIFAR10 = Race(
    name="cifar10",
    title="CIFAR-10, V2-B0 fine-tuned from ImageNet, 128 px",
    folder="cifar10",
    recipe="finetune",
    needs_weights=True,
    changes=(
        "model.network=v2-b0",
        "data.resident=true",
        "augment.place=device",
        "train.epochs=0.16",
        "train.batch_size=32",
        "train.head_epochs=0",
        "train.backbone_rate=0.3",
        "train.early_stop_epochs=0",
        "learning_rate.base=2e-3",
        "learning_rate.warmup_epochs=0.01",
        "ema.decay=0.98",
        "evaluate.image_size=128",
        "evaluate.crop_mode=squash",
        "evaluate.batch_size=100",
        "evaluate.every_epochs=0.04",
        "augment.operations=2",
        "progressive.stages=1",
        "progressive.image_size=[128,128]",
        "progressive.size_multiple=8",
        "progressive.randaugment_magnitude=[0,0]",
        "progressive.dropout_rate=[0.2,0.2]",
        "progressive.drop_path_rate=[0.1,0.1]",
    ),
    full=128,
    paper=(
        "progressive.stages=4",
        "progressive.image_size=[64,128]",
        "progressive.dropout_rate=[0.0,0.2]",
        "progressive.drop_path_rate=[0.0,0.1]",
    ),
    better=(
        "progressive.stages=4",
        "progressive.image_size=[64,128]",
        "progressive.dropout_rate=[0.0,0.2]",
        "progressive.drop_path_rate=[0.0,0.1]",
    ),
    timm_sizes=(64, 80, 104, 128),
    timm_epochs=8,
    judged_images=500,
    last_images=2500,
)

RACES = {race.name: race for race in (_CIFAR10, _FLOWERS)}


def quickened(race: Race) -> Race:
    """Return a race of eight small steps, which goes through all that the real one does."""
    few = (
        "model.width=0.25",
        "model.depth=0.25",
        "model.weights=",
        "train.batch_size=8",
        "data.max_train_images=64",
        "train.epochs=1",
        "learning_rate.warmup_epochs=0",
        "evaluate.every_epochs=0.5",
    )
    kept = tuple(change for change in race.changes if change.partition("=")[0] not in _keys(few))
    return replace(
        race,
        changes=(*kept, *few),
        recipe="scratch" if race.needs_weights else race.recipe,
        needs_weights=False,
        timm_epochs=2,
        judged_images=10,
        last_images=20,
    )


def _keys(changes: tuple[str, ...]) -> set[str]:
    return {change.partition("=")[0] for change in changes}
