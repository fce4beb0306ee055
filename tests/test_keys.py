"""Planted keys occur in nothing that is printed, logged or written, whether commands succeed, fail or break."""

import logging
import traceback

import pytest

from conftest import TINY, flags
from deploy.server_harness import CLIENT, photo_bytes, running
from hcoatnet.cli import app, run
from hcoatnet.deploy.server.security import Access

ROBOFLOW_KEY = "planted-Roboflow-Key-4711"
TOKEN = "planted-bearer-token-0815-visible"


@pytest.fixture
def planted(monkeypatch):
    """Both keys stand in the environment of the command."""
    monkeypatch.setenv("ROBOFLOW_API_KEY", ROBOFLOW_KEY)
    monkeypatch.setenv("HCOATNET_TOKEN", TOKEN)


@pytest.fixture
def told(capsys, caplog, planted):
    """Run a command line as `hcoatnet` does; returns exit code and all that was printed and logged.

    An exception that nobody expected is printed as Python prints it, and its exit code is 1.
    """
    caplog.set_level(logging.DEBUG)

    def call(*tokens):
        try:
            code = run(app, [str(token) for token in tokens])
        except Exception:
            traceback.print_exc()
            code = 1
        printed = capsys.readouterr()
        return code, printed.out + printed.err + caplog.text

    return call


def holds_no_key(text):
    for key in (ROBOFLOW_KEY, TOKEN):
        assert key not in text
        assert key[:12] not in text


def folder_holds_no_key(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        assert ROBOFLOW_KEY.encode() not in content and TOKEN.encode() not in content, path
    return len(files)


def test_the_search_finds_a_planted_key(told, tmp_path, monkeypatch):
    """What the other tests rely on."""

    def leak(*_, **__):
        logging.getLogger("leak").warning(TOKEN)
        raise RuntimeError(ROBOFLOW_KEY)

    monkeypatch.setattr("hcoatnet.training.run.train", leak)
    code, text = told("train", "--data", tmp_path)
    assert code == 1
    assert ROBOFLOW_KEY in text and TOKEN in text and "Traceback" in text
    (tmp_path / "file").write_text(TOKEN)
    with pytest.raises(AssertionError):
        folder_holds_no_key(tmp_path)


@pytest.mark.slow
def test_training_reporting_and_bundling(told, manifest_file, tmp_path, monkeypatch):
    settings = {**TINY, "data": manifest_file, "model": "cnn"}
    for command, expected in (
        (("train", "--out", tmp_path / "run", *flags(settings)), 0),
        (("evaluate", tmp_path / "run", "--subset", "val", "--device", "cpu"), 0),
        (("report", tmp_path / "run"), 0),
        (("bundle", tmp_path / "run", tmp_path / "bundle"), 0),
        (("train", "--out", tmp_path / "run", *flags(settings)), 2),
        (("bundle", tmp_path / "nothing", tmp_path / "other"), 2),
    ):
        code, text = told(*command)
        assert code == expected, text
        holds_no_key(text)

    def breaks(*_, **__):
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr("hcoatnet.training.run.fit", breaks)
    code, text = told("train", "--out", tmp_path / "broken", *flags(settings))
    assert code == 1 and "nobody expected this" in text
    holds_no_key(text)
    assert folder_holds_no_key(tmp_path) > 20


def test_the_doctor(told, tmp_path, monkeypatch):
    from hcoatnet.doctor import examination
    from hcoatnet.doctor.finding import Finding

    monkeypatch.chdir(tmp_path)
    kept = {name: check for name, check in examination.CHECKS.items() if name not in ("self-test", "device")}

    def breaks():
        raise RuntimeError("nobody expected this")

    for more, expected in (({}, 0), ({"x": lambda: Finding("problem", "x", "Mend it.")}, 1), ({"x": breaks}, 0)):
        monkeypatch.setattr(examination, "CHECKS", {**kept, **more})
        for form in ([], ["--json"]):
            code, text = told("doctor", *form)
            assert code == expected, text
            holds_no_key(text)


@pytest.mark.parametrize(
    "error",
    [None, ValueError(f"https://x/?api_key={ROBOFLOW_KEY}"), KeyError(ROBOFLOW_KEY), RuntimeError(ROBOFLOW_KEY)],
    ids=["refused", "ValueError", "KeyError", "RuntimeError"],
)
def test_a_download_that_fails(error, told, tmp_path, monkeypatch):
    rfapi = pytest.importorskip("roboflow.adapters.rfapi")

    def answer(key, *_):
        assert key == ROBOFLOW_KEY
        raise error or rfapi.RoboflowError(f"no such key: {key}")

    monkeypatch.setattr(rfapi, "get_version_export", answer)
    code, text = told("data", "roboflow", tmp_path / "data")
    assert code == 2, text
    assert "Error: Roboflow" in text
    holds_no_key(text)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_starts_fails_and_breaks(told, run_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("hcoatnet.deploy.server.running.set_up_logging", lambda *_, **__: None)
    monkeypatch.setattr("hcoatnet.deploy.server.running.Server.run", lambda *_, **__: None)
    code, text = told("serve", run_bundle, "--port", "0")
    assert code == 0, text
    holds_no_key(text)
    (tmp_path / "token").write_text(f"{TOKEN} and a second word\n")
    for command in (["serve", tmp_path], ["serve", run_bundle, "--token-file", tmp_path / "token"]):
        code, text = told(*command)
        assert code == 2, text
        holds_no_key(text)

    def breaks(*_, **__):
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr("hcoatnet.deploy.server.running.Server.run", breaks)
    code, text = told("serve", run_bundle, "--port", "0")
    assert code == 1 and "nobody expected this" in text
    holds_no_key(text)


def test_answers_and_log_of_a_server(planted, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    with running(access=Access(TOKEN)) as server:
        photos = {"photos": ("a.jpg", photo_bytes())}
        right, wrong = {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer {TOKEN}x"}
        answers = [CLIENT.post(f"{server.url}/v1/predict", files=photos, headers=given) for given in (right, wrong)]
        answers.append(CLIENT.get(f"{server.url}/{TOKEN}", headers=right))
        server.backend.fail = True
        answers.append(CLIENT.post(f"{server.url}/v1/predict", files=photos, headers=right))
    assert [answer.status_code for answer in answers] == [200, 401, 404, 500]
    for answer in answers:
        holds_no_key(answer.text + str(answer.headers))
    printed = capsys.readouterr()
    logged = [record.getMessage() for record in caplog.records if record.name.startswith(("hcoatnet", "uvicorn"))]
    assert any("POST /v1/predict 500" in line for line in logged)
    holds_no_key("\n".join(logged) + printed.out + printed.err)


def test_an_access_does_not_show_its_token():
    holds_no_key(repr(Access(TOKEN)))
