"""`make compat` runs commands that work, stops where one fails, and tries what the documents say."""
# ruff: noqa: E402

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import compatibility


@pytest.mark.slow
def test_the_commands_work_here(tmp_path):
    rows = compatibility.run_commands(Path(sys.executable).parent, tmp_path)
    assert [row["exit_code"] for row in rows] == [0] * len(compatibility.COMMANDS), rows[-1]


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_it_stops_at_the_first_failure_and_keeps_what_was_said(tmp_path, capsys):
    program = tmp_path / "hcoatnet"
    program.write_text('#!/bin/sh\nif [ "$1" = train ]; then echo "no such thing in $PWD" >&2; exit 7; fi\n')
    program.chmod(0o755)
    rows = compatibility.run_commands(tmp_path, tmp_path)
    assert [row["exit_code"] for row in rows] == [0, 0, 0, 7]
    assert rows[-1]["last_lines"] == ["no such thing in …"]
    assert rows[-1]["command"].startswith("hcoatnet train --data photos/manifest.csv")


def test_a_checkout_that_is_imported_is_noticed(tmp_path):
    """Here the checkout is what is installed."""
    with pytest.raises(AssertionError, match="not the wheel"):
        compatibility.facts(Path(sys.executable).parent, tmp_path)


def test_it_tries_every_python_that_is_allowed():
    import tomllib

    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    minors = [f"3.{minor}" for minor in range(20) if allowed.contains(f"3.{minor}.5")]
    assert [one.python for one in compatibility.ENVIRONMENTS if one.extras] == minors
    ages = {one.name.partition("-")[2] for one in compatibility.ENVIRONMENTS}
    assert ages == {"oldest", "newest", "oldest-without-extras"}
    assert {"torch", "timm", "numpy", "onnxruntime", "fastapi"} <= set(compatibility.dependencies())
    assert set(compatibility.dependencies()) - set(compatibility.dependencies(())) >= {"onnxruntime", "fastapi"}
    alone = {command[0] for command in compatibility.COMMANDS if command[0] in compatibility.WITHOUT_EXTRAS}
    assert alone == set(compatibility.WITHOUT_EXTRAS)


def test_the_page_says_what_was_found_in_every_environment():
    found = json.loads((ROOT / "docs" / "results" / "compatibility.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    assert found.keys() == {one.name for one in compatibility.ENVIRONMENTS}
    for name, row in found.items():
        worked, all_of_them = sum(one["exit_code"] == 0 for one in row["commands"]), len(row["commands"])
        versions = [row["versions"].get(package, "–") for package in ("torch", "numpy", "onnxruntime")]
        assert f"| {' | '.join([name, row['python'], *versions, f'{worked} of {all_of_them}'])} |" in page
