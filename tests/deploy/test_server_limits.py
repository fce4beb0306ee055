"""How much the server does at once, and how it stops."""

import contextlib
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from server_harness import CLIENT, colour_model, noise, photo_bytes, running

from hcoatnet.data.images import open_photo
from hcoatnet.deploy.server import photos as photos_module
from hcoatnet.deploy.server import running as running_module
from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.photos import read_photos
from hcoatnet.deploy.server.uploads import Upload
from hcoatnet.errors import ConfigError


def predict(server, content=None, timeout=30):
    files = {"photos": ("a.jpg", content or photo_bytes())}
    return CLIENT.post(f"{server.url}/v1/predict", files=files, timeout=timeout)


def wait_until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_so_many_run_so_many_wait_and_the_others_are_told_to_come_back():
    with running(limits=Limits(concurrency=2, queue=3)) as server, ThreadPoolExecutor(12) as pool:
        server.backend.hold.clear()
        sent = [pool.submit(predict, server) for _ in range(12)]
        wait_until(lambda: sum(one.done() for one in sent) == 7)
        assert server.backend.running == 2
        refused = [one.result() for one in sent if one.done()]
        server.backend.hold.set()
        answers = [one.result() for one in sent]
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [503] * 7
        for answer in refused:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["title"] == "Busy"
        assert server.backend.most_running == 2
        assert predict(server).status_code == 200


def test_the_queue_has_room_again_after_refused_and_failed_requests():
    with running(limits=Limits(concurrency=1, queue=0)) as server:
        for _ in range(5):
            assert predict(server, b"<html>").status_code == 415
        server.backend.fail = True
        for _ in range(5):
            assert predict(server).status_code == 500
        server.backend.fail = False
        assert predict(server).status_code == 200


def test_bodies_share_a_bounded_memory():
    limits = Limits(photos=1, bytes=1_000_000, upload_seconds=20)
    assert limits.held_bytes == 4 * 1_100_000
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
    )
    with running(limits=limits) as server:
        uploads = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        for upload in uploads:
            upload.sendall(head + noise(999_000))
        time.sleep(0.5)
        assert predict(server).status_code == 200  # small ones still have room
        refused = predict(server, noise(900_000))
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        for upload in uploads:
            upload.close()
        wait_until(lambda: predict(server, noise(900_000)).status_code == 415)


def test_many_clients_get_only_answers():
    served = colour_model()
    contents = [photo_bytes(seed=seed) for seed in range(8)]
    expected = {content: dict(served.classifier.predict([content])[0].probabilities) for content in contents}
    with (
        running(served, Limits(concurrency=2, queue=40)) as server,
        ThreadPoolExecutor(16) as pool,
        httpx.Client() as client,
    ):

        def ask(number):
            content = contents[number % 8]
            answer = client.post(f"{server.url}/v1/predict", files={"photos": ("a.jpg", content)}, timeout=30)
            return answer.json()["answers"][0]["probabilities"] == expected[content]

        assert all(pool.map(ask, range(160)))


@pytest.mark.parametrize(("pixels", "most"), [(2_000, 1), (8_000, 4)])
def test_large_photos_are_decoded_one_at_a_time(monkeypatch, pixels, most):
    counts, lock, together = [0, 0], threading.Lock(), threading.Barrier(most)

    def slow_open(content, name):
        with lock:
            counts[0] += 1
            counts[1] = max(counts)
        together.wait(10)
        with lock:
            counts[0] -= 1
        return open_photo(content, name)

    monkeypatch.setattr(photos_module, "open_photo", slow_open)
    upload, limits = Upload("a.png", photo_bytes(size=(40, 30), kind="PNG")), Limits(pixels=pixels)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: read_photos([upload], 8, limits, keep_small=False), range(4)))
    assert counts == [0, most]


