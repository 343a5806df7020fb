import json
import re
from pathlib import Path

import draw_results
import pytest
from results_page import documents, gpu, racing, speed
from results_page.section import Bar, bars
from side_by_side.case import Case

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
TIMES = {
    "effnet": [1.0, 1.0, 2.0],
    "effnet bf16": [0.5, 0.5, 1.0],
    "timm": [1.5, 1.4, 3.2],
    "timm best": [1.1, 1.2, 2.6],
    "timm, OpenVINO": [0.9, 0.8, 1.8],
    "torchvision <best>": [1.3, 1.3, 2.6],
}


def case(**fields):
    about = {
        name: {"precision": "bf16" if "bf16" in name else "fp32", "includes": "a step"} for name in TIMES
    }
    found = Case(**fields)
    return found.to_dict() | {
        "key": found.key,
        "seconds": TIMES,
        "ways": about,
        "left_out": {"Keras": "not installed: tensorflow"},
        "checks": {name: {"difference": 1e-5} for name in TIMES},
        "states": [{"load": 0.5, "mhz": [2600.0]}],
    }


def speeds():
    cases = [
        case(kind="train", network="v2-s", size=128, batch=16, optimizer="rmsprop_tf"),
        case(kind="train", network="v2-s", size=128, batch=16, optimizer="adamw"),
        case(kind="infer", network="v2-s", size=224, batch=1),
    ]
    return {
        "environment": {"effnet": "0.1.0", "torch": "2.13.0", "started": "2026-11-26T18:00:00+00:00"},
        "processor": {
            "model": "A processor",
            "cores": 2,
            "is_virtual": True,
            "flags": ["avx2"],
            "clocks_and_power": {"scaling_governor": "performance"},
            "note": "",
        },
        "threads": 2,
        "clock": "wall",
        "onednn": "3.12.0",
        "versions": {"timm": "1.0.31", "keras": None},
        "rounds": 3,
        "cases": {item["key"]: item for item in cases},
    }


def race(arm, seed, wall, top1):
    return {
        "arm": arm,
        "seed": seed,
        "top1": top1,
        "wall": wall,
        "cpu": wall,
        "steps": 10,
        "images": 320,
        "load": 2.0,
        "sizes": [{"image_size": 64, "wall": wall / 2, "images": 160}],
        "curve": [{"step": 5, "wall": wall / 2, "top1": top1 / 2}, {"step": 10, "wall": wall, "top1": 0.0}],
    }


@pytest.fixture
def results(tmp_path):
    runs = {
        f"cifar10 {arm} {seed}": race(arm, seed, wall * (1 + seed / 10), top1)
        for arm, wall, top1 in (("fixed", 100.0, 0.90), ("paper", 45.0, 0.91))
        for seed in (0, 1)
    }
    report = {"runs": runs, "races": {"cifar10": {"title": "CIFAR-10"}}, "environment": {}}
    (tmp_path / speed.FILE).write_text(json.dumps(speeds()))
    (tmp_path / racing.FILE).write_text(json.dumps(report))
    return tmp_path


def test_the_page_has_every_section_with_its_command_hardware_versions_and_date(results):
    text = draw_results.page(results)
    for expected in ("make bench-cpu", racing.COMMAND, "A processor, 2 cores, virtual machine", "2026-11-26"):
        assert expected in text
    assert "scaling_governor performance" in text
    assert "oneDNN 3.12.0" in text
    assert "Keras: not installed: tensorflow." in text
    # Medians of ratios within a round, and not ratios of medians.
    assert "1.50 (1.40 to 1.60)" in text
    assert "make bench-input DATA=photos" in text.partition("Not measured")[2]


def on_gpu():
    names = {"effnet triton": [0.016, 0.017], "timm compiled": [0.025, 0.026]}
    found = Case(kind="train", network="v2-s", size=300, batch=64, optimizer="rmsprop_tf")
    return {
        "environment": {"devices": ["A GPU"], "started": "2026-11-26T18:00:00+00:00"},
        "device": "cuda",
        "precision": "bf16",
        "roofs": {"name": "A GPU", "bytes_per_second": 4.2e12, "flops_per_second": 7e14},
        "left_out": {"train v2-m 384px": "no time was left"},
        "cases": {
            found.key: found.to_dict()
            | {
                "key": found.key,
                "seconds": names,
                "peak_bytes": {"effnet triton": 8e9, "timm compiled": None},
                "roofline": {
                    "share_of_bandwidth": dict.fromkeys(names, 0.5),
                    "share_of_arithmetic": dict.fromkeys(names, 0.2),
                },
                "shares": {"effnet triton": {"shares": {"norm": 0.4, "conv": 0.6}}},
                "ways": {name: {"includes": "a step"} for name in names},
                "left_out": {"timm": "timm is not installed"},
            }
        },
    }


