from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import hcoatnet.models  # noqa: F401
from hcoatnet.errors import ModelError
from hcoatnet.models.gft import FocalStage, GradientAttention, checkpoint_filter_fn, spatial_gradient
from hcoatnet.models.token_pruning import as_distribution


def tiny(img_size=96, **options):
    torch.manual_seed(0)
    return timm.create_model("gft_tiny", num_classes=5, img_size=img_size, **options).eval()


def photos(size=96, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@settings(deadline=None)
@given(values=hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, min_side=2), elements=st.floats(-9, 9)))
def test_spatial_gradient_equals_numpy(values):
    np.testing.assert_allclose(spatial_gradient(torch.from_numpy(values)).numpy(), np.gradient(values, axis=-1))


def test_spatial_gradient_of_one_patch_is_zero():
    assert spatial_gradient(torch.ones(2, 3, 1)).tolist() == torch.zeros(2, 3, 1).tolist()


@pytest.mark.parametrize(("size", "kept"), [(224, [147, 98, 49]), (96, [27, 18, 9]), (32, [3, 2, 1])])
def test_stages_keep_75_50_and_25_percent_of_the_original_patches(size, kept):
    with torch.no_grad():
        model = tiny(size)
        _, traces = model.forward_with_trace(photos(size))
        assert model.forward_features(photos(size)).shape == (2, 1 + kept[-1], 192)
    assert [trace.kept.shape[1] for trace in traces] == kept
    for earlier, later in pairwise(traces):
        assert torch.equal(later.positions, earlier.kept)
    for trace in traces:
        assert (trace.kept.diff(dim=1) > 0).all()
        torch.testing.assert_close(trace.scores.sum(dim=1), torch.ones(2))
        chosen = torch.isin(trace.positions[0], trace.kept[0])
        assert trace.scores[0, chosen].min() >= trace.scores[0, ~chosen].max()


def test_gradient_attention_by_hand():
    torch.manual_seed(0)
    attention = GradientAttention(8, num_heads=2).double().eval()
    torch.nn.init.normal_(attention.smoothing)
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        output, importance = attention(x)
        normed = attention.norm(x)[0].numpy()
        qkv = normed @ attention.qkv.weight.T.numpy() + attention.qkv.bias.numpy()
        proj, bias = attention.proj.weight.numpy(), attention.proj.bias.numpy()
        kernel = attention.smoothing.numpy()
    mixed, change = [], np.zeros(6)
    for head in range(2):
        query, key, value = (qkv[:, 8 * part + 4 * head : 8 * part + 4 * head + 4] for part in range(3))
        weights = np.exp(query @ key.T / 2)
        weights /= weights.sum(axis=1, keepdims=True)
        mixed.append(weights @ value)
        change += np.abs(np.gradient(7 * weights.mean(axis=0)[1:]))
    np.testing.assert_allclose(output[0].numpy(), x[0].numpy() + np.hstack(mixed) @ proj.T + bias)
    np.testing.assert_allclose(importance[0].numpy(), np.correlate(np.pad(change, 1), kernel, "valid"))


def focal_stage(importance_ema=False):
    torch.manual_seed(0)
    return FocalStage(8, 2, Fraction(1, 2), total=6, drop_path=0.0, importance_ema=importance_ema)


def test_the_cut_leaves_values_and_order_and_teaches_the_smoothing():
    stage = focal_stage()
    x = torch.randn(2, 7, 8)
    attended, _ = stage.attention(x)
    output, trace = stage(x, torch.arange(6).expand(2, 6))
    for i in range(2):
        assert torch.equal(output[i], attended[i, [0, *(1 + trace.kept[i])]])
    output[:, 1:].square().sum().backward()
    assert stage.attention.smoothing.grad.abs().min() > 0


def test_only_the_last_smoothing_is_fixed():
    model = tiny().train()
    model(photos()).square().sum().backward()
    first, second, last = (stage.attention.smoothing for stage in model.stages)
    assert first.grad.any()
    assert second.grad.any()
    assert not last.requires_grad


def test_running_importance_is_blended_in_training_only():
    stage, plain = focal_stage(importance_ema=True), focal_stage()
    x, positions = torch.randn(3, 4, 8), torch.tensor([[0, 1, 2], [0, 2, 5], [0, 1, 5]])
    with torch.no_grad():
        _, importance = stage.attention(x)
        stage.train()(x, positions)
        first = 0.1 * np.array(
            [
                importance[:, 0].mean().item(),
                importance[[0, 2], [1, 1]].mean().item(),
                importance[[0, 1], [2, 1]].mean().item(),
                0,
                0,
                importance[[1, 2], [2, 2]].mean().item(),
            ]
        )
        np.testing.assert_allclose(stage.selection.running_importance.numpy(), first, rtol=1e-5)

        _, trace = stage(x, positions)
        blended = 0.9 * torch.from_numpy(first).float()[positions] + 0.1 * importance
        torch.testing.assert_close(trace.scores, as_distribution(blended, 0.1))
        second = stage.selection.running_importance.clone()
        np.testing.assert_allclose(second.numpy(), 1.9 * first, rtol=1e-5)

        output, trace = stage.eval()(x, positions)
        expected, plain_trace = plain.eval()(x, positions)
        assert torch.equal(output, expected)
        assert torch.equal(trace.scores, plain_trace.scores)
        assert torch.equal(stage.selection.running_importance, second)


def test_the_running_importance_is_off_by_default_and_kept_with_the_weights():
    assert not list(tiny().buffers())
    buffers = dict(tiny(importance_ema=True).named_buffers())
    assert {name: tuple(buffer.shape) for name, buffer in buffers.items()} == {
        f"stages.{i}.selection.running_importance": (36,) for i in range(3)
    }
    assert buffers.keys() <= tiny(importance_ema=True).state_dict().keys()


def test_the_ordinary_blocks_are_those_of_a_vision_transformer():
    vision_transformer = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=224).eval()
    model = tiny()
    state = checkpoint_filter_fn(vision_transformer.state_dict(), model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert {name.split(".")[0] for name in missing} == {"stages"}
    assert {".".join(name.split(".")[:2]) for name in unexpected} == {f"blocks.{i}" for i in range(8, 12)}

    at_96 = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=96).eval()
    at_96.load_state_dict({**vision_transformer.state_dict(), "pos_embed": state["pos_embed"]})
    with torch.no_grad():
        _, (expected,) = at_96.forward_intermediates(photos(), indices=[7], return_prefix_tokens=True, output_fmt="NLC")
        tokens = []
        model.stages[0].register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0]))
        model(photos())
    torch.testing.assert_close(tokens[0][:, 1:], expected[0])
    torch.testing.assert_close(tokens[0][:, :1], expected[1])


def test_drop_path_rises_to_the_rate():
    model = tiny(drop_path_rate=0.5)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.blocks]
    rates += [stage.attention.drop_path.drop_prob for stage in model.stages]
    assert rates == pytest.approx([0.05 * i for i in range(11)])


@pytest.mark.parametrize(
    ("options", "message"), [({"importance_ema": "yes"}, "true or false"), ({"global_pool": "avg"}, "'token'")]
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ModelError, match=message):
        tiny(**options)
