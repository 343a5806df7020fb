"""Beginning a study, joining it, and refusing what is not the same search."""

import json
from dataclasses import replace

import pytest

from effnet.arch.io import spec_to_json
from effnet.errors import UserError
from effnet.search import joining
from effnet.search.bounds import Bounds
from effnet.search.joining import Place, Request, open_study
from effnet.search.opening import opened_any
from effnet.search.patience import Patience

from .studies import BACKBONE

SMALL = ("train.epochs=2", "data.max_train_images=60")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measure nothing."""
    seen = iter(range(10, 1000))

    def measured(settings, *_):
        return replace(settings, reference_ms=float(next(seen)))

    monkeypatch.setattr(joining, "_with_reference", measured)


def begin(folder, **changes):
    place = folder if isinstance(folder, Place) else Place.of(None, folder)
    return open_study(
        Request(**{"data": "digits", "changes": SMALL} | changes),
        place,
        patience=Patience(seconds=0.0),
        threads=1,
        announce=lambda text: None,
    )


def test_the_space_is_around_the_backbone_for_the_images_classes_at_the_sizes_of_the_training(tmp_path):
    with begin(tmp_path / "s") as study:
        backbone = study.space.backbone
        assert (backbone.num_classes, backbone.image_size, backbone.train_size) == (10, 32, 32)
        (first,) = study.ledger.trials()
        assert first.state == "queued"
        assert first.point == study.space.point(backbone)


def test_candidates_are_never_compared_on_the_validation_images(tmp_path):
    with begin(tmp_path / "s", recipe="demo") as study:
        assert study.settings.run.data.minival_fraction == 0.1


def test_another_backbone_can_be_given(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(spec_to_json(BACKBONE))
    with begin(tmp_path / "s", model=str(path)) as study:
        assert study.reference.stages == BACKBONE.stages


def test_a_folder_is_enough_to_go_on_also_where_it_was_moved(tmp_path):
    with begin(tmp_path / "s", strategy="random", seed=7) as study:
        first = study.settings
    (tmp_path / "s").rename(tmp_path / "t")
    with begin(tmp_path / "t", data=None, changes=()) as study:
        assert study.settings == first
        assert study.source == "digits"
        assert len(study.ledger.trials()) == 1


def test_who_joins_measures_nothing_anew(tmp_path):
    with begin(tmp_path / "s") as first, begin(tmp_path / "s") as second:
        assert first.settings.reference_ms == second.settings.reference_ms


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"space": "v2"}, "space.name"),
        ({"seed": 3}, "settings.seed"),
        ({"strategy": "evolution"}, "settings.strategy"),
        ({"objective": "v2:w=0"}, "settings.objective.w"),
        ({"bounds": Bounds(max_params=10**9)}, "settings.bounds.max_params"),
        ({"changes": ("train.epochs=3", *SMALL[1:])}, "settings.run.train.epochs"),
        ({"changes": (*SMALL, "data.split_seed=1")}, "settings.run.data.split_seed"),
        ({"eta": 4}, "settings.eta"),
    ],
)
def test_another_search_is_refused_and_the_difference_named(tmp_path, changes, named):
    begin(tmp_path / "s").ledger.close()
    with pytest.raises(UserError, match=rf"begun differently: .*{named}"):
        begin(tmp_path / "s", **changes)


def test_other_images_are_refused(tmp_path, monkeypatch):
    begin(tmp_path / "s").ledger.close()
    monkeypatch.setattr(joining, "fingerprint", lambda images: "f" * 16)
    with pytest.raises(UserError, match=r"settings.images is .* there"):
        begin(tmp_path / "s")


def test_two_that_begin_at_once_share_one_study(tmp_path, monkeypatch):
    find, calls = joining.Ledger.find, []

    def too_early(url, **options):
        calls.append(url)
        return None if len(calls) == 2 else find(url, **options)

    monkeypatch.setattr(joining.Ledger, "find", too_early)
    with begin(tmp_path / "s") as first, begin(tmp_path / "s") as second:
        assert first.settings == second.settings
    assert len(calls) == 3


def test_bounds_that_exclude_all_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match="max_params is 10, and the smallest has"):
        begin(tmp_path / "s", bounds=Bounds(max_params=10))
    assert not (tmp_path / "s").exists()


def test_an_unknown_strategy_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown strategy 'thomson'; did you mean 'thompson'"):
        begin(tmp_path / "s", strategy="thomson")


def test_images_must_be_named_once(tmp_path):
    with pytest.raises(UserError, match="name the images to search on"):
        begin(tmp_path / "s", data=None)


def test_a_folder_of_one_study_takes_no_trials_of_another(tmp_path):
    begin(tmp_path / "s").ledger.close()
    with pytest.raises(UserError, match="is the folder of another study"):
        Place.of(f"sqlite:///{tmp_path / 'other.db'}", tmp_path / "s")


def test_the_address_of_a_database_is_noted_but_no_password(tmp_path):
    url = f"sqlite:///{tmp_path / 'there.db'}"
    begin(Place.of(url, tmp_path / "s")).ledger.close()
    assert Place.of(None, tmp_path / "s").url == url
    Place(url="postgresql://me:secret@host/db", folder=tmp_path / "t").note("digits")
    assert json.loads((tmp_path / "t" / "study.json").read_text()) == {"data": "digits"}


def test_the_folder_of_a_database_is_named_by_its_study(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert str(Place.of("postgresql://host/db?study=flowers", None).folder) == "runs/search-flowers"
    assert str(Place.of("sqlite:////data/flowers.db", None).folder) == "runs/search-flowers"


def test_a_study_that_is_not_there_cannot_be_looked_at(tmp_path):
    with pytest.raises(UserError, match="there is no study"):
        opened_any(Place.of(str(tmp_path / "s"), None))


def test_a_damaged_note_says_what_to_do(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json is damaged; remove it"):
        Place.of(str(tmp_path), None)
