import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from effnet.errors import UserError
from effnet.inspection.findings import findings


def keys(report):
    return [(finding.level, finding.key) for finding in findings(report)]


def names(report, duplicates):
    return [tuple(report.found.name(image) for image in some.images) for some in duplicates]


def test_nothing_is_wrong_with_different_pictures(folder, check):
    report = check(folder())
    assert findings(report) == ()
    assert report.duplicates == ()
    assert not report.has_errors


def test_all_that_was_planted_is_found_and_nothing_else(folder, check, picture, jpeg):
    cats = [picture(index, 192, 256) for index in range(6)]
    path = folder(
        {
            **{f"train/cat/{index:02}.jpg": jpeg(cat) for index, cat in enumerate(cats)},
            "train/cat/byte-copy.jpg": jpeg(cats[0]),
            "train/cat/smaller.jpg": jpeg(cv2.resize(cats[1], (128, 96), interpolation=cv2.INTER_AREA), 60),
            "train/cat/cropped.jpg": jpeg(cats[2][3:-2, 2:-4]),
            "train/cat/mirrored.jpg": jpeg(cats[3][:, ::-1], 80),
            "train/dog/conflict.jpg": jpeg(cats[4]),
            "val/cat/leak.jpg": jpeg(cats[5], 70),
        }
    )
    report = check(path)
    assert names(report, report.duplicates) == [
        ("train/cat/00.jpg", "train/cat/byte-copy.jpg"),
        ("train/cat/01.jpg", "train/cat/smaller.jpg"),
        ("train/cat/02.jpg", "train/cat/cropped.jpg"),
        ("train/cat/03.jpg", "train/cat/mirrored.jpg"),
        ("train/cat/04.jpg", "train/dog/conflict.jpg"),
        ("train/cat/05.jpg", "val/cat/leak.jpg"),
    ]
    assert [some.is_identical for some in report.duplicates] == [True, False, False, False, True, False]
    assert [some.has_mirrored for some in report.duplicates] == [False, False, False, True, False, False]
    assert names(report, report.leaks) == [("train/cat/05.jpg", "val/cat/leak.jpg")]
    assert names(report, report.conflicts) == [("train/cat/04.jpg", "train/dog/conflict.jpg")]
    assert (report.leaked, report.repeated("train"), report.repeated("val")) == (1, 4, 0)
    assert keys(report) == [("error", "leaks"), ("error", "conflicts"), ("warning", "repeats")]
    assert report.has_errors


def test_copies_of_copies_are_one_set(folder, check, picture, jpeg):
    image = jpeg(picture(0))
    names_of_copies = (
        "train/cat/a.jpg",
        "train/cat/b.jpg",
        "train/dog/c.jpg",
        "val/dog/d.jpg",
        "val/dog/e.jpg",
    )
    report = check(folder(dict.fromkeys(names_of_copies, image)))
    (some,) = report.duplicates
    assert len(some.images) == 6  # The first picture of cats is one too.
    assert (some.is_identical, some.is_leak, some.is_conflict) == (True, True, True)
    assert report.leaked == 2
    assert report.repeats == ()  # A set in two classes has to be mended anyway.


def test_the_same_pixels_in_other_files_are_copies_with_whatever_is_near_them(folder, check, picture, jpeg):
    pixels = picture(7003)
    path = folder({"val/dog/z.jpg": jpeg(pixels, 70)})
    for name in ("a.png", "b.bmp"):
        Image.fromarray(pixels).save(path / "train" / "cat" / name)
    report = check(path)
    assert names(report, report.duplicates) == [("train/cat/a.png", "train/cat/b.bmp", "val/dog/z.jpg")]
    assert not report.duplicates[0].is_identical


