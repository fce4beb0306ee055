"""The linear probe, against scikit-learn's own pipeline."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import flags
from hcoatnet.config import resolve_config
from hcoatnet.data.images import open_photo, preprocess
from hcoatnet.evaluation.predictions import read_predictions
from hcoatnet.training.probe import fit_head
from hcoatnet.training.run import train

SETTINGS = {"protocol": "quick", "model": "test_vit", "image_size": 32, "device": "cpu", "workers": 0, "probe": True}


@pytest.mark.parametrize("classes", [2, 4])
def test_the_head_is_scikit_learns_regression_on_standardised_features(classes):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % classes
    features = rng.normal(size=(60, 5)) * [1, 10, 0.1, 3, 1] + labels[:, None]
    features[:, 4] = 7.0  # a constant feature must not divide by zero
    weights = {index: 1.0 + index for index in range(classes)}
    head = fit_head(features, labels, 0.5, weights)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000, class_weight=weights))
    expected = pipeline.fit(features, labels).predict_proba(features)
    logits = torch.from_numpy(head.logits(features))
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), expected, atol=1e-6)


@pytest.fixture(scope="module")
def probed(manifest_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "run"
    return train(resolve_config({**SETTINGS, "data": manifest_file, "out": out}))


def test_a_probe_is_a_finished_run_with_one_row_of_history(probed):
    results = probed.results()
    assert (results["epochs"], results["best_epoch"]) == (1, 1)
    history = pd.read_csv(probed.history_file)
    assert len(history) == 1
    assert history["val_macro_f1"][0] == pytest.approx(results["subsets"]["val"]["macro_f1"]["value"])
    assert "Linear probe on" in probed.log_file.read_text()


def test_its_network_is_the_one_it_began_with(probed, manifest_file):
    from hcoatnet.training.checkpoint import load_weights
    from hcoatnet.training.run import build_model

    config = probed.settings()
    fresh, _ = build_model(config, 3)
    trained, _ = build_model(config, 3)
    load_weights(trained, probed.weights_file)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]) != name.startswith("head."), name


def test_its_predictions_are_those_of_scikit_learn_on_the_same_features(probed, manifest_file):
    from hcoatnet.training.run import build_model

    model, _ = build_model(probed.settings(), 3)
    model.eval()
    split = pd.read_csv(probed.split_file, dtype=str)
    labels = pd.read_csv(manifest_file, dtype=str).set_index("path")["label"]

    def features(subset):
        paths = split.loc[split["subset"] == subset, "path"]
        photos = np.stack([preprocess(open_photo(manifest_file.parent / path), 32) for path in paths])
        with torch.no_grad():
            maps = model.forward_head(model.forward_features(torch.from_numpy(photos)), pre_logits=True)
        return list(paths), maps.double().numpy()

    paths, known = features("train")
    tested, unknown = features("test")
    log = probed.log_file.read_text()
    penalty = float(log.split("inverse penalty ")[1].split(" ")[0])
    truth = labels[paths]
    counts = truth.value_counts()
    weights = {name: (len(truth) / (3 * count)) ** 0.5 for name, count in counts.items()}  # quick: square root
    regression = LogisticRegression(C=penalty, max_iter=2000, class_weight=weights)
    expected = make_pipeline(StandardScaler(), regression).fit(known, truth).predict_proba(unknown)
    table = read_predictions(probed.predictions_file("test"))
    assert list(table.table["path"]) == tested
    np.testing.assert_allclose(table.probabilities, expected, atol=1e-3)


def test_features_that_depend_on_the_classifier_are_refused(hcoatnet, manifest_file, tmp_path):
    settings = {**SETTINGS, "model": "h_coatnet_atto", "image_size": 96, "data": manifest_file, "out": tmp_path / "run"}
    code, said = hcoatnet("train", *flags(settings))
    assert code == 2
    assert "The features of h_coatnet_atto depend on its classifier" in said
    code, said = hcoatnet("train", *flags({**settings, "out": tmp_path / "norm"}), "--model-options", "importance=norm")
    assert code == 0, said
