"""``hcoatnet serve`` as a process of its own: without torch, without a file, and gone when told to go."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from server_harness import CLIENT, noise, photo_bytes

from hcoatnet.deploy.server.running import is_loopback

ROOT = Path(__file__).parents[2]
START = """
import os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "accelerate", "safetensors", "pandas", "scipy",
                                      "sklearn", "matplotlib", "joblib", "jinja2", "filelock", "threadpoolctl"}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print("WROTE", arguments[0], file=sys.stderr, flush=True)
    elif event in ("tempfile.mkstemp", "tempfile.mkdtemp", "os.mkdir", "os.rename", "os.link", "shutil.copyfile"):
        print("WROTE", event, arguments, file=sys.stderr, flush=True)

sys.meta_path.insert(0, Absent())
sys.addaudithook(watch)
from hcoatnet.cli import main
main()
"""


@contextmanager
def serving(bundle, folder, *flags, **environment):
    """A server process; ``.url`` is where it says that it is, ``.log`` what it wrote to standard error."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }  # it writes, too
    environment = {**inherited, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", START, "serve", str(bundle), "--port", "0", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment,
    )  # fmt: skip
    log = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr), daemon=True)
    reader.start()
    try:
        first = process.stdout.readline()
        assert "is served at" in first, log
        yield SimpleNamespace(url=re.search(r"http://[^ ]+", first)[0], process=process, log=log, reader=reader)
    finally:
        process.kill()
        process.wait(20)
        reader.join(20)
        process.stdout.close()
        process.stderr.close()


def written_bytes(process):
    text = Path(f"/proc/{process.pid}/io").read_text()
    return int(re.search(r"^write_bytes: (\d+)", text, re.M)[1])


def test_it_runs_without_torch_writes_nothing_and_stops_when_told(run_bundle, tmp_path):
    large = photo_bytes(size=(2400, 2100), kind="PNG", compress_level=0)
    assert 15_000_000 < len(large) < 20_000_000
    with serving(run_bundle, tmp_path, "--drain-seconds", "0.2") as server:
        before = written_bytes(server.process)
        files = [("photos", ("patient-17.png", large)), ("photos", ("patient-18.jpg", photo_bytes()))]
        answer = CLIENT.post(f"{server.url}/v1/predict?trace=true&overlay=true", files=files, timeout=60)
        assert answer.status_code == 200
        assert [one["name"] for one in answer.json()["answers"]] == ["patient-17.png", "patient-18.jpg"]
        head = {"content-type": "image/png"}
        assert CLIENT.post(f"{server.url}/v1/predict", content=large, headers=head, timeout=60).status_code == 200
        many = [("photos", (f"{number}.jpg", noise(1_500_000))) for number in range(16)]
        assert CLIENT.post(f"{server.url}/v1/predict", files=many, timeout=60).status_code == 415
        for path in ("/", "/docs", "/v1/model", "/openapi.json", "/readyz"):
            assert CLIENT.get(server.url + path).status_code == 200
        assert written_bytes(server.process) == before
        opened = [str(one.readlink()) for one in Path(f"/proc/{server.process.pid}/fd").iterdir()]
        assert not [one for one in opened if one.startswith("/") and not one.startswith("/dev/")]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert server.process.stdout.read().endswith("Stopped.\n")
        server.reader.join(20)
    assert not [line for line in server.log if line.startswith("WROTE") and "/dev/null" not in line]
    assert list(tmp_path.iterdir()) == []
    assert any("POST /v1/predict 200" in line for line in server.log)
    assert not any("patient" in line for line in server.log)


