"""One optimiser step: what it computes, and that it never makes a GPU wait."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hcoatnet.config import resolve_config
from hcoatnet.training.loop import Learner, MicroBatch
from hcoatnet.training.objective import Objective
from hcoatnet.training.preparation import build_accelerator
from hcoatnet.training.trial import trial_step


class Reads(TorchDispatchMode):
    """Collects operations that read a value from the device, for which the host waits."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, kinds, args=(), kwargs=None):
        name = str(function)
        if any(word in name for word in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default", "unique")):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def learner(dtype=torch.float32, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)).to(dtype)
    chosen = resolve_config({"image_size": 16, "device": "cpu", "compile": "false", "lr": 0.01, **settings})
    return Learner(model, chosen, build_accelerator(chosen), 10)


def batch(size, seed=0, dtype=torch.float32, counts=True):
    draws = torch.Generator().manual_seed(seed)
    photos = torch.randn(size, 3, 8, 8, generator=draws, dtype=dtype)
    return MicroBatch(photos, torch.eye(3)[torch.arange(size) % 3], counts)


@pytest.mark.parametrize("settings", [{}, {"clip_grad": 1.0, "ema": 0.9}, {"optimizer": "sgd", "ema": 0.9}])
def test_a_step_reads_nothing_from_the_device(settings):
    chosen = learner(**settings)
    objective = Objective(torch.tensor([1.0, 2.0, 3.0]), 0.1)
    chosen.step([batch(5)], objective)
    with Reads() as reads:
        chosen.step([batch(5), batch(4)], objective)
        assert reads.seen == []
        float(torch.zeros(()))
        assert reads.seen != []


def test_a_step_is_the_textbook_s():
    objective = Objective(torch.tensor([1.0, 2.0, 3.0]), 0.1)
    chosen = learner(torch.float64, optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup_epochs=0, clip_grad=0.0)
    reference = learner(torch.float64, optimizer="sgd").model
    group = [batch(5, 1, torch.float64), batch(2, 2, torch.float64)]
    photos = torch.cat([one.photos for one in group])
    labels = torch.cat([one.targets for one in group]).argmax(1)
    weights = objective.weights.double()
    loss = nn.functional.cross_entropy(reference(photos), labels, weight=weights, label_smoothing=0.1)
    loss.backward()
    rate = chosen.optimizer.param_groups[0]["lr"]
    told = chosen.step(group, objective)
    torch.testing.assert_close(told.double(), loss.detach(), rtol=1e-6, atol=0)
    for mine, theirs in zip(chosen.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - rate * theirs.grad, rtol=1e-9, atol=1e-12)


def test_photos_that_do_not_count_change_nothing():
    objective = Objective(torch.tensor([1.0, 2.0, 3.0]), 0.1)
    blank = MicroBatch(batch(1, 5).photos, torch.zeros(1, 3), counts=False)
    one, other = learner(), learner()
    told = [one.step([batch(5)], objective), other.step([batch(5), blank], objective)]
    torch.testing.assert_close(*told)
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_a_trial_step_leaves_no_trace_and_tells_what_is_out_of_use():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.head = nn.Linear(3, 2)
            self.idle = nn.Parameter(torch.ones(1))

        def forward(self, photos):
            return self.head(nn.functional.dropout(self.norm(photos), 0.5, self.training).mean((2, 3)))

    model = Model().eval()
    chosen = resolve_config({"image_size": 16})
    state = torch.get_rng_state()
    assert trial_step(model, model, chosen, 2) == ["idle"]
    assert torch.equal(torch.get_rng_state(), state)
    assert model.norm.num_batches_tracked == 0
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(ZeroDivisionError):
        trial_step(model, lambda photos: 1 / 0, chosen, 2)
    assert not model.training


@pytest.mark.parametrize(("has", "chosen"), [(True, "bf16"), (False, "no")])
def test_auto_precision_follows_the_processor(monkeypatch, has, chosen):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    auto = resolve_config({"device": "cpu"})
    assert build_accelerator(auto).mixed_precision == chosen
    for asked, made in (("fp32", "no"), ("bf16", "bf16")):
        assert build_accelerator(resolve_config({"device": "cpu", "precision": asked})).mixed_precision == made
