"""What a study records of its search."""

import pytest

from effnet.data.sources import open_configured
from effnet.search.bounds import Bounds
from effnet.search.objective import Objective
from effnet.search.settings import SearchSettings, fingerprint, without_place

from .studies import RUN, settings


def test_rungs_are_parts_of_the_epochs():
    assert settings(eta=3, rungs=1).rung_epochs == pytest.approx((1.0,))
    assert settings(eta=2, rungs=2).rung_epochs == pytest.approx((0.75, 1.5))
    assert settings(eta=0).rung_epochs == settings(eta=1).rung_epochs == ()
    assert settings(eta=3, rungs=0).rung_epochs == ()


def test_settings_come_back_from_the_ledger_as_they_were():
    ours = settings(bounds=Bounds(max_params=1000), objective=Objective(kind="pareto"))
    assert SearchSettings.from_dict(ours.to_dict(), "the ledger") == ours


def test_what_is_measured_at_the_beginning_is_nothing_to_agree_on():
    asked = settings().asked()
    assert asked == settings(reference_ms=20.0, step_images=8).asked()
    assert asked != settings(seed=1).asked()


def test_where_images_lie_and_how_many_threads_read_them_is_left_out():
    from dataclasses import replace

    there = replace(RUN, data=replace(RUN.data, source="/elsewhere", workers=7))
    assert without_place(there) == without_place(RUN)


def test_the_forward_pass_is_measured_where_the_objective_or_a_bound_needs_it():
    assert not settings().needs_latency
    assert settings(objective=Objective(kind="latency")).needs_latency
    assert settings(bounds=Bounds(max_latency_ms=1.0)).needs_latency


def test_other_images_have_another_fingerprint():
    from dataclasses import replace

    data = replace(RUN.data, source="digits")
    same = fingerprint(open_configured(data))
    assert same == fingerprint(open_configured(data))
    assert same != fingerprint(open_configured(replace(data, max_train_images=40)))
    assert same != fingerprint(open_configured(replace(data, split_seed=1)))
