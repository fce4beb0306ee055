"""Contestant: answers of a network, at batch 1 and 32, by torch, by torch compiled, or by ONNX Runtime.

All ways give what the package's backends give: logits, and the token trace where the model prunes. The weights are
drawn: time does not depend on them. ``--make FOLDER`` writes the ONNX files instead, in float32 and int8.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contestant import Pace, Stopwatch

CLASSES = 6
BATCHES = (1, 32)
FLOAT = "float32.onnx"
INT8_WAYS = ("static", "dynamic")
CALIBRATION = 16


def build(model: str, image_size: int) -> Any:
    """The network with weights drawn from seed 0, in evaluation mode, channels_last as trained runs are."""
    import torch

    from hcoatnet.models import registry

    torch.manual_seed(0)
    return registry.create(model, CLASSES, image_size).to(memory_format=torch.channels_last).eval()


def read_pixels(folder: Path, image_size: int, count: int) -> np.ndarray:
    """Resized photos (N, S, S, 3) uint8, from the start again where there are fewer than asked for."""
    from hcoatnet.data.images import open_photo, resize_photo

    files = sorted(path for path in folder.rglob("*") if path.is_file())[:count]
    pixels = [resize_photo(open_photo(file), image_size) for file in files]
    return np.stack([pixels[number % len(pixels)] for number in range(count)])


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Photos as the network reads them, (N, 3, S, S) float32."""
    from hcoatnet.data.images import normalise

    return np.stack([np.asarray(normalise(one)) for one in pixels])


def make_files(model: str, image_size: int, photos: Path, folder: Path) -> None:
    """The network as ONNX files, and in ``facts.json`` how close each comes to torch."""
    import torch

    from hcoatnet.deploy.export import ExportFacts, export_model
    from hcoatnet.deploy.onnx_backend import OnnxBackend
    from hcoatnet.deploy.quantisation import METHODS

    folder.mkdir(parents=True, exist_ok=True)
    network = build(model, image_size)
    facts = ExportFacts(model, model, tuple(f"class {number}" for number in range(CLASSES)), image_size)
    exact = folder / FLOAT
    export_model([network], exact, facts)
    pixels = read_pixels(photos, image_size, CALIBRATION)
    for way in INT8_WAYS:
        _quantise(METHODS[way], exact, folder / f"{way}.onnx", pixels)
    batch = normalised(pixels)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(batch)).numpy()
    found = {}
    for file in sorted(folder.glob("*.onnx")):
        logits = OnnxBackend.open(file).run(batch).logits[:, 0]
        found[file.stem] = {
            "largest_logit_difference": float(np.abs(logits - wanted).max()),
            "spread_of_logits": float(wanted.std()),
            "same_top_class": float((logits.argmax(1) == wanted.argmax(1)).mean()),
            "mib": file.stat().st_size / 2**20,
        }
    (folder / "facts.json").write_text(json.dumps(found), encoding="utf-8")


def _quantise(quantise: Callable[..., None], exact: Path, file: Path, pixels: np.ndarray) -> None:
    """An int8 file with the metadata that the backend asks for."""
    import onnx

    from hcoatnet.deploy.export import write_metadata
    from hcoatnet.deploy.onnx_backend import OnnxBackend

    quantise(exact, file, pixels)
    proto = onnx.load(file)
    write_metadata(proto, dict(OnnxBackend.open(exact).metadata))
    file.write_bytes(proto.SerializeToString())


def backend(way: str, model: str, image_size: int, folder: Path, threads: int) -> Any:
    """One of the ways to answer: ``eager``, ``compiled``, or the stem of an ONNX file."""
    if way not in ("eager", "compiled"):
        from hcoatnet.deploy.onnx_backend import OnnxBackend

        return OnnxBackend.open(folder / f"{way}.onnx", threads=threads)
    import torch

    from hcoatnet.deploy.torch_backend import TorchBackend

    made = TorchBackend([build(model, image_size)], image_size)
    if way == "compiled":
        network = made.models[0]
        name = "forward_with_trace" if hasattr(network, "forward_with_trace") else "forward"
        setattr(network, name, torch.compile(getattr(network, name), dynamic=False))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--files", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--make", action="store_true", help="write the ONNX files and end")
    parser.add_argument("--way", default="eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="least seconds of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--paced", action="store_true")
    given = parser.parse_args()
    if given.make:
        make_files(given.model, given.image_size, given.photos, given.files)
        return
    pace = Pace(given.paced)
    chosen = backend(given.way, given.model, given.image_size, given.files, given.threads)
    batches = {size: normalised(read_pixels(given.photos, given.image_size, size)) for size in BATCHES}
    started = time.perf_counter()
    for photos in batches.values():
        for _ in range(2):
            chosen.run(photos)
    pace.report(ready=True, warm_up=time.perf_counter() - started)
    for _ in range(given.rounds):
        pace.wait()
        answer = {}
        for size, photos in batches.items():
            watch, calls = Stopwatch(), 0
            while watch.read()[0] < given.seconds:
                chosen.run(photos)
                calls += 1
            seconds, processor = watch.read()
            answer[str(size)] = {"seconds": seconds / calls, "processor": processor / calls}
        pace.report(**answer)


if __name__ == "__main__":
    main()
