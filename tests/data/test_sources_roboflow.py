"""Downloads from a server on loopback that answers as the service does."""

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from hcoatnet.data.sources import roboflow
from hcoatnet.data.sources.folder import scan_folder
from hcoatnet.data.sources.roboflow import Export, download
from hcoatnet.errors import ConfigError, DataError

pytest.importorskip("roboflow")
from roboflow.adapters import rfapi

KEY = "planted-Key-4711"
PATH = "/hi-l9ueo/ich-s-7lnsj/1/folder"


def photo(seed):
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def export_of(names, extra=()):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for seed, name in enumerate(names):
            archive.writestr(name, photo(seed))
        for name, content in extra:
            archive.writestr(name, content)
    return buffer.getvalue()


README = "The following augmentation was applied to create 3 versions of each source image:\n* Random brightness"
NAMES = [
    f"{subset}/{label}/{number:06d}_jpg.rf.{copy}.jpg"
    for label in ("Healthy skin", "Netherton syndrome")
    for number, subset in enumerate(("train", "train", "valid", "test"))
    for copy in (("a", "b", "c") if subset == "train" else ("a",))
]


class Service:
    """A server whose answers a test sets; it keeps the paths that it was asked for."""

    def __init__(self):
        self.archive = export_of(NAMES, [("README.roboflow.txt", README)])
        self.waits, self.cut, self.announce, self.link, self.asked = 0, None, True, None, []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                service.asked.append(self.path)
                service.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request):
        parts = urlsplit(request.path)
        if parts.path == "/archive.zip":
            request.send_response(200)
            if self.announce:
                request.send_header("Content-Length", str(len(self.archive)))
            request.end_headers()
            request.wfile.write(self.archive[: self.cut])
        elif parts.path != PATH:
            self.send(request, 404, {"error": "no such project"})
        elif parse_qs(parts.query).get("api_key") != [KEY]:
            self.send(request, 401, {"error": f"this key is not known: {parse_qs(parts.query).get('api_key')}"})
        elif self.waits:
            self.waits -= 1
            self.send(request, 202, {"progress": 0.5})
        else:
            self.send(request, 200, {"export": {"link": self.link or f"{self.address}/archive.zip"}})

    def send(self, request, status, content):
        body = json.dumps(content).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def service(monkeypatch):
    made = Service()
    monkeypatch.setattr(rfapi, "API_URL", made.address)
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    monkeypatch.setattr(roboflow.time, "sleep", lambda seconds: None)
    yield made
    made.server.shutdown()


def refused(tmp_path, match, **options):
    """The download is refused, tells no key, and leaves nothing at all."""
    with pytest.raises(DataError, match=match) as caught:
        download(tmp_path / "data", **options)
    assert list(tmp_path.iterdir()) == []
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def test_an_export_is_downloaded_recorded_and_grouped_by_source_photo(service, tmp_path):
    service.waits = 2
    notes = download(tmp_path / "data")
    assert notes[0] == "16 photos in 2 classes."
    assert any("3 versions of each source image" in note for note in notes)
    record = json.loads((tmp_path / "data/download.json").read_text())
    assert record == {
        "source": "roboflow", "workspace": "hi-l9ueo", "project": "ich-s-7lnsj", "version": 1, "format": "folder",
        "sha256": hashlib.sha256(service.archive).hexdigest(), "bytes": len(service.archive), "files": 17,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    result = scan_folder(tmp_path / "data")
    assert len(result.manifest) == 16
    assert result.manifest.table["group"].nunique() == 8
    assert any("3 versions of each source image" in note for note in result.notes)


def test_other_projects_can_be_named(service, tmp_path):
    refused(tmp_path, "a/b/7: the service refused: .*no such project", export=Export("a", "b", 7, "folder"))
    assert urlsplit(service.asked[-1]).path == "/a/b/7/folder"


def test_without_a_key_nothing_is_asked(service, tmp_path, monkeypatch):
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    with pytest.raises(ConfigError, match="ROBOFLOW_API_KEY"):
        download(tmp_path / "data")
    assert service.asked == []


def test_a_wrong_key_is_refused_and_not_repeated(service, tmp_path, monkeypatch):
    monkeypatch.setenv("ROBOFLOW_API_KEY", "wrong-key-0815")
    assert "wrong-key-0815" not in refused(tmp_path, "the service refused")


def test_no_log_holds_the_key(service, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    download(tmp_path / "data")
    logging.getLogger("urllib3").debug("the log is open again")
    assert "the log is open again" in caplog.text
    printed = capsys.readouterr()
    assert KEY not in caplog.text + printed.out + printed.err
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_an_unreachable_service_is_told_without_the_address(service, tmp_path, monkeypatch):
    service.server.shutdown()
    service.server.server_close()
    refused(tmp_path, "cannot be reached")


@pytest.mark.parametrize("announce", [True, False])
def test_an_interrupted_download_leaves_nothing(service, tmp_path, announce):
    service.cut, service.announce = 1000, announce
    refused(tmp_path, "broke off" if announce else "not a whole zip")


def test_an_interrupt_by_the_user_leaves_nothing(service, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    for progress in (roboflow.Progresses(download=interrupt), roboflow.Progresses(unpack=interrupt)):
        with pytest.raises(KeyboardInterrupt):
            download(tmp_path / "data", progress=progress)
        assert list(tmp_path.iterdir()) == []


def test_harmful_archives_leave_nothing(service, tmp_path):
    service.archive = export_of(NAMES, [("../../evil.txt", "x")])
    refused(tmp_path, "outside the folder")
    link = zipfile.ZipInfo("train/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    service.archive = export_of(NAMES, [(link, "/etc/passwd")])
    refused(tmp_path, "is a link")


def test_archives_beyond_the_limit_are_not_downloaded(service, tmp_path):
    refused(tmp_path, "more than 1,000", limit=1000)
    service.announce = False
    refused(tmp_path, "more than 1,000", limit=1000)


@pytest.mark.parametrize(
    "content", [b"<html>sign in</html>", export_of([], [("data.yaml", "x")]), export_of(["1.jpg"])]
)
def test_what_holds_no_photos_is_refused(service, tmp_path, content):
    service.archive = content
    refused(tmp_path, "not a whole zip|no folders of photos")


def test_the_archive_must_come_over_https(service, tmp_path):
    service.link = "http://example.org/archive.zip"
    refused(tmp_path, "not offered over https")


def test_a_folder_that_holds_something_is_left_alone(service, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="holds something"):
        download(tmp_path)
    assert service.asked == []


def test_the_command_tells_no_key(service, tmp_path):
    code = "import logging; logging.basicConfig(level=logging.DEBUG); from hcoatnet.cli import main; main()"
    environment = {**os.environ, "API_URL": service.address, "ROBOFLOW_API_KEY": KEY}
    arguments = ["data", "roboflow", str(tmp_path / "data")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "3 versions of each source image" in done.stdout
    assert KEY not in done.stdout + done.stderr
    again = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert again.returncode == 2
    assert "holds something" in again.stderr
