"""Change one thing at a time in the code that figures rest on, and see whether its tests notice.

    make mutants

cosmic-ray makes the mutants (a comparison, an operator, a number, a condition, a decorator, a loop is another one); at
most 300 a part are drawn with a seed. Left out are those that only touch annotations, and those that could hardly
fail to raise an error or to change nothing: bitwise operators on numbers, ``is`` for ``==``.

Each drawn mutant stands in a copy of the tree, and a fork of this process, which has loaded the libraries already,
runs the tests that mirror its module and go through the changed statement, the quickest first, with Hypothesis always
drawing the same examples. Why a survivor is tolerated is said in ``survivors.yaml`` beside this file; the command fails
where one has no reason there.

``--again`` takes an earlier result and tries only what survived then: the tests may have grown since, but a part whose
modules changed is drawn and tried anew. What was noticed at first is kept: it tells of changes that nobody had seen
when the tests were written.
"""

import argparse
import ast
import compileall
import difflib
import gc
import hashlib
import importlib
import json
import os
import py_compile
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # a process with threads of its own cannot be forked
sys.dont_write_bytecode = True  # two mutants of the same size and second would share a cached one

import coverage  # noqa: E402
import hypothesis  # noqa: E402
import yaml  # noqa: E402
from machine import machine_facts  # noqa: E402

ROOT = Path(__file__).parents[1]
REASONS = Path(__file__).with_name("survivors.yaml")
PARTS = {
    "models/token_pruning.py": ["models/token_pruning.py"],
    "data/splits.py": ["data/splits.py"],
    "evaluation/": sorted(f"evaluation/{path.name}" for path in (ROOT / "src/hcoatnet/evaluation").glob("[a-z]*.py")),
}
TESTS = {
    "evaluation/permutation.py": ["evaluation/test_subgroups.py", "evaluation/test_significance.py"],
    "evaluation/prediction_sets.py": ["evaluation/test_conformal.py"],
}
"""Where they are not those of the mirrored file."""

COPIED = ("src", "tests", "configs", "benchmarks", "docs", "pyproject.toml")
AT_MOST = 300
PATIENCE = 60
"""Seconds of processor time after which the tests of a mutant count as hanging; by the clock 20 times as long."""

MEMORY = 16 * 2**30
"""Bytes of address space that a mutant's tests may take."""

ALIKE = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"BitOr", "BitAnd", "BitXor", "LShift", "RShift"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
    {"USub", "Delete"},
    {"Invert", "Delete"},
    {"Not", "Delete"},
)
"""Operators that are replaced by each other."""


@dataclass(frozen=True)
class Mutant:
    """A module in which one thing is another.

    Attributes:
        module: Below the package, such as ``data/splits.py``.
        operator: What cosmic-ray did.
        line: Where, from 1.
        lines: All lines of the changed statement.
        before: The line as it was; several where the change spans them.
        after: As it is.
        code: The whole text.
    """

    module: str
    operator: str
    line: int
    lines: range
    before: str
    after: str
    code: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}\n  - {self.before}\n  + {self.after}"

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return {name: getattr(self, name) for name in ("module", "line", "operator", "before", "after")}


def operators() -> Iterator[tuple[str, Any]]:
    """Names and instances of the operators in use."""
    from cosmic_ray.plugins import get_operator, operator_names

    for name in operator_names():
        operator = get_operator(name)
        _, _, change = name.partition("Operator_")
        if not operator.arguments() and (not change or any(set(change.split("_")) <= alike for alike in ALIKE)):
            yield name.removeprefix("core/"), operator()


def mutants_of(module: str, source: str) -> list[Mutant]:
    """All mutants of a module, but those that differ in annotations only."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    nodes, meaning, made = list(ast_nodes(get_ast(source))), without_annotations(source), []
    for name, operator in operators():
        for occurrence in range(sum(len(list(operator.mutation_positions(node))) for node in nodes)):
            # cosmic-ray writes `if not x := y`, and cannot replace an exception that is an attribute
            with suppress(SyntaxError, AttributeError):
                code = mutate_code(source, operator, occurrence)
                if code is not None and without_annotations(code) != meaning:
                    made.append(mutant_of(module, name, source, code))
    return made


def without_annotations(source: str) -> str:
    """What a source says but for annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.dump(tree)


