"""A tiny network that tells colours apart, pictures, and the service in this process."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from effnet.arch import NetworkSpec, StageSpec
from effnet.arch.preprocessing import Preprocessing
from effnet.config.serve import ServeConfig
from effnet.evaluation.predictor import Predictor
from effnet.nn import EfficientNet
from effnet.serving.app import create_app
from effnet.serving.served import ServedModel
from effnet.serving.service import Service

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny",
        stages=(stage,),
        stem_channels=8,
        head_channels=16,
        image_size=16,
        train_size=16,
        num_classes=len(CLASSES),
    )
    torch.manual_seed(0)
    preprocessing = Preprocessing(image_size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Predictor(EfficientNet(spec), CLASSES, preprocessing)


@pytest.fixture(scope="session")
def photo() -> Callable[..., bytes]:
    """The bytes of a noisy picture: ``photo(seed, format="png", size=(20, 30))``."""

    def make(seed: int = 0, *, format: str = "jpeg", size: tuple[int, int] = (24, 32)) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def serving(predictor) -> Callable[..., AbstractContextManager[TestClient]]:
    """A client of a service with limits of its own: ``with serving(max_bytes=100) as client``."""

    @contextmanager
    def start(*, token=None, log=None, names=("tiny",), network=predictor, **limits):
        config = ServeConfig(decode_threads=1, threads=1, **limits)
        models = [ServedModel(name, network, max_pixels=config.max_pixels) for name in names]
        service = Service(models, config)
        app = create_app(service, token=token, log=log)
        # What fails inside must show as a response, as it does for a client.
        with TestClient(app, raise_server_exceptions=False) as client:
            client.service = service
            yield client

    return start


@pytest.fixture(scope="module")
def client(serving) -> Iterator[TestClient]:
    with serving() as client:
        yield client
