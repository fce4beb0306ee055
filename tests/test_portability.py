"""What keeps the code working on other systems, as far as it can be seen here: encodings, modules, names, processes."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from conftest import TINY, flags

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    [*(ROOT / "src").rglob("*.py"), *(ROOT / "baselines").glob("*.py"), *(ROOT / "proposed_model").glob("*.py")]
)
UNIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
UNIX_CALLS = {"fork", "forkpty", "getgid", "getloadavg", "getuid", "geteuid", "killpg", "mkfifo", "sched_getaffinity",
              "setsid", "sysconf", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"}  # fmt: skip
RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.I)
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')


def nodes(path):
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def opens_text_without_encoding(call):
    """Whether a call opens or reads a text file in whatever encoding the system has."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in ("open", "read_text", "write_text", "NamedTemporaryFile", "TextIOWrapper"):
        return False
    owner = getattr(function, "value", None)
    if isinstance(owner, ast.Name) and owner.id in ("os", "Image", "webbrowser", "zipfile", "Bundle", "cls", "archive"):
        return False
    if any(one.arg == "encoding" for one in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    modes = [one.value for one in call.keywords if one.arg == "mode"] + call.args
    words = [one.value for one in modes if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    binary = any(re.fullmatch("[rwxa+]*b[rwxa+]*", word) for word in words)
    if name == "NamedTemporaryFile":
        return bool(words) and not binary
    return not binary and (name == "TextIOWrapper" or bool(words) or not modes)


@pytest.mark.parametrize(
    ("code", "offends"),
    [("p.read_text()", True), ("p.read_text(encoding='utf-8')", False), ("p.read_text('utf-8')", False),
     ("p.open()", True), ("p.open('rb')", False), ("p.open('w')", True), ("open(p, 'w', encoding='utf-8')", False),
     ("p.write_text(t)", True), ("os.open(p, 1)", False)],
)  # fmt: skip
def test_the_search_for_encodings(code, offends):
    assert opens_text_without_encoding(ast.parse(code).body[0].value) is offends


def test_every_text_file_is_opened_with_its_encoding():
    assert len(SOURCES) > 100
    found = {
        f"{path.name}:{node.lineno}": ast.unparse(node)
        for path in SOURCES
        for node in nodes(path)
        if isinstance(node, ast.Call) and opens_text_without_encoding(node)
    }
    assert found == {}


def test_no_module_or_call_that_only_unix_has_is_used_unguarded():
    found = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for node in nodes(path):
            names = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names if one.name in UNIX_ONLY]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module] if node.module in UNIX_ONLY else []
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("os", "signal")
            ):
                guarded = f'hasattr({node.value.id}, "{node.attr}")' in text
                names = [node.attr] if node.attr in UNIX_CALLS and not guarded else []
            found += [f"{path.name}:{node.lineno} {name}" for name in names]
    assert found == []


def check_names(folder):
    """Every name below the folder can stand on Windows, also in a folder that is 100 characters deep already."""
    paths = [PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*")]
    for path in paths:
        assert not FORBIDDEN.search(path.name), path
        assert not RESERVED.fullmatch(path.name), path
        assert not path.name.endswith((".", " ")), path
        assert len(str(path)) < 150, path
    lowered = [str(path).casefold() for path in paths]
    assert len(set(lowered)) == len(lowered)
    return len(paths)


@pytest.mark.parametrize("name", ["a:b", "what?", "CON", "nul.txt", "end.", "tab\t"])
def test_the_search_for_names_finds_those_that_windows_refuses(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(AssertionError):
        check_names(tmp_path)


@pytest.mark.slow
def test_names_of_files_that_are_written(study, pruning_run, run_bundle):
    assert check_names(study) > 50
    assert check_names(pruning_run) > 10
    assert check_names(run_bundle) > 5


@pytest.mark.slow
def test_paths_in_files_have_forward_slashes(study, pruning_run, manifest_file):
    for file in [manifest_file, *study.rglob("*.csv"), *pruning_run.glob("*.csv"), *pruning_run.glob("*.yaml")]:
        assert "\\" not in file.read_text(encoding="utf-8"), file


def test_a_path_with_backslashes_in_a_table_is_read_as_one_of_windows_or_named(photos, tmp_path, hcoatnet):
    rows = (photos / "table.csv").read_text(encoding="utf-8").splitlines()
    rows = [rows[0], *(row.replace("/", "\\", 1) for row in rows[1:])]
    table = photos / "windows.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    try:
        code, printed = hcoatnet("data", "scan", table, "--out", tmp_path / "manifest.csv")
    finally:
        table.unlink()
    assert code == 0, printed
    assert "\\" not in (tmp_path / "manifest.csv").read_text(encoding="utf-8")


SPAWNING = "import multiprocessing; multiprocessing.set_start_method('spawn'); from hcoatnet.cli import main; main()"


@pytest.mark.slow
def test_loader_processes_can_be_spawned(manifest_file, tmp_path):
    """macOS and Windows start processes anew, so that all they need must be sent to them."""
    written = []
    for name, workers in (("alone", 0), ("spawned", 2)):
        settings = {**TINY, "model": "cnn", "data": manifest_file, "workers": workers, "out": tmp_path / name}
        done = subprocess.run(
            [sys.executable, "-c", SPAWNING, "train", *flags(settings)], capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        written.append((tmp_path / name / "weights.safetensors").read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_our_signs_stops_nothing(encoding, manifest_file, tmp_path):
    settings = {**TINY, "model": "cnn", "data": manifest_file, "out": tmp_path / "run"}
    done = subprocess.run(
        [sys.executable, "-m", "hcoatnet", "train", *flags(settings)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert b"Report:" in done.stdout


def test_nothing_runs_where_the_commands_are_imported_by_a_spawned_process():
    for path in [*(ROOT / "baselines").glob("train_*.py"), *(ROOT / "proposed_model").glob("train_*.py")]:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
        loose = [one for one in statements if isinstance(one, ast.Expr) and not isinstance(one.value, ast.Constant)]
        assert loose == [], path
