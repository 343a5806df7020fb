import json

import numpy as np
import pytest
import torch

from effnet.evaluation.assessment import assess, scores_of, top1_interval
from effnet.evaluation.metrics import judge, score
from effnet.evaluation.multilabel import MultiLabelCounts


def test_scores_are_those_of_the_evaluator(draw_answers):
    answers = draw_answers(50, 7)
    judged = judge(torch.from_numpy(answers.logits), torch.from_numpy(answers.labels))
    assert scores_of(answers) == score(judged, answers.class_names, bad_images=0)


def test_numbers_of_one_kind_agree_with_each_other(draw_answers):
    found = assess(draw_answers(), resamples=50)
    assert found.intervals["top1"].value == found.scores.top1
    assert found.report.weighted.recall == pytest.approx(found.scores.top1)
    assert found.calibration.loss == found.scores.loss
    assert found.intervals["loss"].value == pytest.approx(found.scores.loss, rel=1e-12)
    wrong = sum(pair.images for pair in found.confusions)
    assert wrong == round((1 - found.scores.top1) * found.scores.images)
    assert found.intervals["macro_f1"].value == pytest.approx(found.report.macro.f1)


def test_several_labels_have_their_own_numbers(make_answers):
    rng = np.random.default_rng(0)
    labels = np.array([[0, 1], [2, -1], [1, 2]] * 10)
    answers = make_answers(rng.normal(size=(30, 3)), labels, output="sigmoid")
    found = assess(answers, resamples=50, threshold=0.4)
    counts = MultiLabelCounts("sigmoid")
    counts.add(torch.from_numpy(answers.logits), torch.from_numpy(labels))
    assert found.scores == counts.scores(bad_images=0)
    assert found.intervals["top1"].value == pytest.approx(found.scores.top1)
    assert top1_interval(answers, resamples=50) == found.intervals["top1"]
    assert found.intervals["exact"].value == pytest.approx(found.report.exact)
    assert found.report.threshold == 0.4
    assert (found.calibration, found.confusions) == (None, ())


def test_all_numbers_can_be_written_as_json(draw_answers, make_answers):
    document = json.loads(json.dumps(assess(draw_answers(), resamples=20).to_dict(), allow_nan=False))
    assert {
        "top1",
        "loss",
        "class_top1",
        "intervals",
        "report",
        "calibration",
        "confusions",
    } <= document.keys()
    several = assess(make_answers([[1.0, -1.0], [0.0, 1.0]], [[0, 1], [1, -1]]), resamples=20)
    assert "pr_auc" in json.loads(json.dumps(several.to_dict(), allow_nan=False))
