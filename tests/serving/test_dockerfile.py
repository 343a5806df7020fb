"""What can be checked of the Dockerfile where there is no docker."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines]


def of(instructions, name):
    return [rest for instruction, rest in instructions if instruction == name]


def test_all_that_is_copied_is_there_and_not_ignored(instructions):
    sources = [
        name for rest in of(instructions, "COPY") if "--from" not in rest for name in rest.split()[:-1]
    ]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == kept
    assert all((ROOT / name).exists() for name in sources)


def test_the_extras_are_those_of_the_project(instructions):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r'"\.\[(.*?)\]"', " ".join(of(instructions, "RUN")))[1].split(",")
    assert "serve" in extras
    assert set(extras) <= set(project["optional-dependencies"])
    for file in (project["readme"], *project["license-files"]):
        assert any(file in rest.split() for rest in of(instructions, "COPY"))


def test_it_starts_the_command_and_not_as_root(instructions, effnet_options):
    (entry,) = map(json.loads, of(instructions, "ENTRYPOINT"))
    assert entry[:2] == ["effnet", "serve"]
    assert {part for part in entry if part.startswith("--")} <= effnet_options
    assert "0" not in of(instructions, "USER")[-1].split(":")


def test_it_asks_for_the_health_of_the_service(instructions, client):
    (check,) = of(instructions, "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    path = re.search(r"http://127\.0\.0\.1:8000(/\w+)", command[2])[1]
    assert path in client.get("/openapi.json").json()["paths"]
    (entry,) = map(json.loads, of(instructions, "ENTRYPOINT"))
    assert entry[entry.index("--port") + 1] == of(instructions, "EXPOSE")[0] == "8000"


@pytest.fixture
def effnet_options() -> set[str]:
    """The options of ``effnet serve``."""
    import typer

    from effnet.cli.main import app

    command = typer.main.get_command(app).commands["serve"]
    return {name for parameter in command.params for name in parameter.opts}
