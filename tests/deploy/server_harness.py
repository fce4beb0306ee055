"""A server of a made-up model on a real port, for the tests of the server and of its page."""

import io
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
from PIL import Image

from hcoatnet.deploy.answers import Rules, TokenStage, TokenTrace
from hcoatnet.deploy.backend import Output
from hcoatnet.deploy.classifier import Classifier
from hcoatnet.deploy.server.app import Readiness, create_app
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.pages import page_routes
from hcoatnet.deploy.server.running import bind, make_server
from hcoatnet.deploy.server.security import Access
from hcoatnet.deploy.server.served import Served
from hcoatnet.evaluation.prediction_sets import Thresholds

CLIENT = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
"""Each request has a connection of its own; a new client for each would take longer than most requests."""

CLASSES = ("blue", "green", "red")
SIZE = 32


class ColourBackend:
    """Two members whose logits follow the mean colour of a photo; waits for ``hold`` before it answers."""

    name = "onnx"
    image_size = SIZE
    members = 2

    def __init__(self, prunes=True):
        self.prunes = prunes
        self.hold = threading.Event()
        self.hold.set()
        self.running = 0
        self.most_running = 0
        self.fail = False
        self._lock = threading.Lock()

    def run(self, photos):
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.hold.wait(30)
        with self._lock:
            self.running -= 1
        if self.fail:
            raise RuntimeError("the secret content of lesion.jpg")
        means = photos.mean(axis=(2, 3))[:, None, ::-1]
        logits = np.concatenate([means, 2 * means], axis=1).astype(np.float32)
        return Output(logits, [(_trace(one[0]), _trace(one[1])) for one in logits] if self.prunes else None)


def _trace(logits):
    first = 1 + int(abs(logits[0]) * 7) % 8
    scores = np.arange(1, 17) / np.arange(1, 17).sum()
    kept = tuple(range(first, 16, 2))
    later = np.full(len(kept), 1 / len(kept))
    return TokenTrace(
        4, 4,
        (TokenStage(tuple(range(16)), tuple(scores.tolist()), kept), TokenStage(kept, tuple(later.tolist()), kept[1:])),
    )  # fmt: skip


def colour_model(prunes=True, classes=CLASSES):
    """What is served: the classifier and what is said of it."""
    thresholds = Thresholds("lac", 0.9, False, (0.7,) * len(classes), 80, 40)
    rules = Rules(classes, 1.0, thresholds, None, 0.9, 0.1, 0.6, None)
    facts = {
        "name": "h_coatnet_test",
        "architecture": "h_coatnet_test",
        "classes": list(classes),
        "image_size": SIZE,
        "members": 2,
        "prunes": prunes,
        "parameters": 1234,
        "init": "scratch",
        "licence": "Apache-2.0",
        "version": "0.1.0",
        "sha256": "0" * 64,
        "calibration": {"source": "validation photos", "photos": 80, "groups": 40, "approximate_because": "Few."},
        "card": {
            "title": "Model card: h_coatnet_test",
            "sections": [
                {"heading": "Data", "entries": [
                    {"name": "Photos", "value": "80", "source": "manifest.csv", "missing": False},
                    {"name": "Consent", "value": "", "source": "", "missing": True},
                ]},
            ],
        },
    }  # fmt: skip
    return Served(Classifier(ColourBackend(prunes), rules), facts)


@contextmanager
def running(served=None, limits=None, access=None, drain_seconds=0, pages=None):
    """A server on a free port, as ``.url``, with its ``.served``, ``.readiness`` and ``.server``."""
    served = served or colour_model()
    readiness = Readiness()
    app = create_app(
        served, limits or Limits(), access or Access(), readiness, page_routes() if pages is None else pages
    )
    server = make_server(app, readiness, drain_seconds)
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.started
        try:
            yield SimpleNamespace(
                url=f"http://127.0.0.1:{port}", port=port, served=served, backend=served.classifier.backend,
                readiness=readiness, server=server, thread=thread,
            )  # fmt: skip
        finally:
            if isinstance(served.classifier.backend, ColourBackend):
                served.classifier.backend.hold.set()
            server.should_exit = True
            thread.join(40)
            assert not thread.is_alive()


def photo_bytes(colour=(170, 60, 60), size=(48, 40), kind="JPEG", seed=0, **options):
    """A noisy photo of one colour."""
    pixels = np.random.default_rng(seed).normal(colour, 25, size=(size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(count, seed=0):
    """Bytes that nothing compresses."""
    return np.random.default_rng(seed).bytes(count)


def resident_megabytes():
    """Memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
