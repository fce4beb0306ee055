"""Parts that start random and parts with pretrained weights, which settings can spare."""

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file

from conftest import TINY
from hcoatnet.config import resolve_config
from hcoatnet.errors import ModelError
from hcoatnet.models import registry
from hcoatnet.training.loop import Learner
from hcoatnet.training.preparation import build_accelerator
from hcoatnet.training.run import build_model, train


@pytest.fixture(scope="module")
def backbones(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in ("test_convnext", "test_efficientnet"):
        torch.manual_seed(7)
        save_file(timm.create_model(name, num_classes=4).state_dict(), folder / f"{name}.safetensors")
    return folder


def parts(names):
    return {name.partition(".")[0] for name in names}


def test_what_starts_random_is_what_the_weights_lack(backbones, tmp_path):
    file = backbones / "test_efficientnet.safetensors"
    model = registry.create("h_coatnet", 3, 32, backbone="test_efficientnet")
    own = {"pos_embed", "transformer", "hse", "norm", "head"}
    assert parts(registry.random_parameters(model, None)) == own
    assert parts(registry.random_parameters(model, file)) == own
    plain = registry.create("test_efficientnet", 3, 32)
    assert parts(registry.random_parameters(plain, None)) == parts(registry.random_parameters(plain, file)) == {
        "classifier"
    }  # fmt: skip
    save_file(model.state_dict(), tmp_path / "whole.safetensors")
    assert parts(registry.random_parameters(model, tmp_path / "whole.safetensors")) == {"head"}


def test_frozen_parts_keep_weights_and_statistics_until_they_are_freed(backbones):
    file = backbones / "test_efficientnet.safetensors"
    settings = {**TINY, "model": "h_coatnet", "model_options": {"backbone": "test_efficientnet"}, "epochs": 2}
    config = resolve_config({**settings, "init": f"pretrained:{file}", "frozen_epochs": 1, "weight_decay": 0.5})
    model, _ = build_model(config, 3)
    fresh = registry.random_parameters(model, file)
    learner = Learner(model, config, build_accelerator(config), 10, fresh)
    changed = []
    for epoch in range(2):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        learner.begin_epoch(epoch)
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        learner.prepared_optimizer.step()
        learner.prepared_optimizer.zero_grad()
        changed.append({name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])})
    assert changed[0] and changed[0] <= fresh
    assert changed[1] >= {"backbone.conv_stem.weight", "backbone.bn1.running_mean", "backbone.bn1.weight"}


SETTINGS = {
    **TINY, "warmup_epochs": 4, "model": "h_coatnet", "model_options": {"backbone": "test_convnext"}, "image_size": 64, "epochs": 3,
    "deterministic": True, "evaluate_test": False, "layer_decay": 0.7, "frozen_epochs": 1, "start_size": 32, "ema": 0.5,
    "accumulation": 2, "precision": "fp32",
}  # fmt: skip


@pytest.mark.slow
def test_a_resumed_run_equals_one_never_stopped(backbones, manifest_file, tmp_path, monkeypatch):
    given = {**SETTINGS, "init": f"pretrained:{backbones / 'test_convnext.safetensors'}", "data": manifest_file}
    whole = train(resolve_config({**given, "out": tmp_path / "whole"}))
    rates = pd.read_csv(whole.history_file)["learning_rate"]
    warmed = [0.001 + 0.999 * epoch / 4 for epoch in (1, 2, 3)]  # the classifier's, which layer decay leaves alone
    assert rates.to_numpy() == pytest.approx([given["lr"] * share for share in warmed])
    for stop in (1, 2):
        out = tmp_path / f"stopped{stop}"
        begin = Learner.begin_epoch

        def until(self, epoch, begin=begin, stop=stop):
            if epoch == stop:
                raise KeyboardInterrupt
            begin(self, epoch)

        with monkeypatch.context() as patch:
            patch.setattr(Learner, "begin_epoch", until)
            with pytest.raises(KeyboardInterrupt):
                train(resolve_config({**given, "out": out}))
        resumed = train(resolve_config({**given, "out": out, "resume": "auto"}))
        assert resumed.weights_file.read_bytes() == whole.weights_file.read_bytes()
        one, other = (torch.load(run.state_file, weights_only=True) for run in (whole, resumed))
        assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_atto", "gft_tiny"])
def test_models_of_one_size_cannot_begin_small(name, manifest_file, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ModelError, match=r"one size and cannot begin with photos of 32 × 32 pixels.*--start-size"):
        train(resolve_config({**TINY, "model": name, "image_size": 64, "start_size": 32, "epochs": 2,
                              "data": manifest_file, "out": out}))  # fmt: skip
    assert not out.exists()


def test_models_that_take_any_size_can():
    for name in ("cnn", "convnext_atto", "efficientnet_b0", "h_coatnet_atto", "h_coatnet_window_atto"):
        registry.require_sizes(name, 128, [32, 64, 96, 128], num_classes=3)
