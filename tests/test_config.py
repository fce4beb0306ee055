import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from hcoatnet.config import (
    PROTOCOLS,
    Protocol,
    TrainConfig,
    protocol_file,
    resolve_config,
    settings_fields,
    stored_settings,
    write_settings,
)
from hcoatnet.errors import ConfigError


@pytest.fixture
def amended(tmp_path, monkeypatch):
    """Makes another text the protocol ``quick``: its own, with lines added or replaced."""

    def amend(added="", replaced=()):
        text = protocol_file("quick").read_text()
        (tmp_path / "quick.yaml").write_text((text.replace(*replaced) if replaced else text) + added)
        monkeypatch.setattr("hcoatnet.config.protocol_file", lambda name: tmp_path / "quick.yaml")

    return amend


def test_precedence_defaults_protocol_file_flags(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("protocol: paper\nlr: 0.01\nepochs: 7\n")
    config = resolve_config({"epochs": 3}, file)
    assert config.protocol == "paper"
    assert config.epochs == 3  # the flag
    assert config.lr == 0.01  # the file
    assert config.batch_size == 24  # the protocol
    assert config.model == TrainConfig.model  # the default
    assert resolve_config({"protocol": "quick"}, file).protocol == "quick"


def test_the_protocol_wins_over_a_default_and_loses_to_a_flag():
    image_size = Protocol.read("quick").settings["image_size"]
    assert image_size != TrainConfig.image_size
    assert resolve_config({"protocol": "quick"}).image_size == image_size
    assert resolve_config({"protocol": "quick", "image_size": 100}).image_size == 100


def test_what_a_protocol_says_of_pretrained_weights_holds_for_them_alone_and_loses_to_a_file(tmp_path, amended):
    amended("pretrained:\n  lr: 0.0003\n  epochs: 5\n")
    file = tmp_path / "mine.yaml"
    file.write_text("protocol: quick\ninit: pretrained:a.pth\nepochs: 7\n")
    scratch, pretrained = resolve_config({"protocol": "quick"}), resolve_config({}, file)
    assert (scratch.lr, scratch.epochs) == (0.001, 24)
    assert (pretrained.lr, pretrained.epochs) == (0.0003, 7)
    assert resolve_config({"lr": 0.1}, file).lr == 0.1
    assert resolve_config({"init": "scratch"}, file).lr == 0.001


@pytest.mark.parametrize(
    ("settings", "lr"),
    [
        ({"model": "swin_atto"}, 0.02),
        ({"model": "vit"}, 0.02),
        ({"model": "vitamin_small"}, 0.001),
        ({"model": "convnext_atto"}, 0.001),
        ({"model": "swin_atto", "lr": 0.1}, 0.1),
        ({"model": "swin_atto", "init": "pretrained:a.pth"}, 0.0003),
    ],
)
def test_what_a_protocol_says_of_some_models_from_scratch_holds_for_these_alone(settings, lr, amended):
    amended("pretrained: {lr: 0.0003}\nscratch: {models: [vit, vit_*, swin*], lr: 0.02}\n")
    assert resolve_config({"protocol": "quick", **settings}).lr == lr


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("pretrained: {lrr: 1}", "Unknown key in .*quick.yaml: 'lrr'"),
        ("pretrained: [1]", "'pretrained' must hold"),
        ("pretrained: {lr: -1}", "'lr'"),
        ("scratch: {models: [vit], lrr: 1}", "Unknown key in .*quick.yaml: 'lrr'"),
        ("scratch: [1]", "'scratch' must hold"),
        ("scratch: {lr: 0.1}", "under 'models' a list"),
        ("scratch: {models: vit, lr: 0.1}", "under 'models' a list"),
        ("scratch: {models: [vit]}", "'scratch' must hold settings"),
    ],
)
def test_a_mistake_in_what_a_protocol_says_otherwise_is_named(section, message, amended):
    amended(f"{section}\n")
    with pytest.raises(ConfigError, match=message):
        resolve_config({"protocol": "quick"})


def test_strict_takes_smaller_steps_with_networks_of_attention_alone_from_scratch():
    models = ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "gft_tiny", "vit", "swin", "gft")
    assert {resolve_config({"protocol": "strict", "model": one}).lr for one in models} == {5e-4}
    assert resolve_config({"protocol": "strict", "model": "vit", "init": "pretrained"}).lr == 6e-4
    convolutions = ("h_coatnet_tiny", "convnext_atto", "cnn", "efficientnet_b0", "coatnet_0_rw_224")
    assert {resolve_config({"protocol": "strict", "model": one}).lr for one in convolutions} == {1.5e-3}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_names_itself_and_opens_with_command_hardware_time_and_range(name):
    assert len(PROTOCOLS) == 3
    path = protocol_file(name)
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("hcoatnet train", "Hardware", "Time", "Expected"):
        assert any(word in line for line in comment), word
    assert resolve_config({"protocol": name}).protocol == name
    recipe = {
        one.name
        for one in fields(TrainConfig)
        if one.metadata["group"] in ("Optimisation", "Regularisation", "Augmentation")
    }
    left_out = recipe - set(yaml.safe_load(path.read_text())) - {"momentum"}
    assert left_out == set()  # a protocol says all of its recipe


