import torch
from hypothesis import given
from hypothesis import strategies as st

from hcoatnet.seeding import Purpose, cpu_draws, derive, deterministic_algorithms, seed_everything

numbers = st.integers(0, 2**31 - 1)


@given(numbers, numbers, numbers)
def test_a_seed_depends_on_run_purpose_and_place(seed, epoch, index):
    one = derive(seed, Purpose.AUGMENTATION, epoch, index)
    assert one == derive(seed, Purpose.AUGMENTATION, epoch, index)
    assert 0 <= one < 2**63
    others = {
        derive(seed, Purpose.MIXING, epoch, index),
        derive(seed + 1, Purpose.AUGMENTATION, epoch, index),
        derive(seed, Purpose.AUGMENTATION, epoch + 1, index),
        derive(seed, Purpose.AUGMENTATION, epoch, index + 1),
    }
    assert one not in others


def test_draws_inside_do_not_move_the_generator_outside():
    seed_everything(1)
    expected = torch.rand(4)
    seed_everything(1)
    first = torch.rand(2)
    with cpu_draws(99):
        inside = torch.rand(3)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
    with cpu_draws(99):
        assert torch.equal(torch.rand(3), inside)


def test_deterministic_algorithms_end_with_the_context():
    before = torch.are_deterministic_algorithms_enabled()
    with deterministic_algorithms(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before
    with deterministic_algorithms(False):
        assert torch.are_deterministic_algorithms_enabled() == before