def test_repeats_are_counted_for_each_split(folder, check, picture, jpeg):
    first, second = jpeg(picture(7001)), jpeg(picture(7002))
    report = check(
        folder(
            {
                **{f"train/cat/x{index}.jpg": first for index in range(3)},
                **{f"val/dog/x{index}.jpg": second for index in range(2)},
            }
        )
    )
    assert (report.repeated("train"), report.repeated("val"), report.leaked) == (2, 1, 0)
    (finding,) = findings(report)
    assert finding.title == "images that repeat others of their split: 2 in train, 1 in val"
    assert finding.examples[0] == "train/cat/x0.jpg = train/cat/x1.jpg = train/cat/x2.jpg"


def test_every_unreadable_image_is_named_with_its_reason(folder, check, picture, jpeg):
    report = check(
        folder(
            {
                "train/cat/cut.jpg": jpeg(picture(0))[:-500],
                "train/dog/empty.jpg": b"",
                "val/dog/text.png": b"no picture at all",
            },
            train=30,
        )
    )
    reasons = {report.found.name(image): reason for image, reason in report.found.unreadable.items()}
    assert reasons == {
        "train/cat/cut.jpg": "the JPEG data is truncated",
        "train/dog/empty.jpg": "the file is empty",
        "val/dog/text.png": "not an image of a known format",
    }
    (finding,) = findings(report)
    assert (finding.level, finding.title) == ("error", "images that cannot be read: 3")
    assert finding.examples[0] == "train/cat/cut.jpg: the JPEG data is truncated"
    assert "a run replaces them by others, up to data.max_bad_fraction = 0.05" in finding.advice


def test_more_unreadable_images_than_a_run_bears_are_told(folder, check):
    report = check(folder({f"train/cat/{index:02}.jpg": b"" for index in range(6)}))
    (finding, *_) = findings(report)
    assert "a run stops at more than data.max_bad_fraction = 0.05" in finding.advice
    assert finding.examples[4:] == ("train/cat/04.jpg: the file is empty", "...")


def test_unreadable_images_are_no_copies_of_each_other(folder, check):
    assert check(folder({"train/cat/a.jpg": b"", "train/dog/b.jpg": b""})).duplicates == ()


def test_data_without_a_readable_image_is_reported(folder, check):
    path = folder(train=2, val=1)
    for file in path.rglob("*.jpg"):
        file.write_bytes(b"")
    report = check(path)
    assert report.sizes is None
    assert len(report.found.unreadable) == 6
    assert report.to_dict()["sizes"] is None


def test_a_drawn_split_is_said_to_be_drawn(folder, check, picture, jpeg):
    copies = {f"cat/copy{index}.jpg": jpeg(picture(0), 90 - index) for index in range(20)}
    report = check(folder(copies, val=0))
    assert report.is_drawn
    assert report.leaked > 0
    (leak, *_) = findings(report)
    assert "The validation split is drawn" in leak.advice
    assert report.to_dict()["split"] == {
        "is_drawn": True,
        "val_fraction": 0.2,
        "split_seed": 0,
        "train": len(report.found.data.train),
        "val": len(report.found.data.val),
    }


def test_classes_are_counted_and_odd_ones_named(folder, check, picture, jpeg):
    files = {f"train/fox/{index}.jpg": jpeg(picture(5000 + index, 40, 40)) for index in range(2)}
    report = check(folder(files, train=21, val=3))
    assert [(count.name, count.train, count.val) for count in report.classes] == [
        ("cat", 21, 3),
        ("dog", 21, 3),
        ("fox", 2, 0),
    ]
    assert [finding.title for finding in findings(report)] == [
        "classes of very different sizes: up to 10 to 1",
        "classes with fewer than 10 images to train on: 1",
        "classes without images to validate on: 1",
    ]
    assert findings(report)[1].examples == ("fox: 2 in train, 0 in val",)


