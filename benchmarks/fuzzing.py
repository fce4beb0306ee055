"""Runs the slow fuzzing tests and counts the damaged files that were tried, and what became of reading them.

    python benchmarks/fuzzing.py --out docs/results/fuzzing.json [MODULE …]

Where modules are named, such as damaged_runs, only these are run, and the file keeps its counts of the others.
The exit code is that of the tests: 0 where every reader gave a value or raised an error that names the file.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from machine import machine_facts

from hcoatnet.files import write_json

TESTS = Path(__file__).parents[1] / "tests"
FUZZING = TESTS / "fuzzing"


class Counting:
    """Adds up what the tests of each module tried.

    Attributes:
        modules: By module the counts of `damage.COUNTS`, and the tests that passed and failed.
    """

    def __init__(self) -> None:
        self.modules: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called after each part of each test."""
        from damage import COUNTS

        name = Path(report.fspath).stem.removeprefix("test_")
        counts = self.modules.setdefault(name, Counter())
        counts.update(COUNTS)
        COUNTS.clear()
        if report.when == "call":
            counts[report.outcome] += 1
        elif report.failed:
            counts["failed"] += 1


SHOWN = {
    "damaged_photos": "photos",
    "damaged_tables": "manifests, splits, predictions, duplicates, other tables",
    "damaged_settings": "settings, studies",
    "damaged_models": "weights, training states, bundles, ONNX files",
    "damaged_runs": "files of runs and studies, ledgers",
    "damaged_archives": "archives",
}


def lines(found: dict[str, Any]) -> list[str]:
    """The table of the page on reliability."""
    rows = []
    for name, shown in SHOWN.items():
        counts = found["modules"][name]
        rows.append(f"| {shown} | {counts['files']:,} | {counts['read']:,} | {counts['refused']:,} |")
    return ["| what is damaged | files | read | refused |", "|---|---|---|---|", *rows]


def main() -> None:
    """Run the tests and write the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="tests to run [default: all]")
    asked = parser.parse_args()
    sys.path.insert(0, str(FUZZING))
    machine, counting = machine_facts(threads=1), Counting()
    tests = [str(FUZZING / f"test_{name}.py") for name in asked.modules] or [str(FUZZING)]
    code = pytest.main([*tests, "-q", "-m", "slow", "-p", "no:cacheprovider"], plugins=[counting])
    kept = json.loads(asked.out.read_text(encoding="utf-8"))["modules"] if asked.modules and asked.out.exists() else {}
    modules = {**kept, **counting.modules}
    total = sum(map(Counter, modules.values()), Counter())
    content = {
        **{name: total[name] for name in ("files", "read", "refused", "passed", "failed")},
        "modules": {name: dict(sorted(counts.items())) for name, counts in sorted(modules.items())},
        "machine": machine,
    }
    write_json(asked.out, content)
    sys.exit(int(code))


if __name__ == "__main__":
    main()
