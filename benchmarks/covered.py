"""Runs the fast tests and counts the statements and branches of the package that they go through.

    make coverage

Programs that the tests start count, too. The command fails where a test fails or less than the least share of the
branches is covered.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from machine import machine_facts

from hcoatnet.files import write_json

ROOT = Path(__file__).parents[1]
LEAST = 0.92
"""Share of the branches, as the project has set it."""

COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def main() -> None:
    """Run the tests and write the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("tests", nargs="*", default=["tests"], help="folders or files of tests")
    asked = parser.parse_args()
    machine = machine_facts(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        tests = ["-n", "2", "--dist", "loadscope", "-m", "not slow", *asked.tests]
        measured = ["--cov", "--cov-report", f"json:{report}", "--cov-report", ""]
        run = subprocess.run([sys.executable, "-m", "pytest", *tests, *measured], cwd=ROOT, check=False)
        found = json.loads(report.read_text(encoding="utf-8"))
    packages: dict[str, Counter[str]] = {}
    for file, facts in found["files"].items():
        _, _, place = file.replace("\\", "/").partition("src/hcoatnet/")
        package = place.partition("/")[0] if "/" in place else "hcoatnet"
        packages.setdefault(package, Counter()).update({name: facts["summary"][name] for name in COUNTED})
    total = shares(sum(packages.values(), Counter()))
    write_json(
        asked.out,
        {**total, "packages": {name: shares(counts) for name, counts in sorted(packages.items())}, "machine": machine},
    )
    print(f"statements {total['statements']:.1%}, branches {total['branches']:.1%}")
    sys.exit(run.returncode or (1 if total["branches"] < LEAST else 0))


def shares(counts: Counter[str]) -> dict[str, Any]:
    """The counts, and the shares of statements and of branches that are covered."""
    return {
        **{name: counts[name] for name in COUNTED},
        "statements": round(counts["covered_lines"] / counts["num_statements"], 4),
        "branches": round(counts["covered_branches"] / max(counts["num_branches"], 1), 4),
    }


if __name__ == "__main__":
    main()
