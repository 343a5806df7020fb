"""The Python interface of the verbs."""

from effnet.api.answering import (
    AnswerSettings,
    answer,
    answer_together,
    fits_in_memory,
    load_members,
    load_soup,
    save_soup,
)
from effnet.api.exporting import export
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
from effnet.api.sweeping import SizeScores, sweep_sizes
from effnet.api.using import evaluate, known_images, load, load_trained, open_images
from effnet.engines import use_engine

__all__ = [
    "AnswerSettings",
    "SizeScores",
    "answer",
    "answer_together",
    "configure",
    "evaluate",
    "export",
    "fits_in_memory",
    "known_images",
    "load",
    "load_members",
    "load_soup",
    "load_trained",
    "open_images",
    "predict_to_file",
    "prepare",
    "resume_run",
    "run_config",
    "run_data",
    "run_validation",
    "save_soup",
    "sides_to_prepare",
    "start_or_resume_run",
    "start_run",
    "sweep_sizes",
    "train",
    "tune",
    "use_engine",
    "weights_of",
]
