import json
import re

import pandas as pd
import pytest

from conftest import TINY, flags
from hcoatnet.errors import ConfigError
from hcoatnet.models import registry
from hcoatnet.models.ablations import ABLATIONS
from hcoatnet.models.token_pruning import IMPORTANCES
from hcoatnet.study.ablation import VARIED, ablation_variants, chosen_rows


def options_of(variants):
    return {one.name: one.settings["model_options"] for one in variants}


def test_every_row_is_there_once_and_the_double_one_is_said():
    variants, notes = ablation_variants("h_coatnet_tiny", {}, 64)
    names = [one.name for one in variants]
    assert names == [*ABLATIONS, "full-gradient", "full-raw_norm", "full-random", "full-none", "full-stage1x3"]
    assert notes == ("full-norm is the same model as A5; it is trained once.",)
    assert {f"full-{name}" for name in IMPORTANCES} - set(names) == {"full-norm"}


def test_the_rows_are_the_published_models():
    """Parameter counts of the published table, from the options that the study trains with."""
    variants, _ = ablation_variants("h_coatnet_tiny", {}, 224)
    for name, options in options_of(variants).items():
        expected = ABLATIONS[name].parameters if name in ABLATIONS else ABLATIONS["A5"].parameters
        model = registry.create("h_coatnet_tiny", 5, 224, **options)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected, name


def test_the_shared_options_are_in_every_row_and_what_the_backbone_lacks_is_said():
    variants, notes = ablation_variants("h_coatnet", {"backbone": "test_efficientnet"}, 64)
    assert all(options["backbone"] == "test_efficientnet" for options in options_of(variants).values())
    assert "full-stage1x3" not in options_of(variants)
    assert any(note.startswith("full-stage1x3 is left out: The 'stage1_repeats' option") for note in notes)


@pytest.mark.parametrize("name", VARIED)
def test_what_the_ablation_varies_cannot_be_set(name):
    with pytest.raises(ConfigError, match=f"sets {name} itself"):
        ablation_variants("h_coatnet_atto", {name: 1}, 64)


def test_rows_can_be_chosen():
    variants, _ = ablation_variants("h_coatnet_atto", {}, 64)
    assert [one.name for one in chosen_rows(variants, ["A5", "A0"])] == ["A5", "A0"]
    assert chosen_rows(variants, []) == variants
    with pytest.raises(ConfigError, match=r"no row 'A8' in the ablation. The rows are: A0, A1"):
        chosen_rows(variants, ["A8"])


def test_ablate_takes_what_spares_pretrained_weights(manifest_file, folds_file, hcoatnet, tmp_path):
    tokens = ["ablate", "--data", manifest_file, "--split", folds_file, "--out", tmp_path / "s", "--image-size", 64]
    missing = ["--inits", f"pretrained:{tmp_path / 'no.pth'}", "--rows", "A0"]
    code, printed = hcoatnet(*tokens, *missing, "--layer-decay", 0.75)
    assert (code, "there is no such file" in printed) == (2, True), printed
    code, printed = hcoatnet(*tokens, "--rows", "A0", "--layer-decay", 0.75)
    assert (code, "spares pretrained weights" in printed) == (2, True), printed


def test_ablate_is_a_study(manifest_file, folds_file, hcoatnet, in_process, tmp_path):
    out = tmp_path / "s"
    tokens = ["ablate", "--data", manifest_file, "--split", folds_file, "--out", out, *flags(TINY | {"image_size": 64})]
    code, printed = hcoatnet(*tokens, "--rows", "A5,full-gradient", "--folds", "1")
    assert code == 0, printed
    assert "full-norm is the same model as A5" in printed
    table = pd.read_csv(out / "plan.csv")
    assert table["model"].value_counts().to_dict() == {"A5": 1, "full-gradient": 1}
    assert table["config_sha256"].nunique() == 2
    code, printed = hcoatnet("study", "run", "--out", out)
    assert "All 2 cells are finished already" in printed
    code, printed = hcoatnet("compare", out, "--reference", "full-gradient", "--draws", "200")
    assert code == 0, printed
    assert re.search(r"ECE.*wrong at p ≥ 0\.9", printed)
    written = json.loads((out / "results" / "comparison.json").read_text())
    assert set(written["confident_errors"]["share"]) == {"A5", "full-gradient", "majority"}


def test_only_h_coatnet_is_taken_apart(manifest_file, hcoatnet, tmp_path):
    code, printed = hcoatnet("ablate", "--data", manifest_file, "--model", "cnn", "--out", tmp_path / "s")
    assert code == 2
    assert "cnn takes no option" in printed
    assert not (tmp_path / "s").exists()
