"""What ``effnet tune`` found to be the fastest on this machine, kept for the runs that follow.

A run takes what was kept where its configuration says ``auto`` and the same thing was measured: the same
network at the same sizes on the same device, or the same images read by as many processors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import torch

from effnet.arch.external import AnySpec
from effnet.arch.io import from_dict, to_dict
from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.data.cache import cache_folder
from effnet.data.threads import thread_count
from effnet.errors import UserError
from effnet.files import whole_file
from effnet.training.compiling import is_compiled
from effnet.training.journal import installed_version
from effnet.training.kernel_choice import default_kernels

AUTO: Final = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Settings that were measured to be the fastest."""

    about: Mapping[str, Any]
    """What was measured; another network, size, device or version of torch is another choice."""
    changes: Mapping[str, str | int]
    """``section.key`` and its value."""
    measured: str = ""
    """When, as ISO 8601."""


def compute_subject(spec: AnySpec, image_sizes: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Return what the speed of training steps depends on.

    Args:
        spec: The network; its classes and its drop rates do not count.
        image_sizes: Of the stages, in pixels.
        device: Where it is trained.
    """
    is_cuda = device.type == "cuda"
    # What layers say of themselves, a name need not say.
    layers = replace(spec, name="any") if isinstance(spec, NetworkSpec) else spec
    return {
        "kind": "compute",
        "network": to_dict(replace(layers, num_classes=1)),
        "image_sizes": sorted(set(image_sizes)),
        "device": torch.cuda.get_device_name(device) if is_cuda else "cpu",
        "processors": None if is_cuda else thread_count(0),
        "torch": torch.__version__,
        "kernels": {name: installed_version(name) for name in ("numba", "triton")},
    }


def loader_subject(config: Config, image_sizes: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """Return what the speed of the loader beside the network depends on.

    Args:
        config: Of a run; its source of images must hold in any folder.
        image_sizes: Of the stages, in pixels.
        device: Where it is trained.
    """
    augment = to_dict(replace(config.augment, place="worker"))
    return {
        "kind": "loader",
        "source": config.data.source,
        "resident": config.data.resident,
        "augment": augment,
        "network": config.model.network,
        "image_sizes": sorted(set(image_sizes)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processors": thread_count(0),
    }


def with_tuned(
    config: Config,
    spec: AnySpec,
    image_sizes: tuple[int, ...],
    device: torch.device,
    *,
    precision: Literal["fp32", "bf16"],
    is_alone: bool = True,
) -> Config:
    """Return a configuration without ``auto``: with what was kept for it, else with what is safe anywhere.

    Args:
        config: Of a run; its source of images must hold in any folder.
        spec: The network.
        image_sizes: Of the stages, in pixels.
        device: Where it is trained.
        precision: The choice where nothing was measured.
        is_alone: Whether one process trains; with several of them no passes are recorded.
    """
    is_recording_open = config.train.compile == AUTO
    if config.model.gradient_checkpointing and config.train.compile == AUTO:
        # What was measured without it cannot be compiled with it.
        config = replace(config, train=replace(config.train, compile="off"))
    if config.train.kernels == AUTO and is_compiled(config):
        # Kernels that were measured uncompiled need not go together with the compiler.
        config = replace(config, train=replace(config.train, kernels="plain"))
    config = apply_choice(config, find_choice(compute_subject(spec, image_sizes, device)))
    config = apply_choice(config, find_choice(loader_subject(config, image_sizes, device)))
    train, augment = config.train, config.augment
    if train.precision == AUTO:
        train = replace(train, precision=precision)
    if train.memory_format == AUTO:
        train = replace(train, memory_format="channels_last")
    if train.compile == AUTO or (train.compile == "graphs" and is_recording_open and not is_alone):
        train = replace(train, compile="off")
    if train.kernels == AUTO:
        train = replace(train, kernels=default_kernels(train, spec, device))
    if augment.place == AUTO:
        augment = replace(augment, place="worker")
    return replace(config, train=train, augment=augment)


def keep_choice(about: Mapping[str, Any], changes: Mapping[str, str | int]) -> Path:
    """Keep a choice in `cache_folder`; an older one about the same is replaced.

    Returns:
        The file.

    Raises:
        OSError: It cannot be written.
    """
    path = _path(about)
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    with whole_file(path) as temporary:
        text = json.dumps({"about": dict(about), "changes": dict(changes), "measured": now}, indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def find_choice(about: Mapping[str, Any]) -> Choice | None:
    """Return what was kept about the same; None where there is nothing, or nothing that can be read."""
    try:
        kept = json.loads(_path(about).read_text(encoding="utf-8"))
        choice = Choice(about=kept["about"], changes=dict(kept["changes"]), measured=str(kept["measured"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return choice if choice.about == json.loads(json.dumps(about)) else None


def apply_choice(config: Config, choice: Choice | None) -> Config:
    """Return a configuration with a choice's values where it says ``auto``, or 0 for a number.

    A value that is no longer allowed (kept by another version) is left out.
    """
    sections = to_dict(config)
    for key, value in (choice.changes if choice else {}).items():
        section, _, name = key.partition(".")
        if sections.get(section, {}).get(name) in (AUTO, 0):
            sections[section][name] = value
    try:
        return from_dict(Config, sections, "what effnet tune has kept")
    except UserError:
        return config


def _path(about: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "tuned" / f"{about['kind']}-{digest[:16]}.json"