def test_a_gpu_has_rates_memory_roofs_and_shares(tmp_path):
    (tmp_path / gpu.FILE).write_text(json.dumps(on_gpu()))
    (section,) = gpu.sections(tmp_path)
    assert [chart.title for chart in section.charts] == [
        "V2-S, 300 px, batch 64",
        "V2-S, 300 px, batch 64: peak memory",
    ]
    assert "goal 4000" in section.charts[0].svg
    assert section.tables[0].rows[0][1:] == (
        "effnet triton",
        "3,879",
        "16.50",
        "8.00",
        "50%",
        "20%",
        "norm 40%, conv 60%",
    )
    assert "timm: timm is not installed. train v2-m 384px: no time was left." in section.notes[-1]
    assert "4.20 TB/s" in section.says


def test_the_page_fetches_nothing_and_escapes_what_is_named(results):
    text = draw_results.page(results)
    assert "torchvision &lt;best&gt;" in text
    assert "<best>" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text)
    assert "<script" not in text


def test_code_in_a_sentence_is_escaped_too():
    assert draw_results._with_code("a `b < c` d & e") == "a <code>b &lt; c</code> d &amp; e"


def test_what_is_recorded_can_be_drawn():
    text = draw_results.page(RESULTS)
    assert text.count("<h2 id=") >= 10
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).lower().split()


def test_a_folder_without_results_is_a_page_that_says_so(tmp_path):
    text = draw_results.page(tmp_path)
    assert text.count('class="missing"') == len(draw_results.KINDS)
    assert documents.for_readme(tmp_path) == documents.for_results(tmp_path) == []


def test_bars_have_a_place_for_their_spread_and_the_goal():
    charts = []
    rows = [Bar(name="one", value=1.0, low=0.9, high=1.1), Bar(name="two", value=2.0, low=1.0, high=3.0)]
    bars(rows, title="Steps", unit="times", line=True, goal=4.0, into=charts)
    (chart,) = charts
    assert "times; goal 4" in chart.svg
    assert 'aria-label="Steps: one 1.00, two 2.00"' in chart.svg


def test_the_readme_has_single_precision_and_the_main_optimizer(results):
    table = "\n".join(documents.for_readme(results))
    assert "| V2-S, 128 px | 16 | 1.50 | 1.20 | - | - |" in table
    assert "| V2-S, 224 px, batch 1 | 1 | 1.50 | 0.90 | - | - |" in table
    assert "AdamW |" not in table
    assert "| CIFAR-10 | progressive, paper's | 0.45 (0.45 to 0.45) | 91.0 %, 90.0 % |" in table


def test_the_results_name_everybody_and_the_picture(results, tmp_path):
    text = "\n\n".join(documents.for_results(results))
    assert "## Speed on a processor" in text
    assert f"images/{speed.PICTURE}" in text
    assert "- Left out: Keras: not installed: tensorflow." in text
    speed.draw(speeds(), tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_is_between_the_marks_changes():
    before = f"head\n{documents.BEGIN}\nold\n{documents.END}\ntail\n"
    after = documents.updated(before, ["new", "newer"])
    assert after == f"head\n{documents.BEGIN}\n\nnew\n\nnewer\n\n{documents.END}\ntail\n"
    assert documents.updated(after, ["new", "newer"]) == after
    with pytest.raises(ValueError, match="no place between"):
        documents.updated("head", [])


@pytest.mark.parametrize(
    ("name", "parts"),
    [("README.md", documents.for_readme), ("docs/results.md", documents.for_results)],
)
def test_the_documents_have_what_the_recorded_results_make(name, parts, monkeypatch):
    text = (ROOT / name).read_text(encoding="utf-8")
    # How a file's date is told depends on the checkout; see `make results-page` for the rest.
    assert documents.updated(text, parts(RESULTS)) == text


FIGURE = re.compile(
    r"\d (?:%|points|times|images/s|requests/s|ms|microseconds|minutes of)"
    r"|\(\d\.\d+ to \d\.\d+\)|\| \d+\.\d\d \|"
)
COMMAND = re.compile(r"`(?:make|effnet|python) |docs/\w+\.md")


def statements(text):
    """Give rows of tables with the head of theirs, and paragraphs."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    before = ""
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            for line in lines[2:]:
                yield f"{before}\n{line}" if COMMAND.search(before) else line
        elif lines:
            yield block
        # A table follows the sentence that says how it was measured, or another table of the same.
        if not (lines and lines[0].startswith("|")):
            before = block


def without_command(text):
    return [said for said in statements(text) if FIGURE.search(said) and not COMMAND.search(said)]


def test_every_figure_in_the_readme_has_its_command(results):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sum(bool(FIGURE.search(said)) for said in statements(text)) > 5
    assert without_command(text) == []
    assert without_command(documents.updated(text, documents.for_readme(results))) == []
    assert without_command("It is 1.4 times as fast.\n\n| a | b |\n| --- | --- |\n| x | 3 % |") == [
        "It is 1.4 times as fast.",
        "| x | 3 % |",
    ]