def test_connections_without_a_request_are_closed(monkeypatch):
    monkeypatch.setattr(running_module, "HEADER_SECONDS", 0.5)
    with running() as server:
        silent = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        second = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"alive" not in received:
            received += second.recv(65536)
        start = time.monotonic()
        for _ in range(8):
            for one in (slow, second):
                try:
                    one.sendall(b"G")
                except OSError:
                    continue
            time.sleep(0.1)
        for one in (silent, slow, second):
            with contextlib.suppress(ConnectionError):
                assert one.recv(100) == b""
        assert time.monotonic() - start < 8
        assert CLIENT.get(f"{server.url}/healthz").status_code == 200


def test_an_answer_that_nobody_fetches_is_dropped(monkeypatch):
    monkeypatch.setattr(running_module, "FLUSH_SECONDS", 0.5)
    monkeypatch.setattr(running_module, "KEEP_ALIVE_SECONDS", 0.2)
    photos = [("photos", ("a.png", photo_bytes(size=(512, 512), kind="PNG", seed=seed))) for seed in range(6)]
    sent = httpx.Request("POST", "http://localhost/v1/predict?overlay=true", files=photos)
    body = sent.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.headers.items())
    with running() as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(f"POST /v1/predict?overlay=true HTTP/1.1\r\n{head}\r\n".encode() + body)
        wait_until(lambda: len(server.server.server_state.connections) == 1)
        wait_until(lambda: not server.server.server_state.connections, seconds=30)


def test_a_refused_body_is_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(running_module, "HEADER_SECONDS", 0.5)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 10000000000\r\n\r\n"
    with (
        running(limits=Limits(bytes=1000, photos=1)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection,
    ):
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        deadline = time.monotonic() + 5
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.sendall(b"x" * 10_000)
                time.sleep(0.01)


def test_too_many_connections_are_dropped(monkeypatch):
    monkeypatch.setattr(running_module, "CONNECTIONS", 5)
    with running() as server:
        held = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(5)]
        time.sleep(0.2)
        with pytest.raises(httpx.TransportError):
            CLIENT.get(f"{server.url}/healthz")
        for one in held:
            one.close()
        time.sleep(0.2)
        assert CLIENT.get(f"{server.url}/healthz").status_code == 200


def test_stopping_says_so_first_and_finishes_what_runs():
    with running(drain_seconds=0.6) as server, ThreadPoolExecutor(2) as pool:
        server.backend.hold.clear()
        asked = pool.submit(predict, server)
        wait_until(lambda: server.backend.running == 1)
        server.server.handle_exit(signal.SIGTERM, None)
        assert CLIENT.get(f"{server.url}/readyz").status_code == 503
        assert CLIENT.get(f"{server.url}/healthz").status_code == 200
        time.sleep(1.5)
        with pytest.raises(httpx.TransportError):
            CLIENT.get(f"{server.url}/healthz")
        assert server.thread.is_alive()
        server.backend.hold.set()
        assert asked.result().status_code == 200
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_stopping_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(running_module, "FINISH_SECONDS", 0.5)
    with running() as server, ThreadPoolExecutor(2) as pool:
        server.backend.hold.clear()
        asked = pool.submit(predict, server)
        wait_until(lambda: server.backend.running == 1)
        server.server.handle_exit(signal.SIGINT, None)
        answer = asked.result()
        assert answer.status_code == 503
        assert answer.json()["title"] == "Stopping"
        server.thread.join(10)
        assert not server.thread.is_alive()


@pytest.mark.parametrize("wrong", [{"photos": 0}, {"bytes": -1}, {"queue": -1}, {"pixels": 0}, {"upload_seconds": float("nan")},
                                   {"concurrency": 0}, {"upload_seconds": float("inf")}])  # fmt: skip
def test_limits_that_let_nothing_in_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"limit of {next(iter(wrong)).replace('_', ' ')} must be"):
        Limits(**wrong)


def test_threads_end_with_the_server():
    before = threading.active_count()
    with running() as server:
        predict(server)
    wait_until(lambda: threading.active_count() <= before)
