"""Forms are read alike however they are cut into pieces, and as Starlette's own parser reads them."""

import asyncio
from itertools import pairwise

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server_harness import photo_bytes
from starlette.requests import Request

from hcoatnet.deploy.server.limits import Limits, Memory
from hcoatnet.deploy.server.photos import read_photos
from hcoatnet.deploy.server.problems import Refusal
from hcoatnet.deploy.server.uploads import Upload, read_uploads

LIMITS = Limits(photos=4, bytes=20_000, upload_seconds=5, pixels=100_000)
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PHOTOS = {kind: photo_bytes(size=(40, 30), kind=kind) for kind in KINDS}


def request_of(body, kind, cuts=()):
    """A request whose body arrives in pieces."""
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        return messages.pop(0)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind)], "query_string": b""}
    return Request(scope, receive)


def read(body, kind, cuts=()):
    async def work():
        async with Memory(LIMITS).share() as share:
            uploads = await read_uploads(request_of(body, kind, cuts), LIMITS, share)
            assert share.taken == len(body)
            return uploads

    return asyncio.run(work())


def read_by_starlette(body, kind):
    async def work():
        form = await request_of(body, kind).form()
        return [await file.read() for file in form.getlist("photos")]

    return asyncio.run(work())


contents = st.lists(
    st.binary(max_size=3000) | st.sampled_from([b"\r\n--", b"--B\r\n", b"\r\n", b"\r\n--B"]), min_size=1, max_size=4
)


@given(contents, st.lists(st.integers(0, 20_000), max_size=30))
@settings(max_examples=80, deadline=None)
def test_a_form_is_read_alike_however_it_is_cut(photos, cuts):
    sent = httpx.Request(
        "POST", "http://x", files=[("photos", (f"{number}.jpg", one)) for number, one in enumerate(photos)]
    )
    body, kind = sent.read(), sent.headers["content-type"].encode()
    uploads = read(body, kind, cuts)
    assert [one.content for one in uploads] == photos == read_by_starlette(body, kind)
    assert [one.name for one in uploads] == [f"{number}.jpg" for number in range(len(photos))]


def test_a_form_is_read_byte_by_byte():
    sent = httpx.Request("POST", "http://x", files={"photos": ("a.jpg", PHOTOS["JPEG"])})
    body = sent.read()
    (upload,) = read(body, sent.headers["content-type"].encode(), range(len(body)))
    assert upload == Upload("a.jpg", PHOTOS["JPEG"])


@given(
    st.binary(max_size=2000),
    st.sampled_from([b"multipart/form-data; boundary=B", b"image/png", b"", b"multipart/form-data"]),
)
@settings(max_examples=100, deadline=None)
def test_any_body_is_read_or_refused(body, kind):
    for whole in (
        body,
        b"--B\r\n" + body,
        b'--B\r\nContent-Disposition: form-data; name="photos"\r\n\r\n' + body + b"\r\n--B--",
    ):
        try:
            uploads = read(whole, kind, range(0, len(whole), 7))
        except Refusal as refusal:
            assert 400 <= refusal.status < 500
        else:
            assert sum(len(one.content) for one in uploads) <= len(whole)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6),
    st.integers(0, 5000),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_damage_to_a_photo_is_survived(kind, changes, length):
    content = bytearray(PHOTOS[kind])
    for place, value in changes:
        content[place % min(len(content), 200 if value % 2 else len(content))] = value
    content = bytes(content if length % 3 else content[: length % len(content)])
    try:
        (photo,) = read_photos([Upload("a", content)], 8, LIMITS, keep_small=True)
    except Refusal as refusal:
        assert refusal.status in (413, 415, 422)
        assert refusal.problems
    else:
        assert photo.pixels.shape == (3, 8, 8)
        assert photo.width * photo.height <= LIMITS.pixels


def test_a_share_is_given_back():
    memory = Memory(LIMITS)

    async def work():
        for _ in range(20):
            with pytest.raises(Refusal):
                async with memory.share() as share:
                    share.take(LIMITS.held_bytes)
                    share.take(1)

    asyncio.run(work())
