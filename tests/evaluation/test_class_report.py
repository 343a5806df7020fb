import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, classification_report

from effnet.evaluation.class_report import report_of


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 40), classes=st.integers(2, 6))
def test_numbers_are_those_of_scikit_learn(draw_answers, seed, images, classes):
    answers = draw_answers(images, classes, seed)
    report = report_of(answers)
    present = np.unique(answers.labels)
    expected = classification_report(
        answers.labels,
        answers.logits.argmax(1),
        labels=present,
        target_names=[answers.class_names[index] for index in present],
        output_dict=True,
        zero_division=0.0,
    )
    rows = [*report.classes, report.macro, report.weighted]
    names = [*(row.name for row in report.classes), "macro avg", "weighted avg"]
    for name, row in zip(names, rows, strict=True):
        theirs = [expected[name][key] for key in ("precision", "recall", "f1-score", "support")]
        assert [row.precision, row.recall, row.f1, row.support] == pytest.approx(theirs, rel=1e-12)


def test_mean_recalls_are_accuracies(draw_answers):
    answers = draw_answers()
    predicted = answers.logits.argmax(1)
    report = report_of(answers)
    assert report.weighted.recall == pytest.approx((predicted == answers.labels).mean())
    assert report.macro.recall == pytest.approx(balanced_accuracy_score(answers.labels, predicted))


def test_a_class_without_an_image_has_no_line_and_no_part_in_means(make_answers):
    answers = make_answers(np.eye(3)[[0, 2, 1]], [0, 0, 1])
    report = report_of(answers)
    assert [(row.name, row.support) for row in report.classes] == [("class 0", 2), ("class 1", 1)]
    assert [row.recall for row in report.classes] == [0.5, 1.0]
    assert report.macro.recall == 0.75


def test_a_report_can_be_written_as_json(draw_answers):
    document = json.loads(json.dumps(report_of(draw_answers()).to_dict()))
    assert document["classes"][0].keys() == {"name", "precision", "recall", "f1", "support"}
    assert document.keys() == {"classes", "macro", "weighted"}
