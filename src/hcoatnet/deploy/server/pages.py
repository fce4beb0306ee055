"""The files of the page, read once into memory; what is not among them does not exist."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
ADDRESSES = {"index.html": "/", "docs.html": "/docs"}


def page_routes(folder: Traversable | None = None) -> list[Route]:
    """A route for each file of the page.

    Args:
        folder: Where they lie; the package's own by default.
    """
    folder = folder or files("hcoatnet.deploy.server") / "page"
    routes = []
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        media_type = MEDIA_TYPES.get(file.name.rpartition(".")[2])
        if media_type is not None:
            address = ADDRESSES.get(file.name, f"/{file.name}")
            routes.append(_route(address, file.read_bytes(), media_type))
    return routes


def _route(address: str, content: bytes, media_type: str) -> Route:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return Route(address, answer)
