"""Whether the built package installs and works outside the checkout: other Pythons, oldest and newest dependencies.

    make compat
    python benchmarks/compatibility.py --only 3.13-newest --out compatibility.json

The wheel is built; for each environment uv resolves the versions that pyproject.toml allows, oldest or newest, makes an
environment in a temporary folder, installs them and the wheel, and a small set of commands runs in an empty folder. The
environment is removed before the next one is made. Needs uv, and the Pythons on the PATH or where uv finds them. What
was done is written after each environment; the exit code is 1 if a command failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hcoatnet.files import write_json

ROOT = Path(__file__).parents[1]
EXTRAS = ("audit", "onnx", "serve")
WITHOUT_EXTRAS = ("doctor", "data", "train", "evaluate", "report")
"""Commands that the package alone has."""
TINY = ("--model", "h_coatnet", "--model-options", "backbone=test_convnext", "--image-size", "64", "--epochs", "1",
        "--batch-size", "16", "--device", "cpu", "--workers", "0")  # fmt: skip
COMMANDS = (
    ("doctor", "--json"),
    ("data", "synth", "photos", "--patients", "40", "--size", "32"),
    ("data", "split", "photos/manifest.csv", "--out", "split.csv"),
    ("train", "--data", "photos/manifest.csv", "--split", "split.csv", "--out", "run", *TINY),
    ("evaluate", "run", "--subset", "val"),
    ("report", "run"),
    ("bundle", "run", "bundle"),
    ("predict", "bundle", "photos", "--out", "answers.csv"),
)
LINES_KEPT = 5
LONGEST = 3600
"""Seconds that one command may take."""

FACTS = """
import json, platform, sys
from importlib import metadata
import hcoatnet
print(json.dumps({"python": platform.python_version(), "place": hcoatnet.__file__,
                  "versions": {name: metadata.version(name) for name in sys.argv[1:]}}))
"""


@dataclass(frozen=True)
class Environment:
    """A Python with the oldest or the newest versions that pyproject.toml allows, with or without the extras."""

    python: str
    resolution: str
    extras: tuple[str, ...] = EXTRAS

    @property
    def name(self) -> str:
        age = "oldest" if self.resolution == "lowest-direct" else "newest"
        return f"{self.python}-{age}{'' if self.extras else '-without-extras'}"


ENVIRONMENTS = (
    Environment("3.11", "lowest-direct", ()),
    Environment("3.11", "lowest-direct"),
    Environment("3.12", "highest"),
    Environment("3.13", "highest"),
)


def uv(*arguments: object) -> None:
    done = subprocess.run(["uv", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv {arguments[0]} failed:\n{done.stderr}")


def build_wheel(folder: Path) -> Path:
    uv("build", "--wheel", "--out-dir", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(environment: Environment, wheel: Path, folder: Path) -> Path:
    """Make the environment; returns its folder of programs."""
    versions, place = folder / "versions.txt", folder / "environment"
    extras = [word for name in environment.extras for word in ("--extra", name)]
    uv("pip", "compile", "--quiet", "--python-version", environment.python, "--resolution", environment.resolution,
       *extras, "--output-file", versions, "pyproject.toml")  # fmt: skip
    uv("venv", "--quiet", "--no-python-downloads", "--python", environment.python, place)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    uv("pip", "install", "--quiet", "--python", programs / "python", "-r", versions)
    uv("pip", "install", "--quiet", "--python", programs / "python", "--no-deps", wheel)
    uv("pip", "check", "--python", programs / "python")
    return programs


def dependencies(extras: Sequence[str] = EXTRAS) -> list[str]:
    """Names of the packages that the package needs, with these extras."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    further = [one for name in extras for one in project["optional-dependencies"][name]]
    return sorted({Requirement(one).name for one in [*project["dependencies"], *further]})


def facts(programs: Path, folder: Path, extras: Sequence[str] = EXTRAS) -> dict[str, Any]:
    command = [programs / "python", "-c", FACTS, *dependencies(extras)]
    found = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    assert ROOT not in Path(found.pop("place")).parents, "the checkout was imported, not the wheel"
    return found


def run_commands(programs: Path, folder: Path, commands: Sequence[tuple[str, ...]] = COMMANDS) -> list[dict[str, Any]]:
    """Run every command until one fails."""
    rows = []
    for command in commands:
        start = time.perf_counter()
        done = subprocess.run(
            [programs / "hcoatnet", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        row = {
            "command": " ".join(("hcoatnet", *command)),
            "exit_code": done.returncode,
            "seconds": round(time.perf_counter() - start, 1),
        }
        if done.returncode:
            said = (done.stdout + done.stderr).replace(str(folder), "…").splitlines()
            row["last_lines"] = said[-LINES_KEPT:]
        rows.append(row)
        print(f"  {row['exit_code']}  {row['seconds']:6.1f} s  {row['command']}", flush=True)
        if done.returncode:
            break
    return rows


def try_environment(environment: Environment, wheel: Path) -> dict[str, Any]:
    print(environment.name, flush=True)
    with tempfile.TemporaryDirectory() as name:
        programs = install(environment, wheel, Path(name))
        work = Path(name) / "work"
        work.mkdir()
        commands = [one for one in COMMANDS if environment.extras or one[0] in WITHOUT_EXTRAS]
        found = facts(programs, work, environment.extras)
        return {**found, "resolution": environment.resolution, "commands": run_commands(programs, work, commands)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [one.name for one in ENVIRONMENTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "compatibility.json")
    given = parser.parse_args(arguments)
    before = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    done: dict[str, Any] = {name: row for name, row in before.items() if name in names}
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for environment in ENVIRONMENTS:
            if environment.name in given.only:
                done[environment.name] = try_environment(environment, wheel)
                write_json(given.out, done)
    tried = [done[name] for name in given.only]
    return int(any(row["exit_code"] for one in tried for row in one["commands"]))


if __name__ == "__main__":
    sys.exit(main())