def test_images_of_unusual_form_are_named(folder, check, picture, jpeg):
    report = check(
        folder(
            {
                "train/cat/long.jpg": jpeg(picture(9001, 40, 161)),
                "train/cat/not-too-long.jpg": jpeg(picture(9002, 40, 160)),
                "train/dog/small.jpg": jpeg(picture(9003, 23, 23)),
                "train/dog/not-too-small.jpg": jpeg(picture(9004, 24, 24)),
                "val/dog/grey.jpg": jpeg(np.full((96, 96, 3), 90, np.uint8)),
            }
        )
    )
    assert [report.found.name(image) for image in report.extreme] == ["train/cat/long.jpg"]
    assert [report.found.name(image) for image in report.small] == ["train/dog/small.jpg"]
    assert [report.found.name(image) for image in report.uniform] == ["val/dog/grey.jpg"]
    assert keys(report) == [("note", "small"), ("note", "extreme"), ("note", "uniform")]
    assert findings(report)[0].examples == ("train/dog/small.jpg: 23 x 23 px",)
    assert not report.has_errors


def test_sizes_and_formats_are_counted(folder, check, picture):
    path = folder(train=12, val=4)
    Image.fromarray(picture(1, 50, 200)).convert("L").save(path / "train" / "cat" / "a.png")
    report = check(path)
    assert dict(report.found.formats) == {"JPEG": 32, "PNG": 1}
    assert dict(report.found.colors) == {"color": 32, "grey": 1}
    assert report.sizes.counts == ((50, 200, 1), (96, 128, 32))
    assert (report.sizes.smallest, report.sizes.median, report.sizes.largest) == (
        (50, 200),
        (96, 128),
        (96, 128),
    )


def test_files_that_are_no_images_are_counted_by_their_endings(folder, check):
    path = folder(
        {
            "train/cat/notes.TXT": b"",
            "val/dog/deeper/notes.txt": b"",
            "train/dog/README": b"",
            "runs/x/log.csv": b"",
        }
    )
    (path / "train" / "cat" / ".DS_Store").write_bytes(b"")
    report = check(path)
    assert report.other_files == {".txt": 2, "README": 1}
    assert keys(report) == [("note", "files")]


def test_digits_are_too_small_to_be_alike(check):
    report = check("digits")
    assert len(report.found) == 1797
    assert report.duplicates == ()
    assert report.other_files == {}
    assert dict(report.found.formats) == {"pixels": 1797}


def test_parquet_files_are_checked_too(tmp_path, check, picture, jpeg):
    for split, seeds in (("train", [*range(12), *range(20, 32)]), ("test", [0, 40])):
        rows = [{"image": {"bytes": jpeg(picture(seed))}, "label": int(seed >= 20)} for seed in seeds]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}-00000-of-00001.parquet")
    report = check(tmp_path)
    assert names(report, report.leaks) == [
        ("train-00000-of-00001.parquet[0]", "test-00000-of-00001.parquet[0]")
    ]
    assert report.other_files == {}


def test_the_order_of_the_threads_changes_nothing(folder, picture, jpeg):
    from effnet.config import DataConfig
    from effnet.inspection.check import check_data

    path = folder({"train/cat/x.jpg": jpeg(picture(3), 70), "val/dog/y.jpg": b""})
    one, four = (check_data(DataConfig(source=str(path), workers=workers)).to_dict() for workers in (1, 4))
    assert one == four


def test_progress_is_told_to_its_end(folder):
    from effnet.config import DataConfig
    from effnet.inspection.check import check_data

    told = []
    check_data(DataConfig(source=str(folder())), announce=lambda done, count: told.append((done, count)))
    assert told == [(24, 32), (32, 32)]


def test_data_that_cannot_be_opened_is_the_users_mistake(tmp_path, folder, check):
    with pytest.raises(UserError, match="does not exist"):
        check(tmp_path / "nowhere")
    path = folder()
    shutil.rmtree(path / "train" / "dog")
    shutil.rmtree(path / "val" / "dog")
    with pytest.raises(UserError, match="only one class"):
        check(path)
