"""Making bundles."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

import hcoatnet.models
from conftest import CLASSES
from hcoatnet.data.images import open_photo, preprocess
from hcoatnet.data.tables import read_table
from hcoatnet.deploy import bundle as layout
from hcoatnet.deploy import bundling
from hcoatnet.deploy.bundle import Bundle
from hcoatnet.deploy.bundle_readme import hub_licence
from hcoatnet.deploy.parity import Parity
from hcoatnet.evaluation.calibration_file import calibration_of_study
from hcoatnet.report.card import MISSING
from hcoatnet.study.collect import collect

OPEN_ENTRIES = ("Author and contact", "How to cite", "Consent and ethics approval")


@pytest.fixture
def quick(monkeypatch, run_bundle):
    """Export without an exporter: the ONNX file of another bundle stands in."""

    def export(models, batches, path, facts):
        shutil.copy(run_bundle / layout.ONNX, path)
        return Parity(1, (1,), 0.0, 0.0, 0)

    monkeypatch.setattr(bundling, "export_checked", export)


@pytest.fixture
def own_run(pruning_run, manifest_file, tmp_path):
    """A copy of a run that still finds its photos."""
    copy = Path(shutil.copytree(pruning_run, tmp_path / "run"))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**config, "data": str(manifest_file)}))
    return copy


@pytest.fixture
def own_study(study, tmp_path):
    """A copy of a study whose runs still find their photos: it lies as deep as the first."""
    copy = Path(shutil.copytree(study, tmp_path / "study"))
    for file in copy.glob("runs/*/config.yaml"):
        config = yaml.safe_load(file.read_text())
        first = study / "runs" / file.parent.name
        places = {key: str((first / config[key]).resolve()) for key in ("data", "split")}
        file.write_text(yaml.safe_dump({**config, **places}))
    return copy


def entries(folder):
    return {one["name"]: one for section in Bundle.open(folder).card["sections"] for one in section["entries"]}


def test_the_files_of_a_bundle(run_bundle, pruning_run):
    assert sorted(path.name for path in run_bundle.iterdir()) == sorted([*layout.LISTED, layout.HASHES])
    assert all(path.stat().st_mode & 0o077 == 0o077 & ~0o022 & 0o666 for path in run_bundle.iterdir())
    assert json.loads((run_bundle / layout.CALIBRATION).read_text()) == json.loads(
        (pruning_run / "calibration.json").read_text()
    )
    wanted, found = (
        load_file(folder / name)
        for folder, name in ((pruning_run, "weights.safetensors"), (run_bundle, layout.WEIGHTS))
    )
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_the_weights_of_a_study_are_those_of_its_folds(study, study_bundle):
    found = load_file(study_bundle / layout.WEIGHTS)
    for fold in range(3):
        wanted = load_file(study / f"runs/cnn-scratch-s1-r0-f{fold}/weights.safetensors")
        assert all(torch.equal(tensor, found.pop(f"{fold}.{name}")) for name, tensor in wanted.items())
    assert not found
    trained = Bundle.open(study_bundle).facts["trained"]
    assert [(one["seed"], one["repeat"], one["fold"]) for one in trained] == [(1, 0, fold) for fold in range(3)]


def test_a_study_is_calibrated_out_of_fold(study, study_bundle):
    runs = sorted(study.glob("runs/cnn-*"))
    (arm,) = collect(runs)
    expected = calibration_of_study(arm)
    found = json.loads((study_bundle / layout.CALIBRATION).read_text())
    assert {**found, "approximate_because": ""} == {**expected, "approximate_because": ""}
    assert "average" in found["approximate_because"]
    assert found["photos"] == 54
    card = entries(study_bundle)
    assert card["Not tested"]["value"].startswith("The average itself.")
    assert f"{found['temperature']:.3f}" in card["Temperature"]["value"]


def test_nothing_in_a_bundle_leads_to_a_person_or_a_folder(run_bundle, study_bundle, pruning_run, study, manifest_file):
    manifest = read_table(manifest_file)
    secrets = {str(manifest_file.parent), str(pruning_run.parent), str(study.parent), str(Path.home()), sys.prefix}
    secrets |= {
        str(Path(__file__).parents[2]),
        "/tmp/",
        *manifest["path"],
        *manifest["group"],
        *manifest["patient_id"],
        *manifest["sha256"],
    }
    assert len(secrets) > 100
    for file in [*run_bundle.iterdir(), *study_bundle.iterdir()]:
        content = file.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], file


def test_timm_loads_a_bundle_of_one_run(run_bundle, pruning_run, manifest_file):
    assert hcoatnet.models
    model = timm.create_model(f"local-dir:{run_bundle}", pretrained=True).eval()
    table = read_table(pruning_run / "predictions_test.csv")
    photos = np.stack([preprocess(open_photo(manifest_file.parent / path), 64) for path in table["path"]])
    with torch.inference_mode():
        found = model(torch.from_numpy(photos)).numpy()
    wanted = table[[f"logit_{name}" for name in CLASSES]].to_numpy(dtype=float)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert model.pretrained_cfg["label_names"] == list(CLASSES)
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with Image.open(manifest_file.parent / table["path"][0]) as photo:
        np.testing.assert_allclose(prepare(photo).numpy(), photos[0], atol=1e-5)


def test_timm_refuses_a_bundle_of_several(study_bundle):
    with pytest.raises(RuntimeError, match="3 x cnn"):
        timm.create_model(f"local-dir:{study_bundle}", pretrained=True)


def test_the_page_is_one_of_a_hub(run_bundle, study_bundle):
    page = ModelCard.load(run_bundle / layout.README)
    assert page.data.to_dict() == {
        "license": "mit", "library_name": "hcoatnet", "pipeline_tag": "image-classification",
        "tags": ["hcoatnet", "timm", "dermatology"],
    }  # fmt: skip
    assert "not a diagnosis" in page.text
    assert "# Model card: " in page.text
    other = ModelCard.load(study_bundle / layout.README)
    assert other.data.license == "unknown" and "timm" not in other.data.tags
    for name, one in entries(study_bundle).items():
        assert f"- **{name}**: " in other.text and " ".join(one["value"].split()) in other.text


def test_licences_in_the_words_of_a_hub():
    assert hub_licence("CC-BY-NC-4.0") == {"license": "cc-by-nc-4.0"}
    assert hub_licence("Apache-2.0") == {"license": "apache-2.0"}
    assert hub_licence("My own") == {"license": "other", "license_name": "My own"}


def test_what_only_the_author_knows(pruning_run, tmp_path, quick, hcoatnet):
    file = tmp_path / "card.yaml"
    file.write_text("Author and contact: A. N. Other <a@example.org>\nHow to cite: |\n  One\n  two\n")
    code, printed = hcoatnet("bundle", pruning_run, tmp_path / "out", "--card", file, "--licence", "CC-BY-4.0")
    assert code == 0
    card = entries(tmp_path / "out")
    assert card["Author and contact"]["value"] == "A. N. Other <a@example.org>"
    assert not card["Author and contact"]["missing"]
    assert card["Licence of the weights"]["value"] == "CC-BY-4.0"
    assert card["Consent and ethics approval"] == {
        "name": "Consent and ethics approval", "value": MISSING, "source": "", "missing": True
    }  # fmt: skip
    missing = next(line for line in printed.splitlines() if line.startswith("The card lacks"))
    assert "Consent and ethics approval" in missing and "Author and contact" not in missing
    page = (tmp_path / "out" / layout.README).read_text()
    assert "- **How to cite**: One two" in page and "&lt;a@example.org>" in page


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("Author and contacts: me", "Did you mean 'Author and contact'?"),
        ("Photos: many", "'Photos' is no entry of the card that its author fills"),
        ("Licence of the weights: MIT", "--licence"),
        ("How to cite: [a, b]", "must be a text"),
        ("How to cite: ''", "must be a text"),
        ("- a", "must hold `key: value` lines"),
    ],
)
def test_card_entries_that_cannot_be_taken(pruning_run, tmp_path, hcoatnet, content, said):
    file = tmp_path / "card.yaml"
    file.write_text(content)
    code, printed = hcoatnet("bundle", pruning_run, tmp_path / "out", "--card", file)
    assert (code, said in printed, (tmp_path / "out").exists()) == (2, True, False)


def test_the_weights_that_training_began_from(study):
    from dataclasses import replace

    from hcoatnet.training.run_directory import RunDirectory

    config = RunDirectory(study / "runs/cnn-scratch-s1-r0-f0").settings()
    vit = timm.create_model("test_vit")
    assert bundling._origin(config, vit) is None
    assert "timm states apache-2.0 for them" in bundling._origin(replace(config, init="pretrained"), vit)
    from_file = bundling._origin(replace(config, init="pretrained:secret/file.pt"), timm.create_model("cnn"))
    assert "not recorded" in from_file and "states no licence" in from_file and "secret" not in from_file


def test_a_study_of_several_models_asks_which(study, tmp_path, hcoatnet):
    code, printed = hcoatnet("bundle", study, tmp_path / "out")
    assert code == 2 and "cnn, test_vit" in printed and "--model" in printed
    code, printed = hcoatnet("bundle", study, tmp_path / "out", "--model", "test_vitt")
    assert code == 2 and "Did you mean test_vit?" in printed
    code, printed = hcoatnet("bundle", study, tmp_path / "out", "--model", "cnn", "--init", "pretrained")
    assert code == 2 and "was not trained from pretrained" in printed
    code, printed = hcoatnet("bundle", study / "runs/cnn-scratch-s1-r0-f0", tmp_path / "out", "--model", "cnn")
    assert code == 2 and "Leave --model" in printed
    assert not (tmp_path / "out").exists()


def test_only_the_chosen_models_runs_must_be_finished(own_study, tmp_path, quick, hcoatnet):
    for run in own_study.glob("runs/test_vit-*"):
        shutil.rmtree(run)
    code, printed = hcoatnet("bundle", own_study, tmp_path / "out", "--model", "test_vit")
    assert code == 2 and "6 of 6 runs of test_vit are not finished" in printed and "study run" in printed
    code, printed = hcoatnet("bundle", own_study, tmp_path / "out", "--model", "cnn")
    assert code == 0, printed
    (own_study / "runs/cnn-scratch-s2-r0-f1/metrics.json").unlink()
    code, printed = hcoatnet("bundle", own_study, tmp_path / "out", "--model", "cnn")
    assert code == 2 and "cnn-scratch-s2-r0-f1" in printed


def test_runs_that_cannot_be_bundled(own_run, manifest_file, tmp_path, quick, hcoatnet):
    out = tmp_path / "out"
    for folder, said in ((tmp_path / "nowhere", "does not exist"), (tmp_path, "neither a study")):
        code, printed = hcoatnet("bundle", folder, out)
        assert code == 2 and said in printed
    config = (own_run / "config.yaml").read_text()
    (own_run / "config.yaml").write_text(config.replace("manifest.csv", "gone/manifest.csv"))
    code, printed = hcoatnet("bundle", own_run, out)
    assert code == 2 and "say with --data" in printed
    assert hcoatnet("bundle", own_run, tmp_path / "moved", "--data", manifest_file)[0] == 0
    (own_run / "config.yaml").write_text(config)
    weights = bytearray((own_run / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (own_run / "weights.safetensors").write_bytes(weights)
    code, printed = hcoatnet("bundle", own_run, out)
    assert code == 2 and "not what its metrics.json describes" in printed
    (own_run / "metrics.json").unlink()
    code, printed = hcoatnet("bundle", own_run, out)
    assert code == 2 and "not finished" in printed
    assert not out.exists()


def test_without_the_extra_nothing_is_written(pruning_run, tmp_path, monkeypatch, hcoatnet):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, printed = hcoatnet("bundle", pruning_run, tmp_path / "out")
    assert code == 2 and "pip install 'hcoatnet[onnx]'" in printed
    assert list(tmp_path.iterdir()) == []


def test_only_an_earlier_bundle_is_replaced(pruning_run, tmp_path, quick, hcoatnet):
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    assert hcoatnet("bundle", pruning_run, out)[0] == 0
    assert hcoatnet("bundle", pruning_run, out, "--licence", "MIT")[0] == 0
    assert Bundle.open(out).licence == "MIT"
    for name in ("notes.txt", ".git"):
        (out / name).touch()
        code, printed = hcoatnet("bundle", pruning_run, out)
        assert code == 2 and name in printed
        (out / name).unlink()
    (out / layout.HASHES).unlink()
    code, printed = hcoatnet("bundle", pruning_run, out)
    assert code == 2 and "no earlier bundle" in printed
    (tmp_path / "file").write_text("mine")
    assert hcoatnet("bundle", pruning_run, tmp_path / "file")[0] == 2
    assert (tmp_path / "file").read_text() == "mine"
    assert hcoatnet("bundle", pruning_run, pruning_run)[0] == 2
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_failure_leaves_the_earlier_bundle_whole(pruning_run, run_bundle, tmp_path, quick, monkeypatch, hcoatnet):
    out = Path(shutil.copytree(run_bundle, tmp_path / "out"))
    before = Bundle.open(out).sha256

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundling, "write_json", full)
    code, printed = hcoatnet("bundle", pruning_run, out)
    assert code == 2 and "No space left" in printed
    assert Bundle.open(out).sha256 == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_same_run_makes_the_same_bundle(pruning_run, tmp_path, quick):
    made = [bundling.make_bundle(pruning_run, tmp_path / name, licence="MIT").bundle for name in ("one", "again")]
    assert made[0].sha256 == made[1].sha256