def mutant_of(module: str, operator: str, source: str, code: str) -> Mutant:
    """A mutant and the lines in which it differs."""
    old, new = source.splitlines(), code.splitlines()
    changes = [
        one for one in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if one[0] != "equal"
    ]
    first, last, first_new, last_new = changes[0][1], changes[-1][2], changes[0][3], changes[-1][4]
    before, after = ("\n".join(line.strip() for line in lines) for lines in (old[first:last], new[first_new:last_new]))
    return Mutant(module, operator, first + 1, statement_at(source, first + 1), before.strip(), after.strip(), code)


def statement_at(source: str, line: int) -> range:
    """Lines of the innermost statement at a line; of one that holds others only its head."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if node.lineno <= line <= last:
                found = range(node.lineno, last + 1)
    return found


class Workshop:
    """A copy of the tree in which mutants stand, one at a time.

    Args:
        folder: An empty folder for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.durations: dict[str, float] = {}
        self.contexts: dict[str, dict[int, set[str]]] = {}
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
        sys.path.insert(0, str(folder / "src"))

    def source(self, module: str) -> str:
        """The unchanged text of a module."""
        return (self.folder / "src/hcoatnet" / module).read_text(encoding="utf-8")

    def prepare(self, module: str) -> float:
        """Run the tests of an unchanged module; load what they load, apart from the package and the tests themselves.

        Returns:
            How long they took, in seconds of processor time.

        Raises:
            RuntimeError: They do not pass.
        """
        if code := self._run(module, learn=True):
            said = (self.folder / "said.txt").read_text(encoding="utf-8")
            raise RuntimeError(f"The tests of {module} ended with {code} although it is unchanged.\n{said[-3000:]}")
        learned = json.loads((self.folder / "learned.json").read_text(encoding="utf-8"))
        self.durations |= learned["durations"]
        self.contexts[module] = self._contexts(module)
        for name in learned["libraries"]:
            with suppress(Exception):
                importlib.import_module(name)
        gc.freeze()  # so that a fork need not touch what the libraries hold
        return float(learned["seconds"])

    def try_out(self, mutant: Mutant) -> str:
        """``killed``, ``hung`` or ``survived``."""
        with self._standing(mutant):
            code = self._run(mutant.module, self._tests_through(mutant))
        return {0: "survived", -signal.SIGXCPU: "hung", -signal.SIGKILL: "hung"}.get(code, "killed")

    @contextmanager
    def _standing(self, mutant: Mutant) -> Iterator[None]:
        path = self.folder / "src/hcoatnet" / mutant.module
        whole = path.read_text(encoding="utf-8")
        path.write_text(mutant.code, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(whole, encoding="utf-8")

    def _tests(self, module: str) -> list[str]:
        folder, _, name = module.rpartition("/")
        return [f"tests/{one}" for one in TESTS.get(module, [f"{folder}/test_{name}"])]

    def _contexts(self, module: str) -> dict[int, set[str]]:
        """The tests that go through each line, as coverage has seen it; "" where loading or a fixture does."""
        data = coverage.CoverageData(str(self.folder / ".coverage"))
        data.read()
        lines = data.contexts_by_lineno(str((self.folder / "src/hcoatnet" / module).resolve()))
        return {
            line: {"" if context.endswith("|setup") else context.partition("|")[0] for context in contexts}
            for line, contexts in lines.items()
        }

    def _tests_through(self, mutant: Mutant) -> set[str] | None:
        """The tests that go through the changed statement; None for all of the module's."""
        through = set().union(*(self.contexts[mutant.module].get(line, set()) for line in mutant.lines))
        return None if "" in through else through

    def _run(self, module: str, chosen: set[str] | None = None, *, learn: bool = False) -> int:
        """Exit code of a module's tests, or of those chosen, in a fork, or minus the signal that ended it."""
        pid = os.fork()
        if pid == 0:
            self._child(module, chosen, learn)
        deadline = time.monotonic() + 20 * PATIENCE
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _child(self, module: str, chosen: set[str] | None, learn: bool) -> NoReturn:
        code = 1
        try:
            os.setsid()
            said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(said, stream)
            os.chdir(self.folder)
            for limit, value in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, PATIENCE)):
                resource.setrlimit(limit, (value, value + 1))
            code = self._pytest(module, chosen, learn)
        finally:
            os._exit(code)

    def _pytest(self, module: str, chosen: set[str] | None, learn: bool) -> int:
        import pytest

        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a failure need not be made small
        hypothesis.settings.register_profile("mutants", derandomize=True, database=None, phases=phases)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--hypothesis-profile", "mutants"]
        if learn:
            options += ["--cov", "hcoatnet", "--cov-context", "test", "--cov-report", ""]
        started, order = time.process_time(), QuickestFirst(self.durations, chosen)
        code = int(pytest.main([*options, *self._tests(module)], plugins=[order]))
        if learn:
            loaded = {name: getattr(one, "__file__", None) for name, one in sys.modules.items()}
            learned = {
                "seconds": time.process_time() - started,
                "durations": order.durations,
                "libraries": [name for name, file in loaded.items() if file and not self._holds(file)],
            }
            (self.folder / "learned.json").write_text(json.dumps(learned), encoding="utf-8")
        return code

    def _holds(self, file: str) -> bool:
        return Path(file).is_relative_to(self.folder)


