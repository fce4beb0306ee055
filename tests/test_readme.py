"""Every command of the README and of the documents runs, on tiny data."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hcoatnet.cli import app, run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "getting-started.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
KNOWN_TABLES = (
    ("ham10000", "HAM10000_metadata.csv", "image_id", "dx", "lesion_id"),
    ("pad_ufes_20", "metadata.csv", "img_id", "diagnostic", "patient_id"),
    ("isic", "metadata.csv", "isic_id", "diagnosis_1", "lesion_id"),
)
TINY = ["--epochs", "1", "--image-size", "32", "--device", "cpu", "--workers", "0"]


def commands(page):
    """The `hcoatnet` command lines of a page's code blocks, with continued lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip().removeprefix("$ ") for line in text.splitlines() if re.match(r"^ {4,}(\$ )?hcoatnet ", line)]


@pytest.fixture
def workplace(photos, tmp_path, monkeypatch):
    """A folder with all that the documents name: PHOTOS, a table, new photos."""
    for name in ("PHOTOS", "NEW_PHOTOS"):
        shutil.copytree(photos, tmp_path / name, ignore=shutil.ignore_patterns("*.csv", "*.jsonl"))
    table = (photos / "table.csv").read_text().replace("label", "diagnosis")
    (tmp_path / "table.csv").write_text(
        "\n".join(line if not i else f"PHOTOS/{line}" for i, line in enumerate(table.splitlines())) + "\n"
    )
    for folder, name, path, label, unit in KNOWN_TABLES:
        (tmp_path / folder).mkdir()
        shutil.copytree(tmp_path / "PHOTOS", tmp_path / folder / "images", dirs_exist_ok=True)
        rows = [f"{path},{label},{unit}"]
        for number, photo in enumerate(sorted((tmp_path / "PHOTOS").rglob("*.png"))[::6]):
            stored = tmp_path / folder / ("" if folder == "isic" else "images") / f"P_{number}.jpg"
            Image.open(photo).save(stored)
            rows.append(f"{stored.name if folder.startswith('pad') else stored.stem},{photo.parent.name},u{number}")
        (tmp_path / folder / name).write_text("\n".join(rows) + "\n")
    # The service is tried in test_sources_roboflow.py; here its photos are there at once.
    monkeypatch.setattr(
        "hcoatnet.data.sources.roboflow.download", lambda out, *_: (shutil.copytree("PHOTOS", out).name,)
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documents_have_commands():
    found = {page.name: len(commands(page)) for page in PAGES}
    assert found["README.md"] >= 5
    assert sum(found.values()) >= 14


def shrunk(tokens):
    """The same command with small models and photos, and of a study only a corner."""
    if tokens[:1] == ["train"] and not {"--resume", "--config"} & set(tokens):
        model = tokens[tokens.index("--model") + 1] if "--model" in tokens else "h_coatnet_atto"
        kept = [
            token
            for i, token in enumerate(tokens)
            if not {token, tokens[i - 1]} & {"--epochs", "--image-size", "--model"}
        ]
        return [*kept, "--model", "cnn" if model.startswith("h_coatnet") else model, *TINY]
    if tokens[:2] == ["data", "audit"]:
        return [*tokens, "--self-test-photos", "2"]
    if tokens[:2] == ["data", "synth"]:
        return [*tokens[:3], "--patients", "40", "--size", "32"]
    if tokens[:2] == ["study", "run"] and {"--data", "--config"} & set(tokens):
        corner = ["--seeds", "1", "--folds", "0"] if "--config" in tokens else ["--folds", "0,1"]
        kept = [token for i, token in enumerate(tokens) if not {token, tokens[i - 1]} & {"--image-size", "--seeds"}]
        return [*kept, *corner, *TINY]
    if tokens[:1] == ["serve"]:
        return [*tokens, "--port", "0"]
    if tokens[:1] == ["ablate"]:
        return [*tokens, "--rows", "A5,full-gradient", "--folds", "0", *TINY]
    return tokens


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_order(page, workplace, in_process, capsys, request, monkeypatch):
    if page.name in ("train.md", "audit.md"):  # they begin where own-photos.md ends
        assert run(app, ["data", "scan", "PHOTOS", "--out", "manifest.csv"]) == 0
        assert run(app, ["data", "split", "manifest.csv", "--out", "split.csv"]) == 0
    if page.name in ("explain.md", "export.md"):  # they begin where train.md ends
        assert run(app, ["train", "--model", "cnn", "--data", "PHOTOS", "--out", "runs/first", *TINY]) == 0
    if page.name in ("predict.md", "serve.md"):  # they begin where bundle.md ends
        shutil.copytree(request.getfixturevalue("run_bundle"), "bundles/pad")
        shutil.copytree("PHOTOS", "photos")
        shutil.copy(next(Path("PHOTOS").rglob("*.png")), "one.jpg")
        (workplace / "token.txt").write_text("a-token-for-the-tests-only\n")
    for name in ("Server.run", "set_up_logging"):  # all but the serving itself
        monkeypatch.setattr(f"hcoatnet.deploy.server.running.{name}", lambda *_, **__: None)
    if page.name in ("bundle.md", "report.md"):  # they begin where study.md and train.md end
        table = ["--label-column", "diagnosis", "--group-column", "patient_id"]
        assert run(app, ["data", "scan", "table.csv", *table, "--out", "manifest.csv"]) == 0
        assert run(app, ["data", "split", "manifest.csv", "--folds", "3", "--out", "folds.csv"]) == 0
        place = ["--data", "manifest.csv", "--split", "folds.csv", *TINY]
        rows = "models: [{name: h_coatnet_atto, model: cnn}, {name: other, model: cnn, lr: 1e-4}]\n"
        (workplace / "rows.yaml").write_text(rows, encoding="utf-8")
        study = "study" if page.name == "report.md" else "studies/pad"
        assert run(app, ["study", "run", "--config", "rows.yaml", "--out", study, *place]) == 0
        assert run(app, ["train", "--model", "cnn", "--out", "runs/first", *place]) == 0
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        (workplace / name).write_text(text, encoding="utf-8")
    for line in commands(page):
        tokens = shrunk(shlex.split(line, comments=True)[1:])
        assert run(app, tokens) == 0, (line, capsys.readouterr())


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_python_of_the_readme_runs(workplace, capsys):
    assert run(app, ["data", "scan", "PHOTOS", "--out", "manifest.csv"]) == 0
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    tiny = '"protocol": "quick", "model": "cnn", "epochs": 1, "image_size": 32, "device": "cpu"'
    capsys.readouterr()
    exec(code.replace('"protocol": "quick"', tiny), {})
    assert "'value':" in capsys.readouterr().out
