import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hcoatnet.seeding import cpu_draws
from hcoatnet.training.objective import Objective, class_weights, mix_batch


def test_class_weights_in_closed_form():
    counts = [10, 30, 60]
    assert class_weights(counts, "none").tolist() == [1, 1, 1]
    assert class_weights(counts, "inverse").tolist() == pytest.approx([100 / 30, 100 / 90, 100 / 180])
    assert class_weights(counts, "sqrt").tolist() == pytest.approx(
        [(100 / 30) ** 0.5, (100 / 90) ** 0.5, (100 / 180) ** 0.5]
    )
    raw = [0.001 / (1 - 0.999**n) for n in counts]
    assert class_weights(counts, "effective").tolist() == pytest.approx([3 * one / sum(raw) for one in raw])


@given(st.integers(0, 10**6), st.integers(2, 7), st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=50, deadline=None)
def test_hard_targets_give_pytorch_s_weighted_mean(seed, classes, photos, smoothing):
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(photos, classes, generator=draws)
    labels = torch.randint(classes, (photos,), generator=draws)
    weights = torch.rand(classes, generator=draws) + 0.1
    objective = Objective(weights, smoothing)
    targets = functional.one_hot(labels, classes).float()
    ours = objective.weighted_sum(logits, targets) / objective.total_weight(targets)
    reference = functional.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(ours, reference)


def test_micro_batches_add_up_to_the_whole():
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(10, 4, generator=draws), torch.rand(10, 4, generator=draws).softmax(1)
    objective = Objective(torch.tensor([0.5, 1.0, 2.0, 3.0]), 0.1)
    parts = [slice(0, 3), slice(3, 4), slice(4, 10)]
    total = sum(objective.weighted_sum(logits[part], targets[part]) for part in parts)
    weight = sum(objective.total_weight(targets[part]) for part in parts)
    torch.testing.assert_close(
        total / weight, objective.weighted_sum(logits, targets) / objective.total_weight(targets)
    )


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing_mixes_targets_in_the_share_of_the_pixels(mixup, cutmix):
    photos = torch.eye(4)[:, :3].reshape(4, 3, 1, 1).expand(4, 3, 16, 16).contiguous()  # the fourth photo is black
    targets = torch.eye(4)
    kinds = set()
    for seed in range(30):
        with cpu_draws(seed):
            mixed, mixed_targets = mix_batch(photos, targets, mixup, cutmix)
        torch.testing.assert_close(mixed_targets.sum(1), torch.ones(4))
        torch.testing.assert_close(mixed.mean((2, 3)), mixed_targets[:, :3], atol=1e-6, rtol=0)
        kinds.add("cutmix" if set(mixed.unique().tolist()) <= {0.0, 1.0} else "mixup")
    assert kinds == {name for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha}


def test_no_mixing_is_the_identity():
    photos, targets = torch.rand(2, 3, 4, 4), torch.eye(2)
    mixed, mixed_targets = mix_batch(photos, targets, 0.0, 0.0)
    assert mixed is photos
    assert mixed_targets is targets
