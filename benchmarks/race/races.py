"""The races, with the settings that were found on other seeds than those that are reported (docs/log.md)."""

from __future__ import annotations

from dataclasses import replace

from race.case import Race

_EARLY_GROWTH = (
    "progressive.size_power=0.5",
    "progressive.cooldown_share=0.2",
    "progressive.regularization_power=2",
)
"""What a study of schedules on CIFAR-10, of other seeds, found best (results/schedule-cifar10.json)."""


def _progressive(first: int, last: int, **values: str) -> tuple[str, ...]:
    """Return the paper's four stages, with values that grow as the images do."""
    sizes = ("progressive.stages=4", f"progressive.image_size=[{first},{last}]")
    return (*sizes, *(f"progressive.{name}={pair}" for name, pair in values.items()))


_FLOWERS = Race(
    name="flowers",
    title="Flowers from scratch, V2-B0 at half width and depth, 128 px",
    folder="flower_photos",
    recipe="scratch",
    changes=(
        "model.network=v2-b0",
        "model.width=0.5",
        "model.depth=0.5",
        "train.epochs=28",
        "train.batch_size=32",
        "learning_rate.base=8e-3",
        "learning_rate.warmup_epochs=2",
        "ema.decay=0.99",
        "evaluate.image_size=128",
        "evaluate.batch_size=100",
        "evaluate.every_epochs=4",
        "progressive.stages=1",
        "progressive.image_size=[128,128]",
        "progressive.size_multiple=8",
        "progressive.randaugment_magnitude=[6,6]",
        "progressive.mixup_alpha=[0,0]",
        "progressive.dropout_rate=[0.2,0.2]",
        "progressive.drop_path_rate=[0.1,0.1]",
    ),
    full=128,
    paper=_progressive(
        64, 128, randaugment_magnitude="[2,6]", dropout_rate="[0.0,0.2]", drop_path_rate="[0.0,0.1]"
    ),
    better=_progressive(
        48, 96, randaugment_magnitude="[2,6]", dropout_rate="[0.0,0.2]", drop_path_rate="[0.0,0.1]"
    ),
    timm_sizes=(64, 80, 104, 128),
    timm_epochs=28,
    judged_images=0,
    short_sides=(80, 160),
)

_FINE_TUNED = Race(
    name="flowers-finetuned",
    title="Flowers, fine-tuned from V2-B0 of ImageNet, judged at 160 px",
    folder="flower_photos",
    recipe="finetune",
    changes=(
        "train.epochs=8",
        "train.early_stop_epochs=0",
        "train.head_epochs=0",
        "train.backbone_rate=1",
        "learning_rate.base=1e-3",
        "evaluate.image_size=160",
        "evaluate.batch_size=100",
        "evaluate.every_epochs=2",
        "progressive.stages=1",
        "progressive.image_size=[160,160]",
        "progressive.size_multiple=16",
    ),
    full=160,
    paper=_progressive(
        80, 160, randaugment_magnitude="[2,5]", dropout_rate="[0.0,0.2]", drop_path_rate="[0.0,0.1]"
    ),
    better=(
        *_progressive(
            80, 128, randaugment_magnitude="[2,5]", dropout_rate="[0.0,0.2]", drop_path_rate="[0.0,0.1]"
        ),
        "progressive.stages=5",
        "progressive.size_multiple=8",
    ),
    timm_sizes=(80, 96, 128, 160),
    timm_epochs=8,
    judged_images=0,
    short_sides=(80, 112, 160, 200),
    is_pretrained=True,
)
"""``better`` ends below the size by which it is judged, as the paper's do: V2-S trains at up to 300 px
and is judged at 384."""

