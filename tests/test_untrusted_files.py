"""Files from elsewhere execute nothing: one clear message, exit code 2, and the mark that they would leave is not there."""

import ast
import pickle
import shutil
import stat
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY, draw_photo, flags
from deploy.bundle_forgery import relist, rewrite
from hcoatnet.data.audit.cache import Cache
from hcoatnet.data.cache import CACHE_NAME, PhotoCache, PixelSet, cache_folder
from hcoatnet.data.sources.archive import unpack_zip
from hcoatnet.deploy import bundle as layout
from hcoatnet.errors import DataError

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
SMALL = {**TINY, "image_size": 64, "model": "h_coatnet", "model_options": "backbone=test_convnext"}


class Exploit:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.mkdir, (self.mark,)


@pytest.fixture
def mark(tmp_path):
    """What must not be there after the test; that an exploit makes it is tried first."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Exploit(path)))
    path.rmdir()
    yield path
    assert not path.exists()


def legacy(mark):
    return pickle.dumps({"weight": Exploit(mark)})


def archived(mark):
    path = mark.with_name("evil.bin")
    torch.save({"state_dict": {"weight": Exploit(mark)}, "format": 1}, path)
    return path.read_bytes()


def hidden_in_tensors(mark):
    path = mark.with_name("evil.bin")
    torch.save({"weight": torch.zeros(2), "optimizer": [Exploit(mark)], "format": 1}, path)
    return path.read_bytes()


EXPLOITS = (legacy, archived, hidden_in_tensors)


def refused(result, *words):
    code, printed = result
    assert code == 2, printed
    assert "Traceback" not in printed
    assert printed.count("Error:") == 1
    for word in words:
        assert word in " ".join(printed.split()), printed


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_weights_for_a_training(exploit, suffix, mark, manifest_file, tmp_path, hcoatnet):
    weights = tmp_path / f"weights{suffix}"
    weights.write_bytes(exploit(mark))
    out = tmp_path / "run"
    settings = {**SMALL, "data": manifest_file, "init": f"pretrained:{weights}", "out": out}
    refused(hcoatnet("train", *flags(settings)), weights.name)
    assert not (out / "weights.safetensors").exists()


@pytest.fixture
def unfinished(pruning_run, manifest_file, tmp_path):
    """A run that its next command continues."""
    shutil.copytree(pruning_run, tmp_path / "copy" / "run")
    shutil.copytree(manifest_file.parent, tmp_path / "photos", ignore=shutil.ignore_patterns(".*"))
    run = tmp_path / "copy" / "run"
    config = (run / "config.yaml").read_text().splitlines()
    kept = [line for line in config if not line.startswith("data:")]
    (run / "config.yaml").write_text("\n".join([*kept, "data: ../../photos/manifest.csv", ""]))
    (run / "metrics.json").unlink()
    return run


@pytest.mark.parametrize("exploit", EXPLOITS)
def test_the_state_of_a_run_that_is_continued(exploit, mark, unfinished, hcoatnet):
    before = (unfinished / "weights.safetensors").read_bytes()
    (unfinished / "state.pt").write_bytes(exploit(mark))
    refused(hcoatnet("train", "--resume", unfinished), "state.pt", "damaged or not ours")
    assert (unfinished / "weights.safetensors").read_bytes() == before


def test_the_weights_of_a_run(mark, unfinished, pruning_run, hcoatnet):
    shutil.copy(pruning_run / "metrics.json", unfinished)
    (unfinished / "weights.safetensors").write_bytes(legacy(mark))
    refused(hcoatnet("evaluate", unfinished, "--subset", "val", "--device", "cpu"), "weights.safetensors")


YAML = (
    "!!python/object/apply:os.mkdir ['{mark}']",
    "seed: !!python/object/apply:os.mkdir ['{mark}']",
    "seed: !!python/object/new:os.mkdir ['{mark}']",
    "seed: !!python/name:os.mkdir",
    "seed: !!python/module:os",
)


@pytest.mark.parametrize("text", YAML)
def test_settings(text, mark, manifest_file, tmp_path, hcoatnet):
    file = tmp_path / "evil.yaml"
    file.write_text(text.format(mark=mark))
    refused(hcoatnet("train", "--data", manifest_file, "--config", file), "evil.yaml", "is not valid YAML")
    refused(hcoatnet("study", "run", "--config", file, "--out", tmp_path / "study"), "evil.yaml", "is not valid YAML")
    assert not (tmp_path / "study").exists()


def test_the_settings_of_a_run(mark, unfinished, hcoatnet):
    file = unfinished / "config.yaml"
    file.write_text(file.read_text() + YAML[0].format(mark=mark) + "\n")
    refused(hcoatnet("train", "--resume", unfinished), "config.yaml")


@pytest.mark.parametrize("option", ["a=!!python/object/apply:os.mkdir [{mark}]", "backbone=local-dir:{mark}"])
def test_options_of_a_model(option, mark, manifest_file, tmp_path, hcoatnet):
    settings = {**SMALL, "data": manifest_file, "model_options": option.format(mark=mark), "out": tmp_path / "run"}
    refused(hcoatnet("train", *flags(settings)))


@pytest.fixture
def bundle(run_bundle, tmp_path):
    return Path(shutil.copytree(run_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("name", "backend", "words"),
    [(layout.WEIGHTS, "torch", "The weights of the bundle"), (layout.ONNX, "onnx", "is no ONNX model"),
     *((name, "onnx", f"{name} is not JSON") for name in (layout.CONFIG, layout.CALIBRATION, layout.CARD, layout.HASHES))],
)  # fmt: skip
def test_parts_of_a_bundle(name, backend, words, mark, bundle, photos, hcoatnet):
    (bundle / name).write_bytes(legacy(mark))
    if name != layout.HASHES:
        relist(bundle)
    refused(hcoatnet("predict", bundle, photos, "--backend", backend), words)


def test_a_bundle_that_builds_its_model_from_a_file(mark, bundle, photos, hcoatnet, tmp_path):
    evil = tmp_path / "evil.pth"
    evil.write_bytes(legacy(mark))
    rewrite(bundle, layout.CONFIG, lambda facts: facts[layout.FACTS].update(options={"checkpoint_path": str(evil)}))
    refused(hcoatnet("predict", bundle, photos, "--backend", "torch"), "is no option")


def test_a_bundle_that_links_out_of_its_folder(mark, bundle, photos, hcoatnet, tmp_path):
    elsewhere = tmp_path / "elsewhere.safetensors"
    (bundle / layout.WEIGHTS).rename(elsewhere)
    (bundle / layout.WEIGHTS).symlink_to(elsewhere)
    refused(hcoatnet("predict", bundle, photos), "is a link")


def test_features_kept_by_an_audit(mark, tmp_path):
    row = {"value": np.zeros(2, np.float32)}
    cache = Cache(tmp_path / "cache")
    cache.store("pixels", {"a1": row})
    (file,) = (tmp_path / "cache").glob("*.npz")
    np.savez(file, keys=np.array(["a1"]), value=np.array([Exploit(mark)], dtype=object))
    assert cache.load("pixels", ["a1"]) == {}
    file.write_bytes(legacy(mark))
    assert cache.load("pixels", ["a1"]) == {}
    cache.store("pixels", {"a1": row})
    assert np.array_equal(cache.load("pixels", ["a1"])["a1"]["value"], row["value"])


def test_cached_pixels(mark, tmp_path):
    known = PixelSet(tmp_path / "set")
    known.append([("ab" * 32, np.ones((2, 2, 3), np.uint8))])
    for name in ("index", "pixels"):
        kept = (tmp_path / "set" / name).read_bytes()
        (tmp_path / "set" / name).write_bytes(legacy(mark))
        found = PixelSet(tmp_path / "set")
        assert found.read(found.find(["ab" * 32])[0]) is None
        (tmp_path / "set" / name).write_bytes(kept)


def test_a_cache_folder_that_photos_bring_along_leads_nowhere_else(mark, tmp_path, monkeypatch):
    private, data = tmp_path / "private", tmp_path / "data"
    private.mkdir()
    data.mkdir()
    (data / CACHE_NAME).symlink_to(private)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(data) == tmp_path / "cache" / "hcoatnet"


class Listener:
    def say(self, line):
        pass

    def steps(self, description, total):
        return nullcontext(self)

    def advance(self):
        pass


def test_making_room_in_a_cache_removes_nothing_that_is_not_of_the_cache(tmp_path):
    folder = tmp_path / "shared"
    for name in ("thesis", "photos-v1"):
        (folder / name).mkdir(parents=True)
        (folder / name / "only copy").write_bytes(b"x" * 4000)
    for size in (20, 30):
        held = PhotoCache(folder, 3000, Listener()).prepare(
            f"square-{size}", ["ab" * 32], [3 * size**2], lambda index, size=size: np.ones((size, size, 3), np.uint8)
        )
        assert held is not None
    assert not list(folder.glob("square-20-*/pixels"))  # room was made
    assert list(folder.glob("square-30-*/pixels"))
    assert len(list(folder.glob("*/only copy"))) == 2


def test_archives_that_would_write_elsewhere(mark, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    link = zipfile.ZipInfo("red/out")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    for entry, word in ((f"../{mark.name}", "outside the folder"), (str(mark), "outside the folder"), (link, "a link")):
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
            archive.writestr("red/1.jpg", legacy(mark))
            archive.writestr(entry, str(mark.parent))
        with pytest.raises(DataError, match=word):
            unpack_zip(tmp_path / "evil.zip", folder)
    assert list(folder.iterdir()) == []


def test_photos_and_tables_that_are_pickles(mark, tmp_path, hcoatnet):
    for name in ("blue", "red"):
        draw_photo(tmp_path / "photos" / name / "1.png", (9, 9, 9), 1)
    (tmp_path / "photos" / "red" / "2.jpg").write_bytes(legacy(mark))
    refused(hcoatnet("data", "scan", tmp_path / "photos", "--out", tmp_path / "manifest.csv"), "red/2.jpg")
    (tmp_path / "table.csv").write_bytes(legacy(mark))
    refused(hcoatnet("data", "scan", tmp_path / "table.csv", "--out", tmp_path / "manifest.csv"), "table.csv")
    assert not (tmp_path / "manifest.csv").exists()


def test_a_link_in_the_place_of_an_output_is_replaced_and_not_followed(run_bundle, photos, tmp_path, hcoatnet):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    out = tmp_path / "answers.csv"
    out.symlink_to(precious)
    code, printed = hcoatnet("predict", run_bundle, next(photos.rglob("*.png")), "--out", out)
    assert code == 0, printed
    assert precious.read_text() == "mine"


def dotted(node):
    """``a.b.c`` of a name or attribute; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(source):
    """Calls in a source text by which a file could execute code, leave its folder, or reach a shell."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve", "dill", "cloudpickle"):
            found.append(f"from {node.module} import")
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {one.arg: one.value for one in node.keywords}
        true = {key for key, value in given.items() if isinstance(value, ast.Constant) and value.value is True}
        last = name.rpartition(".")[2]
        if (
            name
            in ("eval", "exec", "compile", "os.system", "os.popen", "joblib.load", "torch.hub.load", "torch.jit.load")
            or name.startswith(
                ("pickle.load", "pickle.Unpickler", "marshal.load", "shelve.open", "yaml.unsafe", "yaml.full")
            )
            or (name.startswith("yaml.load") and name != "yaml.safe_load")
            or (last in ("extractall", "unpack_archive"))
            or (name == "torch.load" and "weights_only" not in true)
            or (last == "read_pickle")
            or "allow_pickle" in true
            or "shell" in true
            or "trust_remote_code" in true
        ):
            found.append(f"{name} in line {node.lineno}")
    return found


@pytest.mark.parametrize(
    "line",
    ["pickle.load(f)", "pickle.loads(b)", "from pickle import load", "torch.load(p)", "torch.load(p, weights_only=False)",
     "yaml.load(t)", "yaml.load_all(t)", "yaml.unsafe_load(t)", "eval('1')", "exec('1')", "np.load(p, allow_pickle=True)",
     "run('ls', shell=True)", "archive.extractall(p)", "shutil.unpack_archive(p)", "joblib.load(p)", "pd.read_pickle(p)"],
)  # fmt: skip
def test_the_search_for_dangerous_calls_finds_them(line):
    assert dangers(line)


def test_no_dangerous_call_is_in_the_source():
    assert len(SOURCES) > 100
    harmless = "torch.load(p, weights_only=True); yaml.safe_load(t); np.load(p, allow_pickle=False); model.eval()"
    assert dangers(harmless) == []
    assert {path.name: found for path in SOURCES if (found := dangers(path.read_text(encoding="utf-8")))} == {}


def test_an_evaluation_stays_in_its_folder(pruning_run, tmp_path, hcoatnet):
    run = shutil.copytree(pruning_run, tmp_path / "run")
    before = (run / "metrics.json").read_bytes()
    refused(hcoatnet("evaluate", run, "--subset", "val", "--device", "cpu", "--name", ".."), "--name")
    assert (run / "metrics.json").read_bytes() == before
