"""What the server answers, and that it is what the classifier says."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from server_harness import CLASSES, CLIENT, SIZE, colour_model, photo_bytes, running

from hcoatnet.deploy.classifier import load_classifier
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.served import Served
from hcoatnet.explain.token_maps import draw_kept

ADDRESS = {"index.html": "", "docs.html": "docs"}


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


def predict(server, contents, query="", names=None):
    names = names or [f"{number}.jpg" for number in range(len(contents))]
    files = [("photos", (name, content)) for name, content in zip(names, contents, strict=True)]
    return CLIENT.post(f"{server.url}/v1/predict{query}", files=files, timeout=30)


def expected(answers):
    """Answers of a classifier as they look after a way through JSON."""
    return json.loads(json.dumps([answer.to_dict() for answer in answers]))


def without_size(answers):
    return [{key: value for key, value in one.items() if key not in ("width", "height", "overlays")} for one in answers]


def test_photos_are_answered_as_the_classifier_answers(server):
    contents = [
        photo_bytes(colour, seed=seed) for seed, colour in enumerate([(170, 60, 60), (60, 150, 70), (60, 70, 170)])
    ]
    answer = predict(server, contents, "?trace=true")
    assert answer.status_code == 200
    document = answer.json()
    assert document["model"] == "h_coatnet_test"
    assert document["notice"] == "Research software, not a diagnostic device."
    said = server.served.classifier.predict(contents, ["0.jpg", "1.jpg", "2.jpg"])
    assert without_size(document["answers"]) == expected(said)
    assert [one["top_class"] for one in document["answers"]] == ["red", "green", "blue"]


def test_a_real_bundle_is_answered_to_the_bit(run_bundle, photos):
    served = Served.open(run_bundle, threads=1)
    files = sorted(photos.glob("*/*.png"))[::3]
    classifier = load_classifier(run_bundle, backend="onnx", threads=1)
    with running(served, Limits(photos=20)) as server:
        answer = predict(server, [file.read_bytes() for file in files], "?trace=true", [file.name for file in files])
        assert len(files) == 18  # more than one batch
        assert without_size(answer.json()["answers"]) == expected(
            classifier.predict(files, [file.name for file in files])
        )
        facts = CLIENT.get(f"{server.url}/v1/model").json()
    assert facts["classes"] == list(classifier.classes)
    assert facts["image_size"] == 64
    assert facts["sha256"] == load_facts(run_bundle)
    assert facts["card"]["sections"]


def load_facts(bundle):
    from hcoatnet.deploy.bundle import Bundle

    return Bundle.open(bundle).sha256


def test_one_photo_may_be_the_whole_body(server):
    content = photo_bytes(kind="PNG")
    answer = CLIENT.post(f"{server.url}/v1/predict", content=content, headers={"content-type": "image/png"})
    (said,) = answer.json()["answers"]
    assert said["name"] == "photo 1"
    assert said["probabilities"] == dict(server.served.classifier.predict([content])[0].probabilities)


def test_photos_lie_upright(server):
    exif = Image.Exif()
    exif[0x0112] = 6
    (said,) = predict(server, [photo_bytes(size=(60, 30), exif=exif)]).json()["answers"]
    assert (said["width"], said["height"]) == (30, 60)


def test_traces_and_overlays_come_only_when_asked_for(server):
    contents = [photo_bytes()]
    plain = predict(server, contents).json()["answers"][0]
    assert plain["traces"] == []
    assert "overlays" not in plain
    traced = predict(server, contents, "?trace=true").json()["answers"][0]
    assert len(traced["traces"]) == 2
    assert next(len(stage["positions"]) for stage in traced["traces"][0]["stages"]) == 16
    drawn = predict(server, contents, "?overlay=true").json()["answers"][0]
    assert drawn["traces"] == []
    assert len(drawn["overlays"]) == 3


def test_overlays_are_the_package_s_own(server):
    content = photo_bytes(size=(1400, 700))
    said = predict(server, [content], "?overlay=true").json()["answers"][0]
    photo = Image.open(io.BytesIO(content))
    photo.thumbnail((512, 512))
    trace = server.served.classifier.predict([content])[0].traces[0]
    for stage, address in enumerate(said["overlays"]):
        kind, _, data = address.partition(",")
        assert kind == "data:image/png;base64"
        drawn = Image.open(io.BytesIO(base64.b64decode(data)))
        assert drawn.size == (512, 256)
        assert np.array_equal(drawn, draw_kept(photo, trace, stage))


def test_a_model_that_prunes_nothing_says_so():
    with running(colour_model(prunes=False)) as server:
        said = predict(server, [photo_bytes()], "?trace=true&overlay=true").json()["answers"][0]
        assert said["traces"] == []
        assert said["overlays"] == []
        assert CLIENT.get(f"{server.url}/v1/model").json()["prunes"] is False


def test_what_the_model_says_of_itself(server):
    facts = CLIENT.get(f"{server.url}/v1/model").json()
    assert facts["classes"] == list(CLASSES)
    assert facts["image_size"] == SIZE
    assert facts["rules"] == {
        "method": "lac", "level": 0.9, "class_conditional": False, "error_rate": 0.1, "abstain_below": 0.6,
        "no_threshold_because": None, "no_sets_because": None, "temperature": 1.0,
    }  # fmt: skip
    assert facts["limits"] == {"photos": 16, "bytes": 20_000_000, "request_bytes": 100_100_000, "pixels": 60_000_000}
    assert facts["card"]["title"] == "Model card: h_coatnet_test"
    assert facts["needs_token"] is False


def test_a_classifier_without_sets_and_threshold_says_why():
    served = colour_model()
    rules = served.classifier.rules
    changed = {
        "thresholds": None,
        "no_sets_because": "Too few.",
        "abstain_below": None,
        "no_threshold_because": "Too bad.",
    }
    served.classifier.rules = type(rules)(**{**vars(rules), **changed})
    with running(served) as server:
        said = predict(server, [photo_bytes()]).json()["answers"][0]
        facts = CLIENT.get(f"{server.url}/v1/model").json()
    assert said["prediction_set"] is None
    assert said["abstain"] is True
    assert facts["rules"]["method"] is None
    assert facts["rules"]["no_sets_because"] == "Too few."


def test_probes(server):
    assert CLIENT.get(f"{server.url}/healthz").json() == {"status": "alive"}
    assert CLIENT.get(f"{server.url}/readyz").json() == {"status": "ready"}
    server.readiness.draining = True
    try:
        assert CLIENT.get(f"{server.url}/readyz").status_code == 503
        assert CLIENT.get(f"{server.url}/healthz").status_code == 200
        assert predict(server, [photo_bytes()]).status_code == 200
    finally:
        server.readiness.draining = False


def test_the_page_is_served_as_it_lies_there(server):
    from importlib.resources import files

    folder = files("hcoatnet.deploy.server") / "page"
    names = [file.name for file in folder.iterdir() if file.is_file()]
    assert "index.html" in names
    for name in names:
        answer = CLIENT.get(f"{server.url}/{ADDRESS.get(name, name)}")
        assert answer.status_code == 200
        assert answer.content == (folder / name).read_bytes()
        kind = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
        assert answer.headers["content-type"].startswith(kind[name.rpartition(".")[2]])