_CIFAR10 = Race(
    name="cifar10",
    title="2,000 images of CIFAR-10 from scratch, V2-B0 at a quarter of the width, 64 px",
    folder="cifar10",
    recipe="ablation.small",
    changes=(
        "model.network=v2-b0.stride16",
        "model.width=0.25",
        "model.depth=0.35",
        "data.max_train_images=2000",
        "data.resident=true",
        "augment.place=device",
        "train.epochs=24",
        "learning_rate.warmup_epochs=2",
        "ema.decay=0.98",
        "evaluate.image_size=64",
        "evaluate.crop_mode=squash",
        "evaluate.every_epochs=4",
        "progressive.stages=1",
        "progressive.image_size=[64,64]",
        "progressive.size_multiple=4",
        "progressive.randaugment_magnitude=[5,5]",
        "progressive.dropout_rate=[0.2,0.2]",
        "progressive.drop_path_rate=[0.05,0.05]",
    ),
    full=64,
    paper=_progressive(
        32, 64, randaugment_magnitude="[0,5]", dropout_rate="[0.0,0.2]", drop_path_rate="[0.0,0.05]"
    ),
    better=(
        *_progressive(
            32, 64, randaugment_magnitude="[0,5]", dropout_rate="[0.0,0.2]", drop_path_rate="[0.0,0.05]"
        ),
        *_EARLY_GROWTH,
    ),
    timm_sizes=(32, 40, 52, 64),
    timm_epochs=24,
    judged_images=2000,
)

_WHOLE_STRENGTHS = {
    "randaugment_magnitude": "[0,5]",
    "dropout_rate": "[0.0,0.2]",
    "drop_path_rate": "[0.0,0.05]",
}

_CIFAR10_WHOLE = Race(
    name="cifar10-whole",
    title="All 50,000 images of CIFAR-10 from scratch, V2-B0 with a stride of 8, 32 px, on a GPU",
    folder="cifar10",
    recipe="cifar10",
    changes=(
        "model.network=v2-b0.stride8",
        "data.resident_draws=batch",
        "data.workers=4",
        "train.epochs=30",
        "train.batch_size=1024",
        "learning_rate.base=1e-3",  # for 128 images: 8e-3
        "learning_rate.warmup_epochs=3",
        "ema.decay=0.98",
        "evaluate.image_size=32",
        "evaluate.batch_size=1000",
        "evaluate.every_epochs=5",
        "progressive.stages=1",
        "progressive.image_size=[32,32]",
        "progressive.size_multiple=4",
        "progressive.randaugment_magnitude=[5,5]",
        "progressive.mixup_alpha=[0,0]",
        "progressive.dropout_rate=[0.2,0.2]",
        "progressive.drop_path_rate=[0.05,0.05]",
    ),
    full=32,
    paper=_progressive(16, 32, **_WHOLE_STRENGTHS),
    better=(
        *_progressive(16, 24, **_WHOLE_STRENGTHS),
        "progressive.stages=2",
        "progressive.size_multiple=8",
        "progressive.cooldown_share=0.5",
    ),
    lower=(*_progressive(16, 24, **_WHOLE_STRENGTHS), "progressive.size_multiple=2"),
    timm_sizes=(16, 20, 24, 32),
    timm_epochs=30,
    judged_images=2000,
    device="cuda",
)
"""Crops enlarge what they show by a fifth on average, so that what is judged at 32 px looks as in training at
26 px: ``better`` and ``lower`` end at 24. ``better`` sees 16 px in a quarter of the run, then 24."""

RACES = {race.name: race for race in (_CIFAR10, _FINE_TUNED, _FLOWERS, _CIFAR10_WHOLE)}


def quickened(race: Race) -> Race:
    """Return a race of eight small steps, which goes through all that the real one does."""
    # Trained weights fit the whole network alone.
    smaller = () if race.is_pretrained else ("model.width=0.25", "model.depth=0.25")
    few = (
        *smaller,
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
        timm_epochs=2,
        judged_images=10,
        last_images=20,
    )


def _keys(changes: tuple[str, ...]) -> set[str]:
    return {change.partition("=")[0] for change in changes}
