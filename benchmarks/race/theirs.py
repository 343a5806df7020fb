"""Runs of timm: its network, loader, loss, optimizer and moving average, put together as by its ``train.py``.

The images grow as its ``--train-size-schedule progressive`` makes them: timm's own loader draws a size for
each batch, and its own transform of that size crops to it. Rate, length, decay and network are the same as
ours, and the judge is ours too.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from effnet.arch.spec import NetworkSpec, StageSpec
from effnet.config import Config
from effnet.data.images import LabelledImages, Pyramid
from effnet.data.resident import ResidentImages
from effnet.evaluation.evaluator import evaluate_model
from effnet.schedule.learning_rate import learning_rate
from effnet.schedule.progressive import StageSettings
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.weights.convert import export_state
from effnet.weights.timm_library import import_timm
from race.case import Race
from race.clock import RaceClock, Story
from race.curves import by_size
from race.ours import few

EVERY_STEPS = 10
LOOKS = 6
"""So often the result is looked at on the way, or a little more often."""


def block_string(stage: StageSpec) -> str:
    """Return timm's way to write a stage."""
    # Its blocks that do not expand have names of their own.
    kinds = {"mbconv": ("ds", "ir"), "fused_mbconv": ("cn", "er")}
    kind = kinds[stage.operation][stage.expand_ratio > 1]
    text = f"{kind}_r{stage.repeats}_k{stage.kernel_size}_s{stage.stride}"
    text += f"_e{stage.expand_ratio}_c{stage.channels}"
    text += f"_se{stage.se_ratio:g}" if stage.se_ratio else ""
    return text + "_skip" * (kind == "cn")


def timm_network(spec: NetworkSpec, settings: StageSettings) -> nn.Module:
    """Return timm's network of the same layers.

    Args:
        spec: Ours.
        settings: With the rates of dropout and drop-path, which stay.
    """
    import_timm()
    from timm.models._efficientnet_builder import decode_arch_def  # noqa: PLC0415
    from timm.models.efficientnet import EfficientNet  # noqa: PLC0415

    model: nn.Module = EfficientNet(
        block_args=decode_arch_def([[block_string(stage)] for stage in spec.stages]),
        num_classes=spec.num_classes,
        num_features=spec.head_channels,
        stem_size=spec.stem_channels,
        fix_stem=True,
        round_chs_fn=round_not,
        pad_type="same",
        act_layer=nn.SiLU,
        norm_layer=partial(nn.BatchNorm2d, eps=spec.norm_epsilon, momentum=spec.norm_momentum),
        drop_rate=settings.dropout_rate,
        drop_path_rate=settings.drop_path_rate,
    )
    return model


def round_not(channels: float, *_: object, **__: object) -> int:
    """Return a number of channels as it is: ours are rounded already."""
    return int(channels)


class Photos(Dataset[tuple[Any, int]]):
    """Images as timm's own data sets give them: Pillow's, from files, or from pixels as of CIFAR.

    Args:
        images: To read and decode.
        resident: Their pixels, where they are in memory.
    """

    def __init__(self, images: LabelledImages, resident: ResidentImages | None) -> None:
        self._images, self._pixels = images, resident.pixels.numpy() if resident else None
        self.transform: Callable[[Image.Image], Any] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if self._pixels is not None:
            image = Image.fromarray(self._pixels[index])
        else:
            image = Image.open(io.BytesIO(self._file(index))).convert("RGB")
        given = self.transform(image) if self.transform else image
        return given, int(self._images.labels[index])

    def _file(self, index: int) -> bytes:
        encoded = self._images.read(index)
        if isinstance(encoded, Pyramid):
            # Of several copies the largest, which serves all sizes.
            encoded = encoded.read(len(encoded.short_sides) - 1)
        assert isinstance(encoded, bytes)
        return encoded


def timm_loader(run: Experiment, sizes: tuple[int, ...], epochs: int, batches: int) -> Any:  # noqa: ANN401
    """Return timm's loader.

    Args:
        run: Ours, with images, crops and the regularization of its last stage.
        sizes: To choose from, ascending; of one there is no choice.
        epochs: In which its schedule goes from the first to the last.
        batches: Of an epoch.
    """
    import_timm()
    from timm.data import create_loader  # noqa: PLC0415

    config, last = run.config, run.schedule.stages[-1]
    operations = config.augment.operations if last.randaugment_magnitude else 0
    return create_loader(
        Photos(run.data.train, run.resident),
        input_size=(3, sizes[-1], sizes[-1]),
        batch_size=last.batch_size,
        is_training=True,
        scale=config.data.crop_area,
        ratio=config.data.crop_aspect,
        hflip=0.5 if config.data.flip else 0.0,
        color_jitter=0.0,
        auto_augment=f"rand-m{last.randaugment_magnitude:g}-n{operations}-p1" if operations else None,
        interpolation=config.data.interpolation,
        mean=run.preprocessing.mean,
        std=run.preprocessing.std,
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
        input_size_choices=sizes,
        batch_choice_seed=config.train.seed,
        batch_choice_schedule="progressive" if len(sizes) > 1 else "constant",
        batch_schedule_epochs=epochs,
        num_batches=batches,
    )