def test_with_a_token_and_control_c(run_bundle, tmp_path):
    token = "a-token-for-the-tests-only"
    with serving(
        run_bundle, tmp_path, "--host", "0.0.0.0", "--allowed-host", "derm.example.org", HCOATNET_TOKEN=token
    ) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert CLIENT.get(f"{url}/v1/model").status_code == 401
        given = {"authorization": f"Bearer {token}", "host": "derm.example.org"}
        assert CLIENT.get(f"{url}/v1/model", headers=given).json()["needs_token"] is True
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "Other machines could reach 0.0.0.0, so a token is needed"),
        (["--host", "::"], "so a token is needed"),
        (["--token-file", "no-such-file"], "The token file no-such-file cannot be read: No such file or directory."),
        (["--port", "99999"], "There is no port 99999"),
        (["--max-photos", "0"], "The limit of photos must be above 0. Got 0 instead."),
        (["--concurrency", "0"], "The limit of concurrency must be above 0. Got 0 instead."),
        (["--threads", "0"], "--threads"),
        (["--threads", "3000000000"], "--threads must be from 1 to 1024."),
        (["--drain-seconds", "-1"], "--drain-seconds"),
        (["--max-megabytes", "inf"], "--max-megabytes must be from 0 to 1000. Got inf instead."),
        (["--max-megapixels", "nan"], "--max-megapixels must be from 0 to 100. Got nan instead."),
        (["--level", "0.5"], "It was fitted for"),
        (["--allowed-host", "https://derm.example.org"], "--allowed-host takes a name such as"),
    ],
)
def test_mistakes_are_told_before_anything_starts(hcoatnet, run_bundle, monkeypatch, flags, said):
    monkeypatch.delenv("HCOATNET_TOKEN", raising=False)
    code, printed = hcoatnet("serve", run_bundle, *(["--port", "0"] if "--port" not in flags else []), *flags)
    assert code == 2
    assert said in printed


def test_a_weak_token_is_refused(hcoatnet, run_bundle, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    code, printed = hcoatnet("serve", run_bundle, "--token-file", tmp_path / "token")
    assert code == 2
    assert "at least 16 visible ASCII characters" in printed
    assert "secret\n" not in printed


def test_a_host_that_is_no_name_is_told(hcoatnet, run_bundle, monkeypatch):
    monkeypatch.setenv("HCOATNET_TOKEN", "a-token-of-24-characters")
    code, printed = hcoatnet("serve", run_bundle, "--port", "0", "--host", "a..b")
    assert code == 2
    assert "'a..b' cannot be the name of a machine" in printed


def test_a_taken_port_and_a_missing_bundle_are_told(hcoatnet, run_bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, printed = hcoatnet("serve", run_bundle, "--port", port)
    assert code == 2
    assert f"Port {port} of 127.0.0.1 is taken." in printed
    code, printed = hcoatnet("serve", tmp_path / "nothing", "--port", "0")
    assert code == 2
    assert "is not a bundle" in printed


def test_what_is_missing_is_named_with_the_command_to_install_it(hcoatnet, run_bundle, monkeypatch):
    monkeypatch.setattr("hcoatnet.commands.serving.find_spec", lambda name: None if name == "uvicorn" else object())
    code, printed = hcoatnet("serve", run_bundle)
    assert code == 2
    assert "The server needs uvicorn." in printed
    assert "pip install 'hcoatnet[serve]'" in printed


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
                                             ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.org", False),
                                             ("localhost.example.org", False)])  # fmt: skip
def test_which_addresses_only_this_machine_reaches(host, local):
    assert is_loopback(host) is local


def versions(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = (re.match(r"([a-z0-9._-]+)==([^ ;\\]+)", line) for line in lines)
    return {(pin[1], pin[2]) for pin in pins if pin}


def test_the_server_s_list_of_packages_is_short_and_tested():
    listed = versions("requirements-serve.txt")
    assert listed <= versions("requirements.txt")
    names = {name for name, _ in listed}
    assert {
        "fastapi",
        "uvicorn",
        "python-multipart",
        "onnxruntime",
        "numpy",
        "pillow",
        "cyclopts",
        "rich",
        "pyyaml",
    } <= names
    assert not names & {"torch", "torchvision", "timm", "pandas", "scipy", "scikit-learn", "matplotlib"}
