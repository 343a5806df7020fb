"""Runs on images with several labels, as many classes as ImageNet-21k has among them."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from effnet import api
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.training.journal import read_metrics
from effnet.weights import load_weights

METRICS = {
    "top1", "top5", "precision_at_1", "precision_at_5", "recall_at_1", "recall_at_5", "pr_auc", "pr_auc_error"
}  # fmt: skip
GIB = 1 << 30


@pytest.fixture
def network(tmp_path):
    """A small network with a head as wide as that of V2-S."""
    conv = StageSpec(operation="conv", kernel_size=3, stride=2, expand_ratio=1, channels=8, repeats=1)
    spec = NetworkSpec(
        name="small", stages=(conv,), stem_channels=8, head_channels=1280, image_size=16, train_size=16
    )
    path = tmp_path / "small.json"
    path.write_text(spec_to_json(spec))
    return path


@pytest.fixture
def write(tmp_path):
    """Write images whose colours say which of the classes they have: ``write(names, images)``."""

    def write(names, images):
        rng = np.random.default_rng(0)
        table = {"image": [], "labels": []}
        for _ in range(images):
            primary = rng.permutation(3)[: rng.integers(1, 4)]
            file = io.BytesIO()
            color = np.isin(np.arange(3), primary) * 200 + rng.integers(0, 40, 3)
            Image.fromarray(np.full((16, 16, 3), color, np.uint8)).save(file, "PNG")
            table["image"].append({"bytes": file.getvalue(), "path": None})
            table["labels"].append([int(label) * (len(names) // 3) for label in primary])
        features = {
            "image": {"_type": "Image"},
            "labels": {"_type": "List", "feature": {"_type": "ClassLabel", "names": names}},
        }
        metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        path = tmp_path / "colors.parquet"
        pq.write_table(pa.table(table).replace_schema_metadata(metadata), path)
        return path

    return write


def changes(loss, **more):
    values = {
        "model.gradient_checkpointing": False,
        "data.workers": 1,
        "augment.operations": 0,
        "progressive.stages": 1,
        "progressive.image_size": [16, 16],
        "progressive.dropout_rate": [1e-6, 1e-6],
        "progressive.drop_path_rate": [0.0, 0.0],
        "train.loss": loss,
        "train.label_smoothing": 0.0,
        "train.batch_size": 16,
        "train.device": "cpu",
        "learning_rate.schedule": "cosine",
        "learning_rate.warmup_epochs": 0.0,
        "ema.decay": 0.0,
        "evaluate.every_epochs": 100.0,
    } | more
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_run_learns_all_labels_of_its_images(write, network, tmp_path, loss):
    data = write(["blue", "green", "red", "other", "more", "most"], 80)
    result = api.train(
        data,
        recipe="scratch",
        model=network,
        out=tmp_path / "run",
        changes=changes(loss, **{"train.epochs": 12, "learning_rate.base": 0.05}),
        quiet=True,
    )
    last = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val_pr_auc" in record][
        -1
    ]
    assert {f"val_{name}" for name in METRICS} <= last.keys()
    assert result.val_top1 == last["val_top1"] == 1.0
    assert last["val_pr_auc"] > 0.95
    assert last["val_recall_at_5"] == 1.0
    scores = api.evaluate(tmp_path / "run", device="cpu")
    assert {f"val_{name}": value for name, value in scores.to_dict().items() if name in METRICS} == {
        f"val_{name}": last[f"val_{name}"] for name in METRICS
    }
    assert load_weights(str(tmp_path / "run/checkpoints/best.safetensors")).output == loss


_STEPS_AND_SCORES = """
import json, resource, sys
from effnet import api
data, network, out, *changes = sys.argv[1:]
run = api.train(data, recipe="scratch", model=network, out=out, changes=changes, quiet=True)
scores = api.evaluate(out, device="cpu").to_dict()
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"steps": run.steps, "scores": scores, "peak_bytes": peak}))
"""


def test_21843_classes_are_trained_and_evaluated_within_6_gib(write, network, tmp_path):
    names = [f"n{number:08}" for number in range(21_843)]
    arguments = changes("sigmoid", **{"train.epochs": 1, "train.classifier_bias": "prior"})
    done = subprocess.run(
        [sys.executable, "-c", _STEPS_AND_SCORES, write(names, 60), network, tmp_path / "run", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(done.stdout)
    assert result["steps"] == 3
    assert result["scores"].keys() >= METRICS
    assert all(math.isfinite(value) for value in result["scores"].values())
    assert result["peak_bytes"] < 6 * GIB
    weights = load_weights(str(tmp_path / "run/checkpoints/best.safetensors"))
    assert weights.class_names == tuple(names)
    assert weights.output == "sigmoid"
    _evaluate_on_fewer_classes(write, names, tmp_path)


def _evaluate_on_fewer_classes(write, names, tmp_path):
    """The network of 21,843 classes on data that knows 21,841 of them, as ImageNet's own release does."""
    fewer = [name for number, name in enumerate(names) if number not in {5, 20_000}]
    scores = api.evaluate(tmp_path / "run", write(fewer, 12), device="cpu")
    assert scores.images == 12
    assert math.isfinite(scores.pr_auc)
