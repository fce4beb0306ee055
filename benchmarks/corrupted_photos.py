"""Corrupted copies of real photos: each is opened, or refused with one clear message, in bounded time and memory.

    HCOATNET_PAD_UFES=FOLDER python benchmarks/corrupted_photos.py --model BUNDLE --out RESULT.json

The photos of the folder, one after the other and each at random in one of six formats, are damaged at random, all of
it by one seed. First `describe_photo`, which opens a photo as everything else in the package does, is tried on each
copy, in a process of its own, so that a decoder that crashes or hangs is seen and not suffered. Then `hcoatnet data
scan` must name exactly the copies that were refused, and without these make a manifest of the others, and `hcoatnet
predict` must answer exactly those. Anything else is counted, and the exit code is 1.
"""

import argparse
import csv
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from corruption import DAMAGES, KINDS, SUFFIXES, Original, encoded
from machine import machine_facts, resident

from hcoatnet.data.images import PhotoError, describe_photo, open_photo
from hcoatnet.files import sha256_of_bytes, write_json

PHOTOS = 1000
PATIENCE = 60
"""Seconds after which a photo counts as hanging."""

OPENED, REFUSED, OTHER = "opened", "refused", "other"


@dataclass(frozen=True)
class Copy:
    """A corrupted copy.

    Attributes:
        path: Where it lies, relative to the folder of copies.
        kind: Its format before it was damaged.
        damage: What was done.
        colours: Digest of the original's histogram, which does not depend on how the photo is turned.
    """

    path: str
    kind: str
    damage: str
    colours: str


@dataclass(frozen=True)
class Outcome:
    """What became of opening a copy.

    Attributes:
        state: ``opened``, ``refused`` or ``other``.
        rule: The rule that refused it; of anything else what happened.
        seconds: Processor time.
        mebibytes: Memory beyond what the process had; 0 where the system does not tell.
    """

    state: str
    rule: str
    seconds: float
    mebibytes: float


def make_copies(photos: Sequence[Path], folder: Path, count: int, seed: int) -> list[Copy]:
    """Write corrupted copies of photos, each below a folder that is called as the one that its original is in."""
    draws = random.Random(seed)
    order = list(photos)
    draws.shuffle(order)
    copies = []
    for number in range(count):
        source, other = order[number % len(order)], draws.choice(order)
        kind = draws.choice(("JPEG", *KINDS))
        damage = draws.choice(DAMAGES[kind])
        original = Original(kind, *(encoded(path.read_bytes(), kind) for path in (source, other)))
        suffix = draws.choice(list(SUFFIXES.values())) if damage.__name__ == "wrong_suffix" else SUFFIXES[kind]
        path = f"{source.parent.name}/{number:05}{suffix}"
        copy = Copy(path, kind, damage.__name__, colours_of(original.content))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(damage(draws, original))
        copies.append(copy)
    return copies


def colours_of(source: Path | bytes) -> str:
    """A digest of how often each value of each colour stands in a photo."""
    return sha256_of_bytes(str(open_photo(source).histogram()).encode())


