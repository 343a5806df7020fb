import pytest

from effnet.errors import UserError
from effnet.reporting.missing import Missing
from effnet.reporting.table import SORTABLE, cells, compare_runs


@pytest.fixture(scope="module")
def table(finished, another):
    return compare_runs([finished, another], device="cpu")


def test_a_row_has_what_the_run_came_to(table, finished):
    row = table.rows[0]
    assert (row.name, row.network, row.recipe, row.train_sizes, row.image_size) == (
        "finished", "tiny", "scratch", (8, 16), 16
    )  # fmt: skip
    assert row.top1_low <= row.top1 <= row.top1_high
    assert row.is_finished
    assert row.ece is not None
    assert row.missing == ""
    assert table.names == ("finished", "another")
    assert {one.key: one.values for one in table.differences} == {
        "train.epochs": ("2", "1"),
        "train.seed": ("0", "1"),
    }
    assert table.pairs[0].comparison.images == 6


def test_without_evaluation_the_runs_speak_for_themselves(table, finished, another, moved):
    measured = table.rows[0]
    table = compare_runs([finished, another, moved], evaluates=False)
    row = table.rows[0]
    assert (row.top1, row.loss) == pytest.approx((measured.top1, measured.loss))
    assert (row.top1_low, row.ece) == (None, None)
    assert table.rows[2].top1 == row.top1
    assert table.pairs == ()


def test_runs_that_cannot_be_asked_say_why(unfinished, moved, finished):
    table = compare_runs([unfinished, moved, finished], device="cpu")
    assert table.rows[0].top1 is None
    assert "no weights to ask" in table.rows[0].missing
    assert "does not exist" in table.rows[1].missing
    assert table.rows[1].top1 == table.rows[2].top1  # As training found it.
    assert all(isinstance(pair.comparison, Missing) for pair in table.pairs)


@pytest.mark.parametrize("key", SORTABLE)
def test_rows_are_sorted_with_what_is_unknown_at_the_end(finished, another, unfinished, key):
    table = compare_runs([unfinished, another, finished], evaluates=False, sort=key)
    values = [getattr(row, key) for row in table.rows]
    known = [value for value in values if value is not None]
    assert values == known + [None] * (len(values) - len(known))
    assert known in (sorted(known), sorted(known, reverse=True))


def test_the_best_is_first(finished, another):
    by_epochs = compare_runs([another, finished], evaluates=False, sort="epochs")
    assert [row.name for row in by_epochs.rows] == ["finished", "another"]
    by_time = compare_runs([another, finished], evaluates=False, sort="seconds")
    assert by_time.rows[0].seconds <= by_time.rows[1].seconds


def test_an_unknown_column_is_refused_with_the_nearest(finished):
    with pytest.raises(UserError, match="rows cannot be sorted by 'top2'; did you mean 'top1'"):
        compare_runs([finished], sort="top2")


def test_columns_without_a_value_are_left_out(table, finished):
    titles, *lines = cells(table.rows)
    assert {"run", "network", "params", "MACs", "95 %", "ECE", "images/s"} <= set(titles)
    assert all(len(line) == len(titles) for line in lines)
    titles, *_ = cells(compare_runs([finished], evaluates=False).rows)
    assert not {"95 %", "ECE"} & set(titles)
