"""The figures of the page on maps are those of the committed measurement."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/maps.md").read_text(encoding="utf-8")
MEASURED = json.loads((ROOT / "docs/results/map_checks.json").read_text(encoding="utf-8"))["models"]


def with_sign(value):
    return f"{value:+.3f}".replace("-", "−")


def game_cell(game):
    reach = f"({with_sign(game['low'])} to {with_sign(game['high'])})"
    return f"{game['area']:.3f} against {game['chance_area']:.3f}: {with_sign(game['gain'])} {reach}"


def randomisation_cell(found):
    low, high = (f"{found[key]:+.2f}".replace("-", "−") for key in ("lowest_draw", "highest_draw"))
    return f"{found['mean']:+.2f}".replace("-", "−") + f" ({low} to {high})"


@pytest.mark.parametrize("name", MEASURED)
def test_a_row_of_the_table(name):
    assert len(MEASURED) == 5
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    found = MEASURED[name]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        game_cell(found["games"]["deletion"]),
        game_cell(found["games"]["insertion"]),
        randomisation_cell(found["randomisation"]),
    ]
    assert f"{found['photos']} validation photos of {found['groups']} patients" in PAGE
