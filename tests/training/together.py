"""What several processes do together; torchrun starts this file, and test_together.py looks at what is left.

``together.py WORK TASK...`` runs tasks one after the other. WORK has ``NAME.toml``, the configurations.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from effnet.api import evaluate, start_run
from effnet.cli.main import main
from effnet.config import DistributedConfig
from effnet.data.processes import Processes, join_processes, this_process
from effnet.evaluation.multilabel import MultiLabelCounts
from effnet.nn.shared_norm import SharedBatchNorm2d, share_norm
from effnet.recipes import config_from_toml
from effnet.training import loop
from effnet.training.parallel import join_norms

LIMIT_SECONDS = 100
"""After which a process that waits in vain says where it waits."""


def log_samples(path: Path) -> None:
    """Note which images every step trains on: each has a colour of its own."""
    real = loop.train_step

    def step(state, batch, experiment) -> Tensor:
        loss = real(state, batch, experiment)
        seen = batch.images[:, 0, 0].tolist()
        with path.open("a") as file:
            file.write(json.dumps({"step": batch.step, "seen": seen}) + "\n")
        return loss

    loop.train_step = step


def train(work: Path, name: str) -> None:
    config = config_from_toml((work / f"{name}.toml").read_text(), name)
    start_run(config, work / name, quiet=True)


def score(work: Path, name: str) -> dict[str, Any]:
    return asdict(evaluate(work / name, batch_size=4, device="cpu"))


def norm(processes: Processes) -> dict[str, float]:
    """Return how far batch norm over all processes is from batch norm of all images in one."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 4, 4, generator=generator) * 2 + 100
    wanted = torch.randn(5, 3, 4, 4, generator=generator)
    whole = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
    nn.init.normal_(whole[0].weight, 1.0, 0.5, generator=generator)
    shared = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
    shared.load_state_dict(whole.state_dict())
    parameters = list(shared.parameters())
    share_norm(shared, None)
    assert isinstance(shared[0], SharedBatchNorm2d)
    assert all(one is other for one, other in zip(parameters, shared.parameters(), strict=True))
    assert shared.state_dict().keys() == whole.state_dict().keys()

    own = processes.share.of(len(images))
    part, all_images = images[own.start : own.stop].requires_grad_(), images.clone().requires_grad_()
    (whole(all_images) * wanted).sum().backward()
    (shared(part) * wanted[own.start : own.stop]).sum().backward()
    gradients = [parameter.grad.clone() for parameter in shared.parameters()]
    for gradient in gradients:
        distributed.all_reduce(gradient)
    return {
        "output": distance(shared(part), whole(all_images)[own.start : own.stop]),
        "input": distance(part.grad, all_images.grad[own.start : own.stop]),
        "weight": distance(gradients[0], whole[0].weight.grad),
        "bias": distance(gradients[1], whole[0].bias.grad),
    } | {name: distance(tensor, whole.state_dict()[name]) for name, tensor in shared.state_dict().items()}


def norm_alone(processes: Processes) -> float:
    """Return how far batch norm over a group of one process is from batch norm of its own images."""
    images = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(processes.rank))
    grouped = nn.Sequential(nn.BatchNorm2d(3))
    join_norms(grouped, DistributedConfig(norm="group", norm_group=1), processes)
    assert isinstance(grouped[0], SharedBatchNorm2d)
    return distance(grouped(images), nn.BatchNorm2d(3)(images))


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def several_labels(processes: Processes) -> bool:
    """Return whether images with several labels come to the same in parts."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 9, generator=generator)
    labels = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(7)])
    whole, parts = MultiLabelCounts("softmax"), MultiLabelCounts("softmax")
    whole.add(logits, labels)
    own = processes.share.of(7)
    parts.add(logits[own.start : own.stop], labels[own.start : own.stop])
    parts.gather(processes)
    return parts.scores(bad_images=0) == whole.scores(bad_images=0)


def messages(processes: Processes) -> dict[str, Any]:
    rows = torch.arange(3 * processes.rank, dtype=torch.float64).reshape(-1, 3) + 10 * processes.rank
    return {
        "rows": processes.gather(rows).tolist(),
        "no rows": processes.gather(torch.zeros(0, 3)).shape[0],
        "texts": processes.gather_text("" if processes.is_first else "grün"),
        "none": processes.any(False),
        "one": processes.any(processes.rank == 1),
        "sum": processes.sum([1.0, float(processes.rank)]),
    }


def kill(steps: list[int]) -> None:
    """Let a process be killed before a step in each life of the run but its last one, by turns."""
    real, life = loop.train_step, int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    killed = dict(enumerate(steps)).get(life)

    def train_step(state, batch, experiment) -> Tensor:
        if batch.step == killed and this_process().rank == life % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(state, batch, experiment)

    loop.train_step = train_step


def checks(work: Path) -> None:
    found: dict[str, Any] = {}
    for name in ("ddp", "fsdp"):
        train(work, name)
    log_samples(work / f"seen-{this_process().rank}.jsonl")
    train(work, "whole")
    found["score"] = score(work, "whole")
    with join_processes("cpu") as processes:
        found |= {
            "norm": norm(processes),
            "norm alone": norm_alone(processes),
            "messages": messages(processes),
            "several labels": several_labels(processes),
        }
    (work / f"found-{this_process().rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT_SECONDS, exit=True)
    torch.set_num_threads(1)
    task, *arguments = sys.argv[1:]
    if task == "checks":
        checks(Path(*arguments))
    else:
        kill([int(step) for step in task.split(",")])
        sys.argv = ["effnet", *arguments]
        main()
