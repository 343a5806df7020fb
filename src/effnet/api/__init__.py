"""The Python interface of the verbs."""

from effnet.api.predicting import predict_to_file
from effnet.api.reading import run_config, run_data, run_validation, weights_of
from effnet.api.running import (
    configure,
    prepare,
    resume_run,
    sides_to_prepare,
    start_or_resume_run,
    start_run,
    train,
    tune,
)
from effnet.api.using import evaluate, load, load_trained

__all__ = [
    "configure",
    "evaluate",
    "load",
    "load_trained",
    "predict_to_file",
    "prepare",
    "resume_run",
    "run_config",
    "run_data",
    "run_validation",
    "sides_to_prepare",
    "start_or_resume_run",
    "start_run",
    "train",
    "tune",
    "weights_of",
]