def test_the_paper_protocol_is_the_published_recipe():
    paper = resolve_config({"protocol": "paper"})
    published = {
        "optimizer": "adamw", "lr": 5e-5, "weight_decay": 0.01, "schedule": "cosine", "epochs": 30, "batch_size": 24,
        "image_size": 224, "dropout": 0.2, "class_weights": "inverse", "label_smoothing": 0.1, "seed": 42,
        "val_share": 0.15, "test_share": 0.15, "init": "scratch", "crop_scale": 0.8, "rotation": 15,
        "random_erasing": 0.2, "trivial_augment": True, "horizontal_flip": 0.5, "mixup": 0, "cutmix": 0, "ema": 0,
    }  # fmt: skip
    assert {name: getattr(paper, name) for name in published} == published


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lrr", 1, ["'lrr'", "Did you mean 'lr'"]),
        ("zzzz", 1, ["'zzzz'", "--help"]),
        ("lr", "fast", ["--lr", "a number", "'fast'"]),
        ("lr", -1, ["at least 0", "-1"]),
        ("lr", float("inf"), ["at least 0", "inf"]),
        ("lr", float("nan"), ["at least 0", "nan"]),
        ("epochs", 0, ["at least 1", "0"]),
        ("epochs", 1.5, ["a whole number", "1.5"]),
        ("epochs", True, ["a whole number", "True"]),
        ("dropout", 2, ["[0, 0.95]", "2"]),
        ("channels_last", "no", ["true or false", "'no'"]),
        ("optimizer", "lion", ["adamw, adam, sgd", "'lion'"]),
        ("init", "imagenet", ["scratch, pretrained or pretrained:FILE", "'imagenet'"]),
        ("init", "pretrained:", ["pretrained:FILE"]),
        ("model_options", ["importance"], ["key=value"]),
        ("model_options", {"a": [1]}, ["plain values"]),
        ("model", 3, ["text", "3"]),
        ("protocol", "fair", ["paper, strict, quick", "'fair'"]),
        ("layer_decay", 1.5, ["--layer-decay", "[0.01, 1]"]),
        ("layer_decay", 0.5, ["--layer-decay", "--init scratch", "--init pretrained"]),
        ("frozen_epochs", 2, ["--frozen-epochs", "--init scratch", "--init pretrained"]),
        ("start_size", 50, ["--start-size", "multiple of 32 below the image size of 224", "50"]),
        ("start_size", 224, ["--start-size", "below the image size of 224"]),
    ],
)
def test_a_wrong_setting_is_one_clear_error(key, value, words):
    with pytest.raises(ConfigError) as caught:
        resolve_config({key: value})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: [", ["not valid YAML", "line 1"]),
        ("- lr", ["key: value", "list"]),
        ("lrr: 1", ["'lrr'", "mine.yaml", "Did you mean 'lr'"]),
        ("!!python/object/apply:os.system ['true']", ["not valid YAML"]),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, text, words):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve_config({}, file)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_some_epoch_is_left_for_all_to_learn_in():
    settings = {"init": "pretrained", "epochs": 3}
    assert resolve_config({**settings, "frozen_epochs": 2}).frozen_epochs == 2
    with pytest.raises(ConfigError, match=r"--frozen-epochs.* fewer than the 3 epochs.* 3 instead"):
        resolve_config({**settings, "frozen_epochs": 3})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read the config file .*none\.yaml: No such file"):
        resolve_config({}, tmp_path / "none.yaml")


def test_shares_must_leave_photos_to_train_on():
    with pytest.raises(ConfigError, match="leave 10% of the photos"):
        resolve_config({"val_share": 0.5, "test_share": 0.4})


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("lr: 1e-3\n")
    assert yaml.safe_load(file.read_text()) == {"lr": "1e-3"}
    assert resolve_config({}, file).lr == 1e-3


def test_options_are_given_as_pairs_or_as_a_mapping(tmp_path):
    expected = {"importance": "norm", "stage1_repeats": 3, "flag": True}
    assert (
        resolve_config({"model_options": ["importance=norm", "stage1_repeats=3", "flag=true"]}).model_options
        == expected
    )
    file = tmp_path / "mine.yaml"
    file.write_text("model_options: {importance: norm, stage1_repeats: 3, flag: true}")
    assert resolve_config({}, file).model_options == expected


