"""The benchmarks that count found copies and that weigh int8, on a few photos."""

import json
from math import comb
from pathlib import Path

import pytest


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Runs a benchmark's ``main`` and returns what it wrote."""

    def run(module, *tokens):
        out = tmp_path / "found.json"
        monkeypatch.setattr("sys.argv", [module.__name__, *map(str, tokens), "--out", str(out)])
        module.main()
        return json.loads(out.read_text(encoding="utf-8"))

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return run


@pytest.mark.slow
def test_copies_of_two_photos(benchmark, photos, manifest_file, tmp_path, capsys):
    import copies_found

    found = benchmark(copies_found, manifest_file, "--same", "patient_id", "--photos", 2)
    assert (found["photos"], found["groups"], found["changed"], found["copies"]) == (54, 27, 2, 14)
    assert found["pairs"]["all_that_share"] == 27
    assert found["pairs"]["all_of_two_groups"] == comb(54, 2) - 27
    assert found["pairs"]["joined"] == found["pairs"]["joined_that_share"] == 0  # noise, each its own
    turned = found["changes"]["flip or right angle"]
    assert turned["hash"] == turned["all"] == 1
    assert turned["low"] < 1 == turned["high"]
    assert "stored chain hash" in capsys.readouterr().out


@pytest.mark.slow
def test_int8_of_a_run(benchmark, pruning_run):
    import int8

    found = benchmark(int8, pruning_run, "--rounds", 1)
    (row,) = found["rows"].values()
    if "refused" in row:
        assert "int8 must give the same top class" in row["refused"]
    else:
        assert row["agreement"] >= 0.99
        assert min(row["int8_to_float32"], row["float32_to_torch"]) > 0


def test_contestants_take_turns_and_the_least_time_counts(monkeypatch, benchmark):
    import int8
    import numpy as np

    clock = iter([0, 5, 5, 6, 6, 8, 8, 15])
    calls = []
    monkeypatch.setattr(int8.time, "process_time", lambda: next(clock))
    contestants = {name: lambda photo, name=name: calls.append((name, photo.shape)) for name in ("one", "other")}
    assert int8.least_times(contestants, np.zeros((2, 3)), rounds=2) == {"one": 2, "other": 1}
    assert calls == [("one", (1, 3)), ("one", (1, 3)), ("other", (1, 3)), ("other", (1, 3))] * 2
