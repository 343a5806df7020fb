import itertools
import json

import pytest


@pytest.fixture
def table(tmp_path):
    rows = {
        "".join(map(str, point)): {"test_top1_percent": [50 + sum(point)], "params": 9, "macs": 7}
        for point in itertools.product(range(3), repeat=4)
    }
    (tmp_path / "table.json").write_text(json.dumps(rows))
    return tmp_path / "table.json"


def test_strategies_stand_beside_each_other(effnet, table):
    answer = effnet(
        "search",
        "--table",
        table,
        "--strategy",
        "thompson",
        "--strategy",
        "random",
        "--asks",
        "9,5",
        "--seeds",
        "2",
    )
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("regret in % of what is best observed, mean")
    assert lines[1].split("  ")[0] == "strategy"
    assert [line.split()[0] for line in lines[2:4]] == ["thompson", "random"]
    assert "5 asks" in lines[1]
    assert answer.err.count("ms an ask") == 4


def test_json_has_every_search_and_where_it_was_run(effnet, table, tmp_path):
    options = (
        "--table",
        table,
        "--strategy",
        "evolution",
        "--asks",
        "6",
        "--seeds",
        "3",
        "--quiet",
        "--json",
    )
    answer = effnet("search", *options, "--out", tmp_path / "regret.json")
    assert (answer.code, answer.err) == (0, "")
    values = json.loads(answer.out)
    assert values == json.loads((tmp_path / "regret.json").read_text())
    assert values["objective"] == "v2"
    assert len(values["strategies"]["evolution"]["observed"][0]["values"]) == 3
    assert values["environment"]["cpu_count"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--asks", "5,x"), "--asks must be whole numbers of at least 1, such as 50,100,300,1000, got '5,x'"),
        (("--asks", "0"), "--asks must be whole numbers of at least 1"),
        (("--strategy", "tpee"), "unknown strategy 'tpee'; did you mean 'tpe'?"),
        (("--objective", "pareto"), "regret needs one reward, and a front has none"),
        (("--out", "nowhere/a.json"), "the folder of --out 'nowhere/a.json' does not exist"),
    ],
)
def test_mistakes_are_named(options, message, mistake, table):
    assert message in mistake("search", "--table", table, *options)
