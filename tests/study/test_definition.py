import pytest
import yaml

from hcoatnet.errors import ConfigError
from hcoatnet.study.definition import StudyConfig, Variant, joined, overlay, read_study, study_yaml


def written(folder, text):
    file = folder / "study.yaml"
    file.write_text(text)
    return file


GOOD = """
models:
  - cnn
  - {name: small-steps, model: cnn, lr: 1e-4, init: "pretrained:w/own.pth"}
inits: [scratch, "pretrained:w/x.pth"]
seeds: [1, 2]
folds: 0
data: photos/manifest.csv
protocol: quick
"""


def test_a_study_file_is_read_with_its_paths_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    file = written(tmp_path / "sub", GOOD)
    monkeypatch.chdir(tmp_path)
    study = read_study(file.relative_to(tmp_path))
    assert [one.name for one in study.variants] == ["cnn", "small-steps"]
    assert study.inits == ("scratch", "pretrained:sub/w/x.pth")
    assert (study.seeds, study.repeats, study.folds) == ((1, 2), None, (0,))
    assert study.inits_of(study.variant("cnn")) == study.inits
    assert study.inits_of(study.variant("small-steps")) == ("pretrained:sub/w/own.pth",)
    config = study.train_config(study.variant("small-steps"), "scratch", seed=2, fold=1)
    assert (config.lr, config.seed, config.fold, config.protocol) == (1e-4, 2, 1, "quick")
    assert config.data.as_posix() == "sub/photos/manifest.csv"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [", ["not valid YAML", "line 1"]),
        ("- cnn", ["key: value", "list"]),
        ("seeds: [1]", ["names no models", "models: ["]),
        ("modells: cnn", ["'modells'", "study.yaml", "Did you mean 'models'"]),
        ("models: cnn\nmodel: cnn", ["'model'", "Did you mean 'models'"]),
        ("models: cnn\nsede: [1]", ["'sede'", "Did you mean 'seeds'"]),
        ("models: cnn\nfold: 1", ["'fold'", "Did you mean 'folds'"]),
        ("models: cnn\nout: x", ["Unknown key", "'out'"]),
        ("models: cnn\nresume: auto", ["Unknown key", "'resume'"]),
        ("models: cnn\nlrr: 1", ["'lrr'", "Did you mean 'lr'"]),
        ("models: cnn\nlr: fast", ["--lr", "a number", "'fast'"]),
        ("models: []", ["`models` is empty"]),
        ("models: [{model: cnn}]", ["name: mine", "{'model': 'cnn'}"]),
        ("models: [{name: a, model: cnn, lrr: 1}]", ["'lrr'", "model 'a'", "Did you mean 'lr'"]),
        ("models: [{name: a, model: cnn, data: x}]", ["Unknown key of the model 'a'", "'data'"]),
        ("models: [{name: a, model: cnn, seed: 1}]", ["Unknown key of the model 'a'", "'seed'"]),
        ("models: [cnn, cnn]", ["cnn stands twice"]),
        ("models: [a, A]", ["differ in capitals only"]),
        ("models: [cnn, {name: b, model: cnn}]", ["cnn and b are the same configuration"]),
        ("models: [../cnn]", ["'../cnn'", "file name"]),
        ("models: cnn\ninits: [imagenet]", ["scratch, pretrained or pretrained:FILE", "'imagenet'"]),
        ("models: cnn\ninits: ['pretrained:a.pth', 'pretrained:b.pth']", ["`inits` names pretrained twice"]),
        ("models: cnn\nseeds: [1.5]", ["`seeds` must be whole numbers", "1.5"]),
        ("models: cnn\nseeds: [-1]", ["`seeds` must be whole numbers", "-1"]),
        ("models: cnn\nfolds: [true]", ["`folds` must be whole numbers", "True"]),
        ("models: cnn\nseeds: [1, 2, 1]", ["`seeds` names 1 twice"]),
    ],
)
def test_a_wrong_study_file_is_one_clear_error(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        read_study(written(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_flags_win_over_the_file_but_not_over_what_a_row_sets_itself(tmp_path):
    base = read_study(written(tmp_path, GOOD))
    study = overlay(base, seeds=["7,8", "9"], settings={"lr": 0.5, "epochs": 3})
    assert study.seeds == (7, 8, 9)
    rates = {one.name: study.train_config(one, "scratch").lr for one in study.variants}
    assert rates == {"cnn": 0.5, "small-steps": 1e-4}
    assert study.train_config(study.variants[0], "scratch").epochs == 3


def test_the_models_flag_chooses_rows_of_the_file_and_adds_models(tmp_path):
    base = read_study(written(tmp_path, GOOD))
    study = overlay(base, models=["small-steps,test_vit"])
    assert study.variants == (base.variant("small-steps"), Variant("test_vit", {"model": "test_vit"}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "No models are named"),
        ({"models": ["cnn"], "settings": {"fold": 1}}, "Unknown flag: 'fold'. Did you mean 'folds'"),
        ({"models": ["cnn"], "seeds": ["one"]}, "`seeds` must be whole numbers"),
    ],
)
def test_wrong_flags_are_one_clear_error(flags, words):
    with pytest.raises(ConfigError, match=words.replace("?", ".")):
        overlay(None, **flags)


def test_a_study_survives_being_written_and_holds_no_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = read_study(written(tmp_path, GOOD))
    study = overlay(study, settings={"data": tmp_path / "photos" / "manifest.csv", "model_options": ["a=1"]})
    (tmp_path / "out").mkdir()
    text = study_yaml(study, tmp_path / "out")
    assert str(tmp_path) not in text
    assert yaml.safe_load(text)["data"] == "../photos/manifest.csv"
    (tmp_path / "out" / "study.yaml").write_text(text)
    again = read_study(tmp_path / "out" / "study.yaml")
    assert study_yaml(again, tmp_path / "out") == text
    mine, theirs = (one.train_config(one.variant("small-steps"), one.inits[1]) for one in (study, again))
    assert mine.sha256 == theirs.sha256


def test_a_grown_study_has_the_rows_and_seeds_of_both():
    old = StudyConfig((Variant("a", {"model": "cnn"}),), seeds=(1, 2), folds=(0,), settings={"lr": 0.1})
    new = StudyConfig((Variant("b", {"model": "test_vit"}),), seeds=(2, 3), settings={"lr": 0.2})
    grown = joined(old, new)
    assert [one.name for one in grown.variants] == ["a", "b"]
    assert (grown.seeds, grown.folds, grown.settings) == ((1, 2, 3), None, {"lr": 0.2})
    assert joined(None, new) == new


def test_weights_files_of_one_name_in_two_folders_are_two_rows(tmp_path):
    rows = "[{name: a, model: cnn, init: 'pretrained:a/w.pth'}, {name: b, model: cnn, init: 'pretrained:b/w.pth'}]"
    (tmp_path / "study.yaml").write_text(f"models: {rows}")
    assert len(read_study(tmp_path / "study.yaml").variants) == 2
    (tmp_path / "study.yaml").write_text(f"models: {rows.replace('b/w', 'a/w')}")
    with pytest.raises(ConfigError, match="a and b are the same configuration"):
        read_study(tmp_path / "study.yaml")