def test_paths_in_a_file_are_relative_to_it_and_survive_a_round_trip(tmp_path, monkeypatch):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = resolve_config({"data": "photos/manifest.csv", "split": "splits/s.csv", "init": "pretrained:w/x.pth"})
    file = Path("runs/a/config.yaml")
    write_settings(config, file)
    stored = yaml.safe_load(file.read_text())
    assert stored["data"] == "../../photos/manifest.csv"
    assert stored["split"] == "../../splits/s.csv"
    assert stored["init"] == "pretrained:../../w/x.pth"
    assert resolve_config({}, file) == config
    monkeypatch.chdir(tmp_path / "runs")
    assert resolve_config({}, Path("a/config.yaml")).data == Path("../photos/manifest.csv")


def test_every_setting_survives_a_round_trip(tmp_path):
    config = resolve_config(
        {"protocol": "quick", "model_options": {"importance": "norm"}, "out": str(tmp_path / "x"), "compile": "true"}
    )
    write_settings(config, tmp_path / "config.yaml")
    assert replace(resolve_config({}, tmp_path / "config.yaml"), out=config.out) == config


def test_a_choice_may_be_written_as_yaml_s_true_and_false(tmp_path):
    (tmp_path / "config.yaml").write_text("compile: true\n")
    assert resolve_config({}, tmp_path / "config.yaml").compile == "true"
    assert resolve_config({"compile": False}).compile == "false"
    assert resolve_config({}).compile == "auto"


def test_the_digest_follows_the_recipe_and_nothing_else():
    base = resolve_config({})
    same = {"seed": 7, "fold": 2, "repeat": 1, "device": "cpu", "workers": 3, "out": "x", "data": "y", "split": "z",
            "cache": False, "cache_folder": "c", "cache_limit": 1}  # fmt: skip
    for name, value in same.items():
        assert resolve_config({name: value}).sha256 == base.sha256, name
    other = {"lr": 0.5, "model": "cnn", "init": "pretrained", "epochs": 2, "image_size": 64, "model_options": {"a": 1}}
    digests = {resolve_config({name: value}).sha256 for name, value in other.items()}
    assert len(digests | {base.sha256}) == len(other) + 1


FIRST_RECIPE = {
    "protocol": "quick", "model": "cnn", "model_options": {}, "init": "scratch", "probe": False, "val_share": 0.15,
    "test_share": 0.15, "split_seed": 42, "image_size": 96, "epochs": 24, "batch_size": 16, "accumulation": 1,
    "optimizer": "adamw", "lr": 0.001, "momentum": 0.9, "weight_decay": 0.05, "schedule": "cosine",
    "warmup_epochs": 2.0, "min_lr": 0.0, "clip_grad": 1.0, "ema": 0.0, "monitor": "macro_f1", "class_weights": "sqrt",
    "sampler": "shuffle", "label_smoothing": 0.05, "dropout": 0.1, "drop_path": 0.0, "mixup": 0.0, "cutmix": 0.0,
    "crop_scale": 0.8, "horizontal_flip": 0.5, "vertical_flip": 0.5, "rotation": 0.0, "trivial_augment": False,
    "random_erasing": 0.0, "precision": "auto", "channels_last": True, "compile": False, "deterministic": False,
}  # fmt: skip
"""What the first studies had their digests of."""


def test_digests_of_the_first_studies_stay_and_later_settings_change_them_only_when_on():
    digest = hashlib.sha256(json.dumps(FIRST_RECIPE, sort_keys=True).encode()).hexdigest()
    for compiled in ("auto", "true", "false"):
        assert resolve_config({**FIRST_RECIPE, "compile": compiled}).sha256 == digest
    pretrained = {**FIRST_RECIPE, "init": "pretrained"}
    on = [{}, {"layer_decay": 0.5}, {"frozen_epochs": 1}, {"start_size": 64}]
    assert len({resolve_config({**pretrained, **one}).sha256 for one in on}) == 4


def test_what_a_stored_run_lacks_is_at_its_default_and_no_difference(tmp_path, amended):
    old = tmp_path / "config.yaml"
    old.write_text(yaml.safe_dump({**FIRST_RECIPE, "init": "pretrained"}))
    amended(replaced=("layer_decay: 1.0", "layer_decay: 0.5"))
    assert resolve_config({"protocol": "quick", "init": "pretrained"}).layer_decay == 0.5
    stored = resolve_config(stored_settings(old))
    assert (stored.layer_decay, stored.frozen_epochs, stored.start_size, stored.compile) == (1.0, 0, 0, "false")
    assert replace(stored, compile="auto").differences(stored) == []


def test_differences_name_what_identifies_a_run_and_nothing_else():
    stored = resolve_config({"lr": 0.1, "seed": 1, "device": "cpu"})
    mine = resolve_config({"lr": 0.2, "seed": 2, "device": "cuda", "data": "x", "out": "y"})
    assert mine.differences(stored) == ["--lr is 0.2, was 0.1", "--seed is 2, was 1"]
    assert mine.differences(mine) == []


def test_every_setting_is_documented():
    described = settings_fields()
    assert len(described) == len(fields(TrainConfig)) >= 40
    for one, _ in described:
        assert len(one.metadata["help"]) > 5, one.name
