from dataclasses import replace

import pytest
import torch

from effnet.config import ProgressiveConfig
from effnet.errors import UserError
from effnet.training import fitting
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.fitting import fitting_micro_batch, with_fitting_micro_batch


@pytest.fixture
def experiment(digits_run) -> Experiment:
    """Two stages of 22 and 50 digits with as many pixels."""
    progressive = ProgressiveConfig(stages=2, image_size=(8, 12), batch_rule="pixels")
    return prepare_experiment(
        replace(digits_run, progressive=progressive, train=replace(digits_run.train, batch_size=22))
    )


@pytest.fixture
def crowd(monkeypatch):
    """Let the device have room for some images at a time; return what is tried."""

    def limit(most: int) -> list[tuple[int, int, int]]:
        tried, real = [], fitting.train_step

        def step(state, batch, experiment):
            at_once = experiment.config.train.micro_batch_size
            tried.append((batch.settings.image_size, len(batch.labels), at_once))
            if at_once > most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(state, batch, experiment)

        monkeypatch.setattr(fitting, "train_step", step)
        return tried

    return limit


def test_the_largest_half_that_fits_is_found_with_the_whole_batch(experiment, crowd):
    tried = crowd(most=6)
    assert fitting_micro_batch(experiment, experiment.schedule.stages[-1]) == 5
    # Two steps where it fits: the first one has no state of the optimizer yet.
    assert tried == [(12, 22, 22), (12, 22, 11), (12, 22, 5), (12, 22, 5)]


def test_no_room_for_an_image_is_told(experiment, crowd):
    crowd(most=0)
    with pytest.raises(
        UserError, match="no room to train on a single image of 12 px; choose a smaller network"
    ):
        fitting_micro_batch(experiment, experiment.schedule.stages[-1])


@pytest.fixture
def on_gpu(experiment, monkeypatch) -> Experiment:
    """The run as if it were on a GPU, of which nothing is asked."""
    monkeypatch.setattr(fitting, "fitting_micro_batch", lambda experiment, settings: settings.batch_size)
    return replace(experiment, device=torch.device("cuda"))


def test_what_fits_is_run_at_once_in_every_stage(on_gpu):
    fitted, told = with_fitting_micro_batch(on_gpu)
    assert fitted.config.train.micro_batch_size == max(s.batch_size for s in on_gpu.schedule.stages) > 22
    assert told == ""


def test_what_does_not_fit_is_told(on_gpu, monkeypatch):
    monkeypatch.setattr(fitting, "fitting_micro_batch", lambda *_: 11)
    fitted, told = with_fitting_micro_batch(on_gpu)
    assert fitted.config.train.micro_batch_size == 11
    assert told.startswith("there is room for 11 of 22 images of 12 px at a time")


def test_what_the_user_chose_and_a_processor_are_left_alone(experiment, on_gpu, monkeypatch):
    monkeypatch.setattr(fitting, "fitting_micro_batch", pytest.fail)
    assert with_fitting_micro_batch(experiment) == (experiment, "")
    train = replace(on_gpu.config.train, micro_batch_size=3)
    chosen = replace(on_gpu, config=replace(on_gpu.config, train=train))
    assert with_fitting_micro_batch(chosen) == (chosen, "")
