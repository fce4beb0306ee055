"""A run or a bundle, ready to be explained."""

import pytest
import torch

from hcoatnet.errors import BundleError, ConfigError
from hcoatnet.explain.subject import load_subject
from hcoatnet.models import registry
from hcoatnet.seeding import cpu_draws


@pytest.mark.parametrize("source", ["pruning_run", "run_bundle"])
def test_untrained_models_are_the_same_architecture_with_other_weights(source, request):
    subject = load_subject(request.getfixturevalue(source))
    trained = subject.models[0].state_dict()
    one, again, other = (subject.untrained(draw).state_dict() for draw in (0, 0, 1))
    assert {name: tensor.shape for name, tensor in one.items()} == {name: t.shape for name, t in trained.items()}
    assert all(torch.equal(one[name], again[name]) for name in one)
    for different in (trained, other):
        assert not torch.equal(one["head.weight"], different["head.weight"])
    with cpu_draws(0):
        checked = registry.create("h_coatnet", 3, 64, backbone="test_convnext").state_dict()
    assert all(torch.equal(one[name], checked[name]) for name in one)
    assert not subject.untrained(0).training


def test_what_is_known_of_it(pruning_run):
    subject = load_subject(pruning_run)
    assert subject.name == "pruning"
    assert subject.place == "the tokens that are kept, after the last cut"
    assert subject.class_index("green") == 1
    with pytest.raises(ConfigError, match="blue, green, red"):
        subject.class_index("purple")
    photos = torch.zeros(2, 3, 64, 64).numpy()
    sums = sum(subject.probability_of(index)(photos) for index in range(3))
    assert sums == pytest.approx([1, 1])


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(BundleError):
        load_subject(tmp_path)
