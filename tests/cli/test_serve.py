import pytest

from effnet.config.serve import ServeConfig

serving = pytest.importorskip("effnet.serving.server", reason="the extra serve is not installed")


@pytest.fixture
def started(monkeypatch):
    """What the service would have been started with."""
    calls = []

    def serve(predictors, config, *, token, say, log):
        calls.append((predictors, config, token, log))
        return len(predictors) < 3

    monkeypatch.setattr(serving, "serve", serve)
    monkeypatch.setattr("effnet.engines.choosing.installed_runtimes", list)
    monkeypatch.delenv("EFFNET_TOKEN", raising=False)
    return calls


def test_a_run_is_served_within_the_default_limits(effnet, finished, started):
    assert effnet("serve", finished).code == 0
    ((predictors, config, token, log),) = started
    ((name, predictor),) = predictors
    assert (name, predictor.class_names) == ("finished", ("blue", "green", "red"))
    assert config == ServeConfig()
    assert (token, log) == (None, None)


def test_what_computes_is_told_for_every_network(effnet, finished, started):
    why = "engine eager: no other is installed; pip install 'effnet[onnx]' or 'effnet[openvino]'"
    assert effnet("serve", finished, finished).err == f"finished: {why}\nfinished~2: {why}\n"
    answer = effnet("serve", finished, "--engine", "eager")
    assert answer.err == "finished: engine eager: as asked for\n"
    ((_, predictor),) = started[-1][0]
    assert predictor.engine is not None


def test_an_engine_that_is_not_there_is_told(mistake, finished, started):
    assert "there is no engine 'openvin'; did you mean 'openvino'" in mistake(
        "serve", finished, "--engine", "openvin"
    )


def test_options_become_limits(effnet, finished, started):
    answer = effnet(
        "serve", finished, finished, "--host", "::1", "--port", 0, "--max-batch", 3, "--max-megabytes", 400,
        "--max-megapixels", 2, "--timeout", 7, "--allow-origin", "https://a.example", "--access-log",
    )  # fmt: skip
    assert answer.code == 0
    ((predictors, config, _, log),) = started
    assert [name for name, _ in predictors] == ["finished", "finished~2"]
    assert (config.host, config.port, config.max_batch) == ("::1", 0, 3)
    assert (config.max_bytes, config.max_held_bytes) == (400 * 2**20, 400 * 2**20)
    assert (config.max_pixels, config.read_timeout_s, config.answer_timeout_s) == (2_000_000, 7, 7)
    assert config.allow_origins == ("https://a.example",)
    assert log is not None


def test_requests_that_were_cut_off_are_a_failure(effnet, finished, started):
    assert effnet("serve", finished, finished, finished).code == 1


def test_the_token_is_in_a_file_or_the_environment(effnet, finished, started, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("EFFNET_TOKEN", "from-environment")
    effnet("serve", finished)
    effnet("serve", finished, "--token-file", tmp_path / "token")
    assert [token for _, _, token, _ in started] == ["from-environment", "from-file"]


def test_a_file_without_a_token_is_told(mistake, finished, tmp_path):
    (tmp_path / "empty").write_text("\n")
    assert "is empty; write the token" in mistake("serve", finished, "--token-file", tmp_path / "empty")
    assert "cannot read the token" in mistake("serve", finished, "--token-file", tmp_path / "gone")


def test_limits_that_cannot_be_are_told(mistake, finished):
    assert "max_batch must be at least 1, got 0" in mistake("serve", finished, "--max-batch", 0)
    assert "port must be at most 65535, got 70000" in mistake("serve", finished, "--port", 70000)
    message = mistake("serve", finished, "--max-images", 300)
    assert "max_images is 300, which max_queue, 256, never admits" in message


def test_a_missing_package_is_named(mistake, finished, monkeypatch):
    import builtins

    original = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("effnet.serving"):
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "needs the package uvicorn; install it with: pip install 'effnet[serve]'" in mistake(
        "serve", finished
    )