class TimmRun:
    """What a run of timm consists of.

    Args:
        run: Ours, whose settings and initial weights it gets.
    """

    def __init__(self, run: Experiment) -> None:
        timm = import_timm()
        from timm.loss import LabelSmoothingCrossEntropy  # noqa: PLC0415
        from timm.optim import create_optimizer_v2  # noqa: PLC0415

        self._run, self.step = run, 0
        assert isinstance(run.spec, NetworkSpec)
        self.model = timm_network(run.spec, run.schedule.stages[-1])
        self.model.load_state_dict(export_state(run.build_model().state_dict(), run.spec, "timm"))
        self.model = self.model.to(memory_format=torch.channels_last)
        values, config = run.config.optimizer, run.config
        self._optimizer = create_optimizer_v2(
            self.model,
            opt={"adamw": "adamw", "sgd": "momentum", "rmsprop_tf": "rmsproptf"}[values.name],
            lr=config.learning_rate.base,
            weight_decay=values.weight_decay,
            **({"eps": values.epsilon} if values.name != "sgd" else {"momentum": values.momentum}),
        )
        self.average = timm.utils.ModelEmaV3(self.model, decay=config.ema.decay, use_warmup=config.ema.warmup)
        self._loss = LabelSmoothingCrossEntropy(smoothing=config.train.label_smoothing)

    def do(self, images: Tensor, labels: Tensor) -> Tensor:
        """Do a step, as its ``train_one_epoch`` does."""
        rate = learning_rate(
            self._run.config.learning_rate,
            self.step,
            steps_per_epoch=self._run.schedule.train_images / len(labels),
            total_steps=self._run.schedule.total_steps,
            batch_size=len(labels),
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(self.model(images.contiguous(memory_format=torch.channels_last)), labels)
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self.average.update(self.model, step=self.step)
        return loss.detach()

    def judge(self, experiment: Experiment) -> float:
        """Return the accuracy of the moving average, by the judge of ours."""
        return evaluate_model(
            self.average.module,
            experiment.data.val,
            experiment.preprocessing,
            device=experiment.device,
            batch_size=experiment.config.evaluate.batch_size,
            workers=1,
        ).top1


def run_timm(config: Config, race: Race) -> dict[str, Any]:
    """Train as timm does, and judge the moving average of the last step by the validation images of the race.

    Args:
        config: Of our run at the fixed size.
        race: With the sizes to choose from.
    """
    _imported()
    story = Story(RaceClock())
    seed = config.train.seed
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - timm draws from it
    torch.manual_seed(seed)
    whole = prepare_experiment(config)
    whole = few(whole, race.last_images)
    some = few(whole, race.judged_images)
    sizes, epochs = race.timm_sizes, race.timm_epochs
    batches = whole.schedule.total_steps // epochs
    loader = timm_loader(whole, sizes, epochs, batches)
    run = TimmRun(whole)
    torch.manual_seed(seed)
    run.model.train()
    images, losses = 0, []
    started = story.note(step=0, image_size=sizes[0], images=0)
    for epoch in range(epochs):
        # As its `train.py` tells samplers.
        getattr(loader, "batch_sampler", loader.loader.batch_sampler).set_epoch(epoch)
        for pixels, labels in loader:
            losses.append(run.do(pixels, labels))
            images += len(labels)
            # Sizes change from batch to batch, so each batch is a point.
            story.note(step=run.step, image_size=pixels.shape[-1], images=images)
            if run.step % EVERY_STEPS == 0:
                check(losses)
                losses = []
        if (epoch + 1) % max(epochs // LOOKS, 1) == 0 or epoch + 1 == epochs:
            with story.clock.stopped():
                story.judge(run.judge(some))
    total = story.clock.spent
    return {
        "top1": run.judge(whole),
        "wall": total.wall,
        "cpu": total.cpu,
        "start": started._asdict(),
        "sizes": by_size(story.points),
        "curve": story.curve,
        "images": images,
        "steps": run.step,
        "kernels": "timm",
    }


def _imported() -> None:
    """Import what a run needs: that is no training."""
    import_timm()
    import timm.data  # noqa: PLC0415
    import timm.models.efficientnet  # noqa: PLC0415
    import timm.optim  # noqa: F401, PLC0415


def check(losses: list[Tensor]) -> None:
    """Wait for losses.

    Raises:
        ArithmeticError: One is not finite.
    """
    if not torch.stack(losses).isfinite().all():
        raise ArithmeticError("timm's loss is not finite")
