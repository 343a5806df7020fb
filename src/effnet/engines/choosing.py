"""Choose what answers, and say why in one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from effnet.data.threads import thread_count
from effnet.engines.figures import EAGER, fastest_for, fastest_served, gain, measuring_pays
from effnet.engines.kept import FOREVER, KeptEngines, Measured, kept_engines
from effnet.engines.measuring import measure_engines, packages_of, ready_file, reason_of
from effnet.engines.opening import RUNTIMES, eager_answer, installed_runtimes, open_spread
from effnet.errors import UserError, did_you_mean
from effnet.evaluation.predictor import Predictor
from effnet.evaluation.streaming import CPU_BATCH_SIZE
from effnet.export.checking import Source
from effnet.nn import Network
from effnet.training.journal import cpu_model

EngineName = Literal["auto", "eager", "onnx", "openvino"]
Tell = Callable[[str], None]

_FEW = 500
"""Images that are answered before it is worth a thought by what."""
_WAIT_S = 2.0
"""How long these wait for another process, which may be measuring for half a minute."""


def use_engine(
    predictor: Predictor,
    wanted: str = "auto",
    *,
    images: int | None = None,
    threads: int = 0,
    tell: Tell = lambda line: None,
) -> str:
    """Let a network of ours be computed by the engine that is fastest here, or by one that is named.

    On a processor, ``auto`` compares PyTorch with the runtimes that are installed: the network is exported,
    the file must answer like it by the rule of ``effnet export``, and all take turns. File and figures are
    kept for the next time. For a number of images that PyTorch has answered within two minutes nothing is
    measured: what is known decides, else PyTorch answers, and of a few images nothing is told. On a GPU,
    PyTorch answers.

    Args:
        predictor: Its network; an exported file stays with its own runtime.
        wanted: ``auto``, ``eager`` (PyTorch), ``onnx`` (ONNX Runtime) or ``openvino``.
        images: How many there are to answer; None: whatever comes, in batches of one and of many.
        threads: That compute; 0: one for each processor.
        tell: Told in one line what answers and why, and of what cannot be used.

    Returns:
        The name of the engine for many images.

    Raises:
        UserError: There is no such engine, or the one that was named cannot be used.
    """
    if wanted not in get_args(EngineName):
        raise UserError(f"there is no engine '{wanted}'{did_you_mean(wanted, get_args(EngineName))}")
    network = predictor.model
    if not isinstance(network, Network):
        if wanted != "auto":
            raise UserError(f"an exported file is run by its own runtime; leave --engine {wanted} out")
        return "exported"
    if predictor.device.type != "cpu":
        if wanted in RUNTIMES:
            raise UserError(f"--engine {wanted} computes on the processor; add --device cpu, or leave it out")
        return EAGER
    task = _Task(
        predictor=predictor,
        source=Source(
            network=network,
            class_names=predictor.class_names,
            preprocessing=predictor.preprocessing,
            output=predictor.output,
            origin="",
        ),
        images=images,
        threads=thread_count(threads),
        tell=tell,
    )
    if wanted in RUNTIMES:
        return task.use_named(wanted)
    return task.use_eager("as asked for") if wanted == EAGER else task.use_fastest()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Task:
    """A network of ours on a processor that an engine is chosen for."""

    predictor: Predictor
    source: Source
    images: int | None
    threads: int
    tell: Tell

    def use_eager(self, why: str) -> str:
        if self.images is None:  # Whatever comes is cut into pieces; images in files are cut already.
            self.predictor.engine = open_spread(EAGER, EAGER, self.source.network, Path(), self.threads)
        if why:
            self.tell(f"engine {EAGER}: {why}")
        return EAGER

    def use_named(self, name: str) -> str:
        with self._kept() as kept:
            try:
                ready_file(name, self.source, kept, self.threads)
                self._open(name, name, kept)
            except UserError as error:
                raise UserError(f"{error}; or leave --engine {name} out") from None
            except Exception as error:  # Whatever a converter fails with, another engine answers.
                raise UserError(
                    f"--engine {name} cannot be used: {reason_of(error)}; leave it out for one that can"
                ) from error
        self.tell(f"engine {name}: as asked for")
        return name

    def use_fastest(self) -> str:
        names, is_few = installed_runtimes(), self.images is not None and self.images < _FEW
        if not names:
            missing = "no other is installed; pip install 'effnet[onnx]' or 'effnet[openvino]'"
            return self.use_eager("" if is_few else missing)
        with self._kept(wait_s=_WAIT_S if is_few else FOREVER) as kept:
            about = {
                "processor": cpu_model(),
                "threads": self.threads,
                "packages": packages_of(*names),
            }
            measured = kept.find_measured(about)
            if measured is not None:
                for name, reason in measured.refused.items():
                    self.tell(f"engine {name} cannot be used: {reason}")
                return self._use_measured(measured, kept)
            if is_few:
                return self.use_eager("")
            if self.images is not None and not _pays(self.source, self.images):
                return self.use_eager("it has answered these images before others have been measured")
            self.tell(
                "measuring which engine is fastest here, once for these weights; --engine eager does not"
            )
            measured = measure_engines(names, self.source, kept, self.threads, tell=self.tell)
            try:
                kept.keep_measured(about, measured)
            except OSError as error:
                self.tell(f"what was measured cannot be kept in {kept.folder}: {error.strerror or error}")
            return self._use_measured(measured, kept)

    def _use_measured(self, measured: Measured, kept: KeptEngines) -> str:
        one, many = self._fastest(measured)
        try:
            for name in {one, many} - {EAGER}:
                ready_file(name, self.source, kept, self.threads)
            if self.images is None or many != EAGER:
                self._open(one, many, kept)
        except Exception as error:  # It could be used when it was measured; the answers do not wait for it.
            return self.use_eager(f"a faster one cannot be used any more: {reason_of(error)}")
        self.tell(_line(measured, one, many, self.images))
        return many

    def _fastest(self, measured: Measured) -> tuple[str, str]:
        if self.images is None:
            return fastest_served(measured.figures)
        name = fastest_for(measured.figures, self.images)
        return name, name

    def _open(self, one: str, many: str, kept: KeptEngines) -> None:
        self.predictor.engine = open_spread(one, many, self.source.network, kept.folder, self.threads)

    def _kept(self, wait_s: float = FOREVER) -> AbstractContextManager[KeptEngines]:
        return kept_engines(self.source.network, self.source.preprocessing.image_size, wait_s=wait_s)


def _pays(source: Source, images: int) -> bool:
    answer, side = eager_answer(source.network), source.preprocessing.image_size
    pixels = torch.zeros(CPU_BATCH_SIZE, source.network.spec.in_channels, side, side)
    answer(pixels)
    began = time.perf_counter()
    answer(pixels)
    return measuring_pays(images, (time.perf_counter() - began) / len(pixels))


def _line(measured: Measured, one: str, many: str, images: int | None) -> str:
    figures, when = measured.figures, f"(measured {measured.measured})"
    if one == many == EAGER:
        what = (
            "no other is faster here" if images is None else f"no other has answered {images} images sooner"
        )
        return f"engine {EAGER}: {what} {when}"
    if images is not None:
        return f"engine {many}: {gain(figures, many, 'many'):.1f} times as fast as {EAGER} PyTorch {when}"
    first, more = (gain(figures, name, of) for name, of in ((one, "one"), (many, "many")))
    named = one if one == many else f"{one} for one image and {many} for more"
    return f"engine {named}: {first:.1f} and {more:.1f} times as fast as {EAGER} PyTorch {when}"