class QuickestFirst:
    """Has pytest run only the chosen tests, quick ones first, and notes how long each takes.

    Args:
        durations: Seconds that tests took before, by their names.
        chosen: Their names; None for all.
    """

    def __init__(self, durations: Mapping[str, float], chosen: set[str] | None) -> None:
        self.durations = dict(durations)
        self.chosen = chosen

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """A hook of pytest."""
        items[:] = [item for item in items if self.chosen is None or item.nodeid in self.chosen]
        items.sort(key=lambda item: self.durations.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A hook of pytest."""
        if report.when == "call":
            self.durations[report.nodeid] = report.duration


def examine(part: str, seed: int, workshop: Workshop, earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """Try a sample of the mutants of a part, or again what survived ``earlier`` if its modules are the same."""
    modules = PARTS[part]
    sources = {module: workshop.source(module) for module in modules}
    digest = hashlib.sha256("".join(sources.values()).encode()).hexdigest()
    made = [mutant for module, source in sources.items() for mutant in mutants_of(module, source)]
    drawn = random.Random(f"{seed} {part}").sample(made, min(AT_MOST, len(made)))
    tried = drawn
    if earlier is not None and earlier["sha256"] == digest:
        survived = Counter((one["module"], one["line"], one["after"]) for one in earlier["survivors"])
        tried = [one for one in drawn if (one.module, one.line, one.after) in survived]
    tried = sorted(tried, key=lambda one: (one.module, one.line))
    seconds = sum(workshop.prepare(module) for module in sorted({one.module for one in tried}))
    print(
        f"{part}: {len(made)} mutants, {len(drawn)} drawn, {len(tried)} to try; tests take {seconds:.0f} s", flush=True
    )
    found: dict[str, list[Mutant]] = {"killed": [], "hung": [], "survived": []}
    for number, mutant in enumerate(tried, start=1):
        outcome = workshop.try_out(mutant)
        found[outcome].append(mutant)
        if outcome != "killed":
            print(f"{number}: {outcome}: {mutant}", flush=True)
    survivors, hung = found["survived"], len(found["hung"])
    share = first = round(1 - len(survivors) / len(drawn), 4)
    if earlier is not None and earlier["sha256"] == digest:
        hung, first = hung + earlier["hung"], earlier["share_noticed_at_first"]
    return {
        "sha256": digest,
        "made": len(made),
        "drawn": len(drawn),
        "killed": len(drawn) - len(survivors) - hung,
        "hung": hung,
        "survived": len(survivors),
        "share_noticed_at_first": first,
        "share_noticed": share,
        "modules": dict(Counter(mutant.module for mutant in drawn)),
        "survivors": [mutant.to_dict() for mutant in survivors],
    }


def explain(parts: Mapping[str, Any]) -> int:
    """Give each survivor its reason from the file of reasons; how many have none."""
    groups = yaml.safe_load(REASONS.read_text(encoding="utf-8"))
    known = {(one["module"], one["before"], after): one["reason"] for one in groups for after in one["after"]}
    survivors = [one for part in parts.values() for one in part["survivors"]]
    for one in survivors:
        one["reason"] = known.get((one["module"], one["before"], one["after"]))
    return sum(one["reason"] is None for one in survivors)


def main() -> None:
    """Examine all parts, or those asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one; may be repeated")
    parser.add_argument("--again", type=Path, help="earlier result, of which only the survivors are tried again")
    asked = parser.parse_args()
    earlier = json.loads(asked.again.read_text(encoding="utf-8"))["parts"] if asked.again else {}
    parts, machine = dict(earlier), machine_facts(threads=1)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        workshop = Workshop(Path(folder))
        for part in asked.part or PARTS:
            parts[part] = examine(part, asked.seed, workshop, earlier.get(part))
            unexplained = explain(parts)
            found = {"seed": asked.seed, "parts": {name: parts[name] for name in PARTS if name in parts}}
            asked.out.write_text(json.dumps({**found, "machine": machine}, indent=1) + "\n", encoding="utf-8")
    print(f"{unexplained} survivors without a reason")
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
