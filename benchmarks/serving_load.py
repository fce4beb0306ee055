"""The server under load, beside a plain loop over the same model and photos in the same run.

    python benchmarks/serving_load.py BUNDLE PHOTOS --out docs/results/serving_load.json

Starts ``hcoatnet serve`` on loopback with its defaults, then 32 clients send 2,000 requests of one photo each as fast
as they are answered. The clients are threads of this process, on the same cores as the server. An answer 503 with
Retry-After is deliberate: the client waits as long and sends again, and its time counts from the first try. Before and
after that, a plain loop in a process of its own answers as many photos one after the other with
``load_classifier(BUNDLE, backend="onnx").predict``: bytes in, answers out, no HTTP, as many threads as cores. Every
answer of the server is compared with the loop's. Memory is what the operating system says that the server holds, after
32 requests and after each quarter of the others.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np

from hcoatnet.files import write_json

WARM_UP = 32
LOOP = """
import json, sys, time
from pathlib import Path
from hcoatnet.deploy.classifier import load_classifier
classifier = load_classifier(sys.argv[1], backend="onnx")
contents = [Path(path).read_bytes() for path in sys.argv[3:]]
answers = [dict(classifier.predict([content])[0].probabilities) for content in contents]
spent = []
for number in range(int(sys.argv[2])):
    start = time.perf_counter()
    classifier.predict([contents[number % len(contents)]])
    spent.append(time.perf_counter() - start)
print(json.dumps({"answers": answers, "spent": spent}))
"""


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    largest_difference: float = 0.0
    memory: list[float] = field(default_factory=list)


@contextmanager
def serving(bundle: Path, flags: list[str]) -> Iterator[tuple[str, int]]:
    """A server process; gives its address and process id."""
    command = [sys.executable, "-m", "hcoatnet", "serve", str(bundle), "--port", "0", "--drain-seconds", "0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        yield found[0], process.pid
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def resident_megabytes(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1000


def plain_loop(bundle: Path, photos: list[Path], count: int) -> tuple[list[dict[str, float]], list[float]]:
    command = [sys.executable, "-c", LOOP, str(bundle), str(count), *map(str, photos)]
    done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return done["answers"], done["spent"]


def ask(client: httpx.Client, content: bytes, tally: Tally, lock: threading.Lock) -> dict[str, float] | None:
    """Send a photo until it is answered; returns its probabilities, or None after an error."""
    start = time.perf_counter()
    while True:
        try:
            answer = client.post("/v1/predict", files={"photos": ("photo.jpg", content)}, timeout=120)
        except httpx.HTTPError as error:
            with lock:
                tally.statuses[type(error).__name__] += 1
            return None
        with lock:
            tally.statuses[str(answer.status_code)] += 1
        if answer.status_code == 503 and "retry-after" in answer.headers:
            time.sleep(float(answer.headers["retry-after"]))
            continue
        with lock:
            tally.seconds.append(time.perf_counter() - start)
        return answer.json()["answers"][0]["probabilities"] if answer.status_code == 200 else None


def load(
    url: str, pid: int, contents: list[bytes], expected: list[dict[str, float]], clients: int, count: int
) -> Tally:
    tally, lock, numbers = Tally(), threading.Lock(), iter(range(count))
    memory_at = {round(count * quarter / 4) for quarter in range(1, 5)}

    def work() -> None:
        with httpx.Client(base_url=url) as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                said = ask(client, contents[number % len(contents)], tally, lock)
                with lock:
                    if said is not None:
                        wanted = expected[number % len(contents)]
                        difference = max(abs(said[name] - wanted[name]) for name in wanted)
                        tally.largest_difference = max(tally.largest_difference, difference)
                        tally.wrong += difference > 1e-6
                    if number + 1 in memory_at:
                        tally.memory.append(resident_megabytes(pid))

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}_milliseconds": round(1000 * float(np.percentile(seconds, share)), 1) for share in (50, 95, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description="The server under load, beside a plain loop.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path, help="a folder of photos; 64 of them are sent in turn")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--serve-flags", default="", help="further flags of hcoatnet serve, such as '--threads 2'")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in (".jpg", ".png"))[:64]
    contents = [path.read_bytes() for path in photos]
    count = arguments.requests
    expected, before = plain_loop(arguments.bundle, photos, count // 2)
    with serving(arguments.bundle, arguments.serve_flags.split()) as (url, pid):
        load(url, pid, contents, expected, arguments.clients, WARM_UP)
        at_start = resident_megabytes(pid)
        start = time.perf_counter()
        tally = load(url, pid, contents, expected, arguments.clients, count)
        clock = time.perf_counter() - start
        facts = httpx.get(f"{url}/v1/model").json()
    _, after = plain_loop(arguments.bundle, photos, count - count // 2)
    loop = before + after
    throughput, plain = len(tally.seconds) / clock, len(loop) / sum(loop)
    result = {
        "model": facts["name"],
        "image_size": facts["image_size"],
        "members": facts["members"],
        "photos": len(photos),
        "mean_photo_kilobytes": round(float(np.mean([len(one) for one in contents])) / 1000, 1),
        "requests": count,
        "clients": arguments.clients,
        "serve_flags": arguments.serve_flags,
        "answers_by_status": dict(sorted(tally.statuses.items())),
        "errors": sum(number for status, number in tally.statuses.items() if status not in ("200", "503")),
        "answers_unlike_the_loop": tally.wrong,
        "largest_difference_of_a_probability": tally.largest_difference,
        "server": {"requests_per_second": round(throughput, 1), **percentiles(tally.seconds)},
        "plain_loop": {"photos_per_second": round(plain, 1), **percentiles(loop)},
        "throughput_as_share_of_the_loop": round(throughput / plain, 2),
        "memory_megabytes": {
            "start": round(at_start, 1),
            "after_each_quarter": [round(one, 1) for one in tally.memory],
        },
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load_average": round(os.getloadavg()[0], 1)},
        "versions": {
            name: version(name) for name in ("hcoatnet", "onnxruntime", "uvicorn", "fastapi", "numpy", "pillow")
        }
        | {"python": platform.python_version()},
    }
    for name, value in result.items():
        print(f"{name:40}{value}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, result)


def processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    main()
