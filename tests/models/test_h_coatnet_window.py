from itertools import pairwise

import pytest
import timm
import torch

import hcoatnet.models  # noqa: F401
from hcoatnet.errors import ModelError
from hcoatnet.models import registry
from hcoatnet.models.h_coatnet import SIZES


def build(name="h_coatnet_window", **options):
    torch.manual_seed(0)
    made = timm.create_model(name, **{"backbone": "test_convnext", "num_classes": 5, "img_size": 128, **options})
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in made.named_parameters():
        if parameter_name.endswith(("pos_embed", "query", "gamma")):
            torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return made.double().eval()


def photos(size=128, count=4):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2)).double()


def without_context(model):
    torch.nn.init.zeros_(model.window.context.weight)
    torch.nn.init.zeros_(model.window.context.bias)
    return model


@pytest.mark.parametrize("options", [{"window": 1}, {"window": "4/7", "img_size": 64}])
def test_with_the_whole_map_as_window_it_is_the_uncut_model(options):
    model, plain = without_context(build(**options)), build("h_coatnet", img_size=options.get("img_size", 128))
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("window.")})
    batch = photos(options.get("img_size", 128))
    with torch.no_grad():
        logits, traces = model.forward_with_trace(batch)
        expected, expected_traces = plain.forward_with_trace(batch)
    torch.testing.assert_close(logits, expected)
    assert len(traces) == len(expected_traces) == 2
    assert all(torch.equal(mine.kept, other.kept) for mine, other in zip(traces, expected_traces, strict=True))


@pytest.mark.parametrize("backbone", ["test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("blocks_before", [0, 1, 2])
def test_what_follows_sees_the_window_alone(backbone, blocks_before):
    model = build(backbone=backbone, blocks_before=blocks_before, stages="gate", img_size=160)
    batch = photos(160)
    with torch.no_grad():
        logits, (cut,) = model.forward_with_trace(batch)
        for photo, kept in zip(range(len(batch)), cut.kept, strict=True):
            top, left = 4 * (kept[0] // 5), 4 * (kept[0] % 5)
            x = batch[photo : photo + 1]
            for name in model.early_parts:
                x = model.backbone.get_submodule(name)(x)
            tokens = x.flatten(2).mT + model.pos_embed.flatten(1, 2)
            tokens = model.transformer[:blocks_before](tokens)
            context = model.window(tokens, 20, 20)[1]
            map_ = tokens.unflatten(1, (20, 20))[:, top : top + 12, left : left + 12]
            x = model.transformer[blocks_before:](map_.flatten(1, 2)).mT.unflatten(2, (12, 12))
            for name in model.late_parts:
                x = model.backbone.get_submodule(name)(x)
            tokens = model.hse.gates[0](x.flatten(2).mT + context)
            torch.testing.assert_close(model.head(model.norm(tokens.mean(dim=1))), logits[photo : photo + 1])


def test_tokens_of_the_window_are_those_of_the_uncut_map():
    # With its blocks turned off a ConvNeXt only halves maps, and each last token sees its own 32 × 32 pixels alone.
    options = {"transformer": False, "stages": "none", "img_size": 224}
    model, plain = without_context(build(**options)), build("h_coatnet", **options)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("gamma"):
            torch.nn.init.zeros_(parameter)
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("window.")})
    with torch.no_grad():
        tokens, (cut,) = model.forward_tokens(photos(224))
        uncut, _ = plain.forward_tokens(photos(224))
    assert len({tuple(kept.tolist()) for kept in cut.kept}) > 1
    assert tokens.shape[1] == 16
    assert uncut.shape[1] == 49
    torch.testing.assert_close(tokens, uncut.gather(1, cut.kept.unsqueeze(-1).expand_as(tokens)))


def test_later_cuts_keep_shares_of_the_window_and_name_places_of_the_uncut_map():
    model = build(img_size=224)
    with torch.no_grad():
        tokens, traces = model.forward_tokens(photos(224))
    assert tokens.shape[1] == 8
    assert [(trace.positions.shape[1], trace.kept.shape[1]) for trace in traces] == [(49, 16), (16, 12), (12, 8)]
    for before, after in pairwise(traces):
        assert torch.equal(after.positions, before.kept)
    for trace in traces:
        torch.testing.assert_close(trace.scores.sum(dim=1), torch.ones(4).double())
        for kept, seen in zip(trace.kept.tolist(), trace.positions.tolist(), strict=True):
            assert set(kept) <= set(seen)
        assert (trace.kept.diff(dim=1) > 0).all()


def test_the_importance_learns_from_the_whole_photo():
    model, batch = build(transformer=False), photos().requires_grad_()
    logits, (cut, *_) = model.forward_with_trace(batch)
    logits[:, 0].sum().backward()
    assert model.window.query.grad.abs().min() > 0
    for gradient, kept in zip(batch.grad, cut.kept.tolist(), strict=True):
        seen = gradient.abs().amax(dim=0).unflatten(0, (4, 32)).unflatten(2, (4, 32)).amax(dim=(1, 3)).flatten()
        assert len(kept) == 4
        assert (seen > 0).all(), "pixels outside the window reach the logits through the context"


def test_a_checkpoint_without_a_window_is_taken(tmp_path):
    plain, model = build("h_coatnet"), build()
    path = tmp_path / "plain.pth"
    torch.save(plain.state_dict(), path)
    assert registry.load_weights(model, path) == ("Not in the file, so these parts start random: window.",)
    assert torch.equal(model.head.weight, plain.head.weight)


def test_the_window_saves_two_fifths_of_the_multiply_adds():
    full, cut = (registry.describe(name, 224) for name in ("h_coatnet_tiny", "h_coatnet_window_tiny"))
    assert cut.multiply_adds == 3_203_820_288
    assert full.multiply_adds / cut.multiply_adds > 1.75
    assert cut.parameters - full.parameters == 2 * 192 + 192 + (192 + 1) * 768


def test_every_size_stands_on_its_backbone():
    for size in SIZES:
        with torch.device("meta"):
            model = timm.create_model(f"h_coatnet_window_{size}", num_classes=5)
        assert model.backbone_name == f"convnext_{size}"
    with pytest.raises(ModelError, match="use the model h_coatnet_window instead"):
        build("h_coatnet_window_atto")


def test_names_of_the_parameters_of_the_window():
    # Checkpoints of users depend on these names.
    found = [name for name in build().state_dict() if name.startswith("window.")]
    assert found == [
        f"window.{name}" for name in ("query", "norm.weight", "norm.bias", "context.weight", "context.bias")
    ]


@pytest.mark.parametrize("blocks_before", [-1, 3, "all"])
def test_blocks_before_outside_their_range_are_refused(blocks_before):
    with pytest.raises(ModelError, match="'blocks_before' option must be 0, 1 or 2"):
        build(blocks_before=blocks_before)
