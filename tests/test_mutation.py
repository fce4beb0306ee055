"""The harness that changes the code notices what tests notice; and what it found is explained."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
FOUND = json.loads((ROOT / "docs/results/mutation.json").read_text(encoding="utf-8"))


def test_most_mutants_are_noticed_and_each_survivor_is_explained():
    assert FOUND["parts"].keys() == {"models/token_pruning.py", "data/splits.py", "evaluation/"}
    for part in FOUND["parts"].values():
        assert part["drawn"] == min(300, part["made"]) == part["killed"] + part["hung"] + part["survived"]
        assert part["share_noticed"] == round(1 - part["survived"] / part["drawn"], 4) >= 0.85
        assert len(part["survivors"]) == part["survived"]
        assert all(len(one["reason"]) > 10 for one in part["survivors"])


def test_lines_of_a_statement(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from mutation import mutant_of, statement_at, without_annotations

    source = "def f(a: int = 1,\n      b=2):\n    if (a >\n            b):\n        return [\n            a,\n        ]\n    return b\n"
    assert [statement_at(source, line) for line in (1, 2, 3, 4, 6, 8)] == [
        range(1, 3), range(1, 3), range(3, 5), range(3, 5), range(5, 8), range(8, 9),
    ]  # fmt: skip
    found = mutant_of("m.py", "Swap", source, source.replace("            b)", "            c)"))
    assert (found.line, found.before, found.after, found.lines) == (4, "b):", "c):", range(3, 5))
    assert without_annotations(source) == without_annotations(source.replace("a: int", "a: str | None"))
    assert without_annotations(source) != without_annotations(source.replace("= 1", "= 2"))


TRIED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import mutation

mutation.PATIENCE = 5
workshop = mutation.Workshop(Path(sys.argv[2]))
module = "evaluation/floors.py"
source = workshop.source(module)
workshop.prepare(module)
changes = json.loads(sys.argv[3])
made = {name: mutation.mutant_of(module, name, source, source.replace(old, new)) for name, (old, new) in changes.items()}
print(json.dumps({name: workshop.try_out(mutant) for name, mutant in made.items()}))
"""


@pytest.mark.slow
def test_mutants_are_killed_hang_and_survive(tmp_path):
    changes = {
        "killed": ("counts / counts.sum()", "counts * counts.sum()"),
        "broken": ("import numpy as np", "import no_such_module"),
        "hung": ("    counts = np", "    while True:\n        pass\n    counts = np"),
        "survived": ("    counts = np", "    counts = 0\n    counts = np"),
    }
    done = subprocess.run(
        [sys.executable, "-c", TRIED, str(BENCHMARKS), str(tmp_path), json.dumps(changes)],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"killed": "killed", "broken": "killed", "hung": "hung", "survived": "survived"}
