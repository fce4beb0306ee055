import math

import pytest
import torch
from torch import nn

from hcoatnet.config import resolve_config
from hcoatnet.training.optimisation import build_average, build_optimizer, build_schedule


def learning_rates(steps_per_epoch=10, **settings):
    config = resolve_config({"lr": 1.0, **settings})
    optimizer = build_optimizer(nn.Linear(2, 2), config)
    schedule = build_schedule(optimizer, config, steps_per_epoch)
    rates = []
    for update in range(config.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step_update(update + 1)
    return rates


def test_cosine_is_the_closed_form():
    rates = learning_rates(epochs=4, schedule="cosine", warmup_epochs=0, min_lr=0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert rates == pytest.approx(expected)


def test_warm_up_is_linear_and_then_the_schedule_goes_on():
    rates = learning_rates(epochs=4, schedule="cosine", warmup_epochs=1, min_lr=0.0)
    assert rates[:10] == pytest.approx([0.001 + 0.999 * step / 10 for step in range(10)])
    assert rates[10:] == pytest.approx([(1 + math.cos(math.pi * step / 40)) / 2 for step in range(10, 40)])


def test_poly_falls_in_a_line_step_by_tenths_and_constant_not_at_all():
    assert learning_rates(epochs=2, schedule="poly", warmup_epochs=0, min_lr=0.0) == pytest.approx(
        [1 - step / 20 for step in range(20)]
    )
    thirds = learning_rates(epochs=3, schedule="step", warmup_epochs=0)
    assert thirds == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)
    assert learning_rates(epochs=3, schedule="constant", warmup_epochs=0) == pytest.approx([1.0] * 30)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimisers_decay_matrices_only(name, kind):
    config = resolve_config({"optimizer": name, "weight_decay": 0.3})
    optimizer = build_optimizer(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), config)
    assert isinstance(optimizer, kind)
    decays = {
        parameter.ndim: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert decays == {1: 0.0, 2: 0.3}


def scales(optimizer, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(one)]: group["lr_scale"] for group in optimizer.param_groups for one in group["params"]}


FAMILIES = {
    "cnn": {}, "test_efficientnet": {}, "test_vit": {}, "swin_atto": {}, "test_coatnet": {}, "gft_tiny": {},
    "test_convnext": {}, "h_coatnet": {"backbone": "test_convnext"}, "h_coatnet_window": {"backbone": "test_convnext"},
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_layer_decay_is_timm_s_for_what_is_pretrained_and_leaves_the_rest_alone(name):
    from timm.optim import create_optimizer_v2

    from hcoatnet.models import registry

    model = registry.create(name, 3, 64, **FAMILIES[name])
    config = resolve_config({"init": "pretrained", "layer_decay": 0.5, "lr": 1.0, "weight_decay": 0.1})
    fresh = registry.random_parameters(model, None)
    mine = build_optimizer(model, config, fresh)
    found = scales(mine, model)
    assert found.keys() == {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert {found[key] for key in fresh & found.keys()} == {1.0}
    base, prefix = (
        (registry.create("test_convnext", 3, 64), "backbone.") if "backbone" in FAMILIES[name] else (model, "")
    )
    theirs = scales(create_optimizer_v2(base, "adamw", lr=1.0, layer_decay=0.5), base)
    shared = [key for key in theirs if prefix + key in found]
    assert len(shared) > 7
    if not hasattr(base, "own_parts"):
        assert all(found[prefix + key] == theirs[key] for key in shared)
    assert min(found.values()) == found[f"{model.default_cfg['first_conv']}.weight"] < 0.5
    decayed = {group["weight_decay"] for group in mine.param_groups for one in group["params"] if one.ndim > 1}
    assert decayed <= {0.0, 0.1}


def test_the_schedule_scales_every_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model.group_matcher = lambda coarse: lambda name: int(name[0])
    config = resolve_config(
        {"init": "pretrained", "layer_decay": 0.5, "lr": 1.0, "epochs": 4, "min_lr": 0.1, "warmup_epochs": 0}
    )
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config, 10)
    for update in range(40):
        schedule.step_update(update)
        rates = {group["lr_scale"]: group["lr"] for group in optimizer.param_groups}
        assert rates[0.5] == pytest.approx(rates[1.0] / 2)
    assert rates[1.0] == pytest.approx(0.1, abs=0.01)


def test_without_layer_decay_the_optimiser_is_the_one_before():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    groups = build_optimizer(model, resolve_config({"weight_decay": 0.3}), {"0.weight"}).param_groups
    assert [len(group["params"]) for group in groups] == [3, 1]
    assert not any("lr_scale" in group for group in groups)


def test_the_average_follows_the_weights():
    model = nn.Linear(1, 1, bias=False)
    assert build_average(model, resolve_config({"ema": 0.0})) is None
    average = build_average(model, resolve_config({"ema": 0.5}))
    expected = None
    for step in range(1, 6):
        nn.init.constant_(model.weight, float(step))
        average.update(step)
        decay = 0.0 if step == 1 else min(0.5, 1 - step ** (-2 / 3))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
        assert average.module.weight.item() == pytest.approx(expected)


def test_the_average_is_timm_s_buffers_included():
    from timm.utils import ModelEmaV3

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    model(torch.randn(4, 3, 8, 8))
    average, reference = build_average(model, resolve_config({"ema": 0.9})), ModelEmaV3(model, 0.9, use_warmup=True)
    optimizer = build_optimizer(model, resolve_config({"lr": 0.1}))
    for step in range(1, 20):
        model(torch.randn(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(step)
        reference.update(model, step=step)
    ours, theirs = average.module.state_dict(), reference.module.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-7)
    assert not torch.equal(ours["0.weight"], model[0].weight)


@pytest.mark.parametrize(("name", "rule"), [("adamw", "adamw"), ("adam", "adam"), ("sgd", "sgd")])
def test_the_fused_optimiser_takes_the_steps_of_the_plain_one(name, rule):
    from timm.optim import create_optimizer_v2

    def trained(fused):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2)).double()
        config = resolve_config({"optimizer": name, "lr": 0.01, "weight_decay": 0.1})
        if fused:
            optimizer = build_optimizer(model, config)
            assert optimizer.defaults["fused"] is True
        else:
            optimizer = create_optimizer_v2(model, opt=rule, lr=0.01, weight_decay=0.1, momentum=0.9, foreach=False)
        photos = torch.randn(20, 6, 5, dtype=torch.float64)
        for batch in photos:
            model(batch).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-10, atol=1e-12)