class Opener:
    """A process that opens one photo after another, and is started anew when it crashes or hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, path: Path) -> Outcome:
        """What becomes of one photo."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--opener"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        started = time.monotonic()
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        line = self._process.stdout.readline() if ready else ""
        if line:
            return Outcome(**json.loads(line))
        self.close()
        return Outcome(OTHER, "crash" if ready else "hang", time.monotonic() - started, 0.0)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def open_all() -> None:
    """The process of an `Opener`: a path a line comes in, an outcome a line goes out."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        before, started = resident("VmRSS", reset=True), time.process_time()
        state, rule = OPENED, ""
        try:
            describe_photo(path)
        except PhotoError as error:
            clear = str(error).startswith(f"{path}: ") and str(error).isprintable() and error.problem.fix
            state, rule = (REFUSED, error.problem.rule) if clear else (OTHER, f"unclear: {error}")
        except BaseException as error:
            state, rule = OTHER, type(error).__name__
        seconds = time.process_time() - started
        took = (resident("VmHWM") - before) / 2**20
        print(json.dumps(asdict(Outcome(state, rule, round(seconds, 4), round(took, 1)))), flush=True)


def run(*tokens: object) -> subprocess.CompletedProcess[str]:
    """One command of the package; a terminal that is wide enough for all cells of a table."""
    command = [sys.executable, "-m", "hcoatnet", *map(str, tokens)]
    environment = {**os.environ, "COLUMNS": "2000"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def check_scan(folder: Path, outcomes: dict[str, Outcome], work: Path) -> tuple[dict[str, Any], list[str]]:
    """Scan all copies, then those that can be opened; what was found, and what was not as it should be."""
    refused = {path for path, outcome in outcomes.items() if outcome.state != OPENED}
    manifest = work / "manifest.csv"
    done = run("data", "scan", folder, "--out", manifest)
    named = {path for path in outcomes if path in done.stderr}
    faults = [f"scan: exit code {done.returncode}"] if done.returncode != (2 if refused else 0) else []
    faults += ["scan: a traceback"] * ("Traceback" in done.stderr)
    faults += [f"scan: {path} is not named" for path in sorted(refused - named)]
    faults += [f"scan: {path} is named" for path in sorted(named - refused)]
    faults += ["scan: a manifest was made"] * (bool(refused) and manifest.exists())
    for path in refused:
        (folder / path).rename(work / "refused" / path.replace("/", "-"))
    again = run("data", "scan", folder, "--out", manifest)
    listed = set(_column(manifest, "path")) if manifest.exists() else set()
    wanted = {f"{folder.name}/{path}" for path in outcomes.keys() - refused}
    if again.returncode or listed != wanted:
        faults.append(f"scan of the others: exit code {again.returncode}, {len(listed ^ wanted)} photos differ")
    for path in refused:
        (work / "refused" / path.replace("/", "-")).rename(folder / path)
    return {"named": len(named), "listed_without_them": len(listed)}, faults


def check_predict(
    model: Path, folder: Path, outcomes: dict[str, Outcome], work: Path
) -> tuple[dict[str, Any], list[str]]:
    """Predict all copies; what was found, and what was not as it should be."""
    done = run("predict", model, folder, "--out", work / "answers.csv")
    faults = ["predict: a traceback"] * ("Traceback" in done.stderr)
    answers = work / "answers.csv"
    if not answers.exists():
        return {}, [*faults, f"predict: no answers, exit code {done.returncode}"]
    errors = dict(zip(_column(answers, "path"), _column(answers, "error"), strict=True))
    for path, outcome in outcomes.items():
        error = errors.get(str(folder / path))
        if error is None or bool(error) == (outcome.state == OPENED):
            faults.append(f"predict: {path} is {outcome.state}, but the error is {error!r}")
    unanswered = sum(map(bool, errors.values()))
    return {"answered": len(errors) - unanswered, "without_an_answer": unanswered}, faults


def _column(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [row[name] for row in csv.DictReader(stream)]


def try_all(copies: Sequence[Copy], folder: Path) -> Iterator[tuple[Copy, Outcome]]:
    """Open every copy."""
    opener = Opener()
    try:
        for copy in copies:
            yield copy, opener.open(folder / copy.path)
    finally:
        opener.close()


def counted(pairs: Sequence[tuple[Copy, Outcome]], key: str) -> dict[str, dict[str, int]]:
    """How many copies of each format, or with each damage, came to which end."""
    counts: dict[str, dict[str, int]] = {}
    for copy, outcome in pairs:
        counts.setdefault(getattr(copy, key), {OPENED: 0, REFUSED: 0, OTHER: 0})[outcome.state] += 1
    return {name: counts[name] for name in sorted(counts)}


def measure(photos: Sequence[Path], model: Path, work: Path, count: int, seed: int) -> dict[str, Any]:
    """The whole benchmark in an empty folder, for the JSON file."""
    folder = work / "copies"
    (work / "refused").mkdir()
    copies = make_copies(photos, folder, count, seed)
    pairs = list(try_all(copies, folder))
    outcomes = {copy.path: outcome for copy, outcome in pairs}
    scan, scan_faults = check_scan(folder, outcomes, work)
    predict, predict_faults = check_predict(model, folder, outcomes, work)
    states = Counter(outcome.state for outcome in outcomes.values())
    odd = [f"{copy.kind}, {copy.damage}: {one.rule}" for copy, one in pairs if one.state == OTHER]
    changed = sum(colours_of(folder / copy.path) != copy.colours for copy, one in pairs if one.state == OPENED)
    rules = Counter(one.rule for one in outcomes.values() if one.state == REFUSED)
    return {
        "copies": count,
        "originals": min(count, len(photos)),
        "seed": seed,
        **{state: states[state] for state in (OPENED, REFUSED, OTHER)},
        "opened_with_other_pixels": changed,
        "faults": [*odd, *scan_faults, *predict_faults],
        "refused_as": dict(rules.most_common()),
        "by_format": counted(pairs, "kind"),
        "by_damage": counted(pairs, "damage"),
        "longest_seconds": max(one.seconds for one in outcomes.values()),
        "most_mebibytes": max(one.mebibytes for one in outcomes.values()),
        "largest_file_kilobytes": round(max((folder / copy.path).stat().st_size for copy in copies) / 1000),
        "scan": scan,
        "predict": predict,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The table of the page on reliability."""
    rows = [
        f"| {name.replace('_', ' ')} | {counts[OPENED]} | {counts[REFUSED]} | {counts[OTHER]} |"
        for name, counts in found["by_damage"].items()
    ]
    return ["| damage | opened | refused | anything else |", "|---|---|---|---|", *rows]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--opener", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help="bundle or run to predict with")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--photos", type=int, default=PHOTOS, help=f"copies to make [default: {PHOTOS}]")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.opener:
        open_all()
        return
    if asked.model is None or asked.out is None or "HCOATNET_PAD_UFES" not in os.environ:
        parser.error("--model, --out and the environment variable HCOATNET_PAD_UFES are needed")
    photos = sorted(Path(os.environ["HCOATNET_PAD_UFES"], "images").rglob("*.jpg"))
    machine = machine_facts(threads=1)
    with tempfile.TemporaryDirectory(prefix="corrupted-photos-") as work:
        found = measure(photos, asked.model.resolve(), Path(work), asked.photos, asked.seed)
    write_json(asked.out, {**found, "machine": machine})
    print(json.dumps({name: found[name] for name in (OPENED, REFUSED, OTHER, "faults", "scan", "predict")}, indent=2))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
