import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from effnet.evaluation.confusion import Confusion, confusion, most_confused


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), images=st.integers(1, 40), classes=st.integers(2, 6))
def test_the_matrix_is_that_of_scikit_learn(draw_answers, seed, images, classes):
    answers = draw_answers(images, classes, seed)
    expected = confusion_matrix(answers.labels, answers.logits.argmax(1), labels=np.arange(classes))
    np.testing.assert_array_equal(confusion(answers), expected)


def test_pairs_come_worst_first_with_their_share_of_the_true_class():
    matrix = np.array([[7, 2, 1], [0, 4, 4], [2, 0, 0]])
    pairs = most_confused(matrix, ("a", "b", "c"))
    assert pairs == (
        Confusion(label="b", predicted="c", images=4, share=0.5),
        Confusion(label="a", predicted="b", images=2, share=0.2),
        Confusion(label="c", predicted="a", images=2, share=1.0),
        Confusion(label="a", predicted="c", images=1, share=0.1),
    )
    assert most_confused(matrix, ("a", "b", "c"), most=1) == pairs[:1]


def test_without_a_mistake_nothing_is_confused():
    assert most_confused(np.diag([3, 4]), ("a", "b")) == ()
