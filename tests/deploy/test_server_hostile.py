"""Whatever is sent to the server, it refuses it in order and goes on answering."""

import io
import json
import socket
import struct
import time
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image
from server_harness import CLIENT, noise, photo_bytes, resident_megabytes, running

from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.uploads import safe_name

LIMITS = Limits(photos=4, bytes=1_000_000, pixels=1_000_000, upload_seconds=2)


@pytest.fixture(scope="module")
def server():
    with running(limits=LIMITS) as started:
        yield started


@pytest.fixture(autouse=True)
def lives(server):
    """After each test a good photo is answered."""
    yield
    assert send(server, ("good.jpg", photo_bytes())).status_code == 200


def send(server, *photos, kind="image/jpeg"):
    return CLIENT.post(f"{server.url}/v1/predict", files=[("photos", (*one, kind)) for one in photos], timeout=20)


def raw(server, *parts, pause=0.0, wait=20.0):
    """Send bytes over a socket; returns all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as connection:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
                if _complete(received):
                    break
        except OSError:
            pass
    return received


def _complete(received):
    head, found, body = received.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(found) and bool(lengths) and len(body) >= lengths[0]


def status_of(received):
    return int(received.split(b" ", 2)[1])


def assert_problem(answer, status, rule=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["detail"].endswith(".")
    if rule is not None:
        assert [one["rule"] for one in document["problems"]] == [rule]
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


def png_of(width, height, pixels=b"", depth=8, colour=0):
    """A PNG whose header announces a size, whatever its data hold."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def zip_bytes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("photo.jpg", b"\0" * 5_000_000)
    return buffer.getvalue()


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_with_tiles_of_text():
    """A TIFF whose description is said to be the width of its tiles (tag 322 in place of 270; 2 is the type of text)."""
    content = saved(Image.new("L", (20, 20)), "TIFF", tiffinfo={270: "wide"})
    described, tiled = struct.pack("<HH", 270, 2), struct.pack("<HH", 322, 2)
    assert content.count(described) == 1
    return content.replace(described, tiled)


def gif_of(width, height):
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, width, height, 0)
        + b"\2\0;"
    )


