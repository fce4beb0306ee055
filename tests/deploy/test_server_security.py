"""Who may ask, what every answer carries, and what the log leaves out."""

import logging

import httpx
import pytest
from server_harness import CLIENT, colour_model, photo_bytes, running

from hcoatnet.deploy.server.security import HEADERS, Access, check_token
from hcoatnet.errors import ConfigError

TOKEN = "a-token-for-the-tests-only"


@pytest.fixture(scope="module")
def server():
    with running(access=Access(hosts=frozenset({"derm.example.org"}))) as started:
        yield started


@pytest.fixture(scope="module")
def guarded():
    with running(access=Access(token=TOKEN)) as started:
        yield started


def predict(server, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return CLIENT.post(f"{server.url}/v1/predict", files={"photos": ("lesion.jpg", photo_bytes())}, headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 200), ("GET", "/page.css", 200), ("GET", "/docs", 200), ("GET", "/openapi.json", 200),
     ("GET", "/v1/model", 200), ("GET", "/healthz", 200), ("GET", "/readyz", 200), ("GET", "/nothing", 404),
     ("POST", "/v1/predict", 415), ("DELETE", "/v1/model", 405), ("OPTIONS", "/v1/predict", 405),
     ("TRACE", "/", 405), ("POST", "/v1/predict?trace=perhaps", 422), ("POST", "/v1/predict?trase=true", 422)],
)  # fmt: skip
def test_every_answer_has_the_security_headers(server, method, path, status):
    answer = CLIENT.request(method, server.url + path)
    assert answer.status_code == status
    for name, value in HEADERS.items():
        if name != "Cache-Control":
            assert answer.headers[name] == value
    assert answer.headers["cache-control"] == (
        "no-cache" if status == 200 and path in ("/", "/page.css", "/docs") else "no-store"
    )
    assert "server" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status


def test_the_policy_lets_nothing_in_from_elsewhere():
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "*" not in policy


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1", "[::1]:8000", "10.1.2.3", "DERM.example.org", "derm.example.org:443"],
)
def test_known_names_are_answered(server, host):
    assert CLIENT.get(f"{server.url}/v1/model", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost@evil.example",
     "derm.example.org.evil.example", "", "[::1", "1", "0x7f.1", "example.org/localhost"],
)  # fmt: skip
def test_other_names_are_refused(server, host):
    for path in ("/", "/healthz", "/v1/model"):
        assert CLIENT.get(server.url + path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "x", "http://[", ""]
)
def test_pages_of_others_cannot_send_photos(server, origin):
    answer = predict(server, origin=origin)
    assert answer.status_code == 403
    assert answer.json()["title"] == "Foreign page"


def test_pages_of_this_server_can(server):
    assert predict(server).status_code == 200
    assert predict(server, origin=server.url).status_code == 200
    behind_a_proxy = {"host": "derm.example.org", "origin": "https://derm.example.org"}
    assert predict(server, **behind_a_proxy).status_code == 200
    assert predict(server, host="derm.example.org", origin="https://derm.example.org:444").status_code == 403


def test_the_token_is_needed_for_the_model_and_for_nothing_else(guarded):
    for path in ("/", "/page.css", "/healthz", "/readyz", "/openapi.json", "/docs"):
        assert CLIENT.get(guarded.url + path).status_code == 200
    for answer in (CLIENT.get(f"{guarded.url}/v1/model"), predict(guarded)):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    given = {"authorization": f"Bearer {TOKEN}"}
    assert predict(guarded, **given).status_code == 200
    assert CLIENT.get(f"{guarded.url}/v1/model", headers=given).json()["needs_token"] is True


@pytest.mark.parametrize(
    "given", ["", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}",
              f"Bearer {TOKEN} {TOKEN}", b"Bearer \xff\xfe"]
)  # fmt: skip
def test_other_tokens_are_refused(guarded, given):
    assert predict(guarded, authorization=given).status_code == 401


def test_without_the_token_no_body_is_read(guarded):
    def chunks():
        yield b"x"
        raise AssertionError("read on")

    with pytest.raises((AssertionError, httpx.TransportError)):
        CLIENT.post(f"{guarded.url}/v1/predict", content=chunks(), headers={"content-type": "image/jpeg"})
    assert predict(guarded).status_code == 401


@pytest.mark.parametrize("token", ["", "short", "a b" * 10, "ü" * 20, "x" * 15, "a\n" * 20])
def test_weak_and_impossible_tokens_are_refused(token):
    with pytest.raises(ConfigError, match="at least 16 visible ASCII characters"):
        check_token(token, "the file")


def test_white_space_around_a_token_is_taken_off():
    assert check_token(f"{TOKEN}\n", "the file") == TOKEN


def test_the_log_holds_no_names_and_no_photos(server, caplog):
    caplog.set_level(logging.DEBUG)
    predict(server)
    CLIENT.post(f"{server.url}/v1/predict", files={"photos": ("patient-17.jpg", b"<html>")})
    CLIENT.post(f"{server.url}/v1/predict?patient-17=patient-17", files={"photos": ("patient-17.jpg", b"<html>")})
    CLIENT.put(f"{server.url}/patient-17.jpg")
    CLIENT.get(f"{server.url}/patient-17.jpg", headers={"authorization": "Bearer patient-17"})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    lines = [line for line in ours if line.startswith(("GET", "POST", "PUT"))]
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines] == [
        "POST /v1/predict 200", "POST /v1/predict 415", "POST /v1/predict 422", "PUT (other) 404", "GET (other) 404",
    ]  # fmt: skip
    assert [line for line in ours if "patient-17" in line or "lesion" in line] == []


def test_an_error_of_the_server_says_nothing_of_the_photo(caplog):
    served = colour_model()
    served.classifier.backend.fail = True
    with running(served) as server:
        answer = predict(server)
        served.classifier.backend.fail = False
        assert predict(server).status_code == 200
    assert answer.status_code == 500
    assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    document = answer.json()
    assert document["title"] == "Internal error"
    number = document["detail"].rpartition(" ")[2].rstrip(".")
    assert number in caplog.text
    assert "server_harness.py" in caplog.text  # where it happened
    for text in (answer.text, caplog.text):
        assert "secret" not in text
        assert "lesion" not in text
    assert "Traceback" not in answer.text