def scans_bomb():
    whole = photo_bytes(progressive=True)
    return whole[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 500 + b"\xff\xd9"


def tile_bomb():
    """A TIFF of 16 × 16 pixels in one tile of 30,000 × 30,000."""
    tags = [(256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
            (322, 4, 1, 30000), (323, 4, 1, 30000), (324, 4, 1, 8), (325, 4, 1, 20)]  # fmt: skip
    data = zlib.compress(b"\0" * 100)[:20].ljust(20, b"\0")
    entries = b"".join(struct.pack("<HHII", *one) for one in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


BAD_PHOTOS = {
    "png_bomb": (lambda: png_of(20_000, 20_000, b"\0" * 20_001 * 100), 413, "too many pixels"),
    "png_of_2_to_the_31": (lambda: png_of(2**31 - 1, 2**31 - 1), 413, "too many pixels"),
    "jpeg_bomb": (lambda: saved(Image.new("L", (20_000, 20_000)), "JPEG")[:900_000], 413, "too many pixels"),
    "gif_bomb": (lambda: gif_of(60_000, 60_000), 413, "too many pixels"),
    "webp_bomb": (lambda: saved(Image.new("RGB", (8_000, 8_000)), "WEBP", lossless=True), 413, "too many pixels"),
    "tiff_tile_bomb": (tile_bomb, 413, "too many pixels"),
    "deep_and_large": (lambda: saved(Image.new("I;16", (700, 700)), "PNG"), 413, "too many pixels"),
    "see_through_and_large": (lambda: saved(Image.new("RGBA", (700, 700)), "PNG"), 413, "too many pixels"),
    "scans_bomb": (scans_bomb, 422, "too many scans"),
    "zip": (zip_bytes, 415, "not an image"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415, "not an image"),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", 415, "not an image"),
    "pdf": (lambda: b"%PDF-1.7 nothing", 415, "not an image"),
    "heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0", 415, "not an image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not an image"),
    "noise": (lambda: b"\1" + noise(100_000), 415, "not an image"),
    "empty": (lambda: b"", 422, "empty"),
    "one_byte": (lambda: b"\xff", 415, "not an image"),
    "jpeg_start_only": (lambda: b"\xff\xd8\xff", 422, None),
    "png_start_only": (lambda: b"\x89PNG\r\n\x1a\n", 422, None),
    "truncated_jpeg": (lambda: photo_bytes(size=(300, 200))[:3000], 422, "truncated"),
    "truncated_png": (lambda: photo_bytes(size=(300, 200), kind="PNG")[:3000], 422, None),
    "png_without_pixels": (lambda: png_of(64, 64), 422, None),
    "noise_after_jpeg_start": (lambda: b"\xff\xd8\xff\xe0" + noise(50_000), 422, None),
    "long_row": (lambda: saved(Image.new("1", (70_000, 1)), "PNG"), 413, "too many pixels"),
    "tiff_with_tiles_of_text": (tiff_with_tiles_of_text, 422, "unreadable"),
    "float_beyond_one": (lambda: saved(Image.fromarray(np.full((20, 20), 7.0, np.float32)), "TIFF"), 422, None),
    "too_many_bytes": (lambda: noise(1_000_001), 413, "too large"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PHOTOS)
def test_what_is_no_good_photo_is_refused(server, name):
    make, status, rule = BAD_PHOTOS[name]
    content = make()
    before = resident_megabytes()
    answer = send(server, (f"{name}.jpg", content))
    assert_problem(answer, status, rule)
    assert answer.json()["problems"][0]["name"] == f"{name}.jpg"
    assert resident_megabytes() - before < 50


GOOD_PHOTOS = {
    "large_palette": lambda: saved(Image.new("P", (900, 900), 1), "PNG"),
    "one_pixel": lambda: saved(Image.new("RGB", (1, 1), "red"), "PNG"),
    "one_row": lambda: saved(Image.new("RGB", (5000, 1), "red"), "PNG"),
    "sixteen_bits": lambda: saved(Image.fromarray(np.full((40, 40), 40_000, np.uint16)), "PNG"),
    "cmyk": lambda: saved(Image.new("CMYK", (40, 40), (10, 200, 200, 10)), "JPEG"),
    "grey": lambda: saved(Image.new("L", (40, 40), 90), "JPEG"),
    "palette_see_through": lambda: saved(Image.new("P", (40, 40), 1), "PNG", transparency=0),
    "jpeg_and_zip": lambda: photo_bytes() + zip_bytes(),
    "jpeg_and_html": lambda: photo_bytes() + b"<script>alert(1)</script>",
    "jpeg_with_a_comment": lambda: photo_bytes(comment=b"<script>alert(1)</script>"),
    "webp": lambda: photo_bytes(kind="WEBP"),
    "bmp": lambda: photo_bytes(kind="BMP"),
    "tiff": lambda: photo_bytes(kind="TIFF", compression="tiff_lzw"),
    "gif": lambda: photo_bytes(kind="GIF"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD_PHOTOS)
def test_odd_photos_are_answered(server, name):
    answer = send(server, (f"{name}.jpg", GOOD_PHOTOS[name]()), kind="text/html")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "alert" not in answer.text


def test_every_bad_photo_of_a_request_is_named(server):
    answer = send(server, ("a.jpg", photo_bytes()), ("b.jpg", b"BM"), ("c.jpg", b"<html>"))
    assert_problem(answer, 415)
    assert [one["name"] for one in answer.json()["problems"]] == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\lesion.jpg", "lesion.jpg"),
        ("<img src=x onerror=alert(1)>.jpg", "_img src=x onerror=alert(1)_.jpg"),
        ("a\0b\x1b[31m\r\nSet-Cookie: x.jpg", "ab[31mSet-Cookie: x.jpg"),
        ("evil\u202egpj.exe", "evilgpj.exe"),
        ("..", "photo 3"),
        ("/", "photo 3"),
        ("", "photo 3"),
        ("ä" * 500, "ä" * 100),
        ("läsion 皮.jpg", "läsion 皮.jpg"),
    ],
)
def test_names_are_made_safe_to_show(given, shown):
    assert safe_name(given, 3) == shown


def test_a_name_leads_nowhere(server):
    answer = send(server, ("../../etc/passwd", photo_bytes()), ("..\\..\\<b>.jpg", photo_bytes()))
    assert [one["name"] for one in answer.json()["answers"]] == ["passwd", "_b_.jpg"]


def form(*parts, boundary=b"B"):
    body = b"".join(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return body + b"--" + boundary + b"--\r\n"


PHOTO_HEAD = b'Content-Disposition: form-data; name="photos"; filename="a.jpg"'
MALFORMED = {
    "no_boundary": ("multipart/form-data", form((PHOTO_HEAD, b"x")), 400),
    "long_boundary": (f"multipart/form-data; boundary={'B' * 5000}", form((PHOTO_HEAD, b"x")), 400),
    "other_boundary": ("multipart/form-data; boundary=C", form((PHOTO_HEAD, b"x")), 400),
    "no_end": ("multipart/form-data; boundary=B", form((PHOTO_HEAD, photo_bytes()))[:-6], 400),
    "no_body": ("multipart/form-data; boundary=B", b"", 400),
    "no_part": ("multipart/form-data; boundary=B", b"--B--\r\n", (400, 422)),
    "other_field": ("multipart/form-data; boundary=B", form((b'Content-Disposition: form-data; name="x"', b"1")), 422),
    "no_disposition": ("multipart/form-data; boundary=B", form((b"Content-Type: image/jpeg", b"1")), 422),
    "huge_part_header": ("multipart/form-data; boundary=B", form((PHOTO_HEAD + b"A" * 100_000, b"x")), 400),
    "many_part_headers": ("multipart/form-data; boundary=B", form((PHOTO_HEAD + b"\r\nX: y" * 1000, b"x")), 400),
    "many_parts": ("multipart/form-data; boundary=B", form(*[(PHOTO_HEAD, b"x")] * 5000), 413),
    "noise": ("multipart/form-data; boundary=B", noise(10_000), 400),
    "json": ("application/json", b"{}", 415),
    "no_type": ("", b"hello", 415),
    "form": ("application/x-www-form-urlencoded", b"photos=1", 415),
    "odd_type": ("image", b"hello", 415),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_bodies_are_refused(server, name):
    kind, body, status = MALFORMED[name]
    answer = CLIENT.post(f"{server.url}/v1/predict", content=body, headers={"content-type": kind})
    assert_problem(answer, answer.status_code if answer.status_code in np.atleast_1d(status) else status)


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(server):
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}\r\n"
    for kind, length in [("image/jpeg", 1_000_001), ("multipart/form-data; boundary=B", 10**13)]:
        for expect in ("", "Expect: 100-continue\r\n"):
            received = raw(server, head.format(kind, length, expect).encode())
            assert status_of(received) == 413


def test_a_body_without_a_length_is_counted(server):
    def chunks():
        for _ in range(1000):
            yield noise(64_000)

    before = resident_megabytes()
    answer = CLIENT.post(f"{server.url}/v1/predict", content=chunks(), headers={"content-type": "image/jpeg"})
    assert_problem(answer, 413)
    assert resident_megabytes() - before < 30


def test_a_slow_body_is_given_up(server):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    start = time.monotonic()
    received = raw(server, head, *[b"x"] * 8, pause=0.4)
    assert status_of(received) == 408
    assert json.loads(received.partition(b"\r\n\r\n")[2])["title"] == "Too slow"
    assert time.monotonic() - start < 15


def test_a_client_that_leaves_is_no_matter(server):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + b"x" * 500)


BAD_HTTP = {
    "huge_header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "many_headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    "long_path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no_http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n",
    "two_lengths": b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "length_and_chunks": b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    "negative_length": b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    "no_host": b"GET / HTTP/1.1\r\n\r\n",
    "two_hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_HTTP)
def test_what_is_no_http_is_refused_with_the_same_headers(server, name):
    received = raw(server, BAD_HTTP[name])
    head, _, body = received.partition(b"\r\n\r\n")
    assert status_of(received) in (400, 431)
    assert b"content-security-policy: default-src 'none'" in head
    assert b"server:" not in head
    assert json.loads(body)["status"] == status_of(received)


def test_paths_lead_only_to_the_page(server):
    for path in ("/../app.py", "/..%2fapp.py", "/%2e%2e/app.py", "//etc/passwd", "/page/index.html", "/index.html%00"):
        received = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert status_of(received) == 404
