"""The HTTP application: routes, what they answer, and their description in ``/openapi.json``."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from hcoatnet import __version__
from hcoatnet.deploy.server import problems, schemas
from hcoatnet.deploy.server.description import describe_api, predict_body, refusals
from hcoatnet.deploy.server.limits import Gate, Limits, Memory
from hcoatnet.deploy.server.problems import Refusal
from hcoatnet.deploy.server.security import Access, Shield
from hcoatnet.deploy.server.served import Served
from hcoatnet.deploy.server.uploads import read_uploads


@dataclass
class Readiness:
    """Whether the server takes new work; the only thing about it that changes."""

    draining: bool = False


def create_app(
    served: Served,
    limits: Limits | None = None,
    access: Access | None = None,
    readiness: Readiness | None = None,
    pages: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """The application around a model.

    Args:
        served: The model.
        limits: What is let in.
        access: Who may ask.
        readiness: Read by ``/readyz``.
        pages: Routes of the page, beside those of the API.
    """
    limits, access, readiness = limits or Limits(), access or Access(), readiness or Readiness()
    workers = ThreadPoolExecutor(limits.concurrency, thread_name_prefix="predict")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        workers.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="H-CoAtNet server",
        version=__version__,
        description=f"{schemas.NOTICE} Photos stay in memory for the time of a request. None is written or logged.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy it would lead from https to http, with token and photos
        lifespan=lifespan,
        exception_handlers={
            Refusal: _answer_refusal,
            HTTPException: _answer_http_error,
            RequestValidationError: _answer_invalid,
            Exception: _leave_to_shield,
        },
    )
    _add_api(app, served, limits, access, workers)
    _add_probes(app, readiness)
    app.router.routes.extend(pages)
    describe_api(app, needs_token=access.token is not None)
    return Shield(app, access, [route.path for route in app.routes if hasattr(route, "path")])


def _add_api(app: FastAPI, served: Served, limits: Limits, access: Access, workers: ThreadPoolExecutor) -> None:
    gate, memory = Gate(limits), Memory(limits)
    facts = schemas.ModelFacts.model_validate(served.describe(limits, access.token is not None))

    @app.post(
        "/v1/predict",
        summary="Answer one photo or several",
        response_model=schemas.Prediction,
        response_model_exclude_unset=True,
        responses=refusals(400, 401, 403, 408, 413, 415, 422, 503),
        openapi_extra={"requestBody": predict_body(limits.photos)},
        tags=["model"],
    )
    async def predict(request: Request, wanted: Annotated[schemas.Wanted, Query()]) -> Any:
        """Photos in, answers out, in the same order.

        A request with a photo that cannot be read is refused as a whole, and the refusal names each such photo.
        """
        gate.check()
        async with memory.share() as share:
            uploads = await read_uploads(request, limits, share)
            async with gate.enter():
                work = partial(served.predict, uploads, limits, **wanted.model_dump())
                return await asyncio.get_running_loop().run_in_executor(workers, work)

    @app.get("/v1/model", summary="The model that answers", responses=refusals(401), tags=["model"])
    async def model() -> schemas.ModelFacts:
        """Its classes, its rules for prediction sets and abstaining, its card, and what the server lets in."""
        return facts


def _add_probes(app: FastAPI, readiness: Readiness) -> None:
    @app.get("/healthz", summary="Whether the process lives", tags=["probes"])
    async def healthz() -> schemas.State:
        """Always 200 while the process answers at all."""
        return schemas.State(status="alive")

    @app.get("/readyz", summary="Whether to send requests here", responses=refusals(503), tags=["probes"])
    async def readyz() -> schemas.State:
        """200 with the model loaded; 503 once the server was told to stop."""
        if readiness.draining:
            raise Refusal(503, "Stopping", "The server was told to stop. Send new requests to another.")
        return schemas.State(status="ready")


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return Response(error.to_bytes(), error.status, headers=error.headers, media_type=problems.MEDIA_TYPE)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    detail = "There is nothing at this address." if error.status_code == 404 else f"{title}."
    return await _answer_refusal(request, Refusal(error.status_code, title, detail, headers=error.headers))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = sorted({str(one["loc"][-1]) for one in error.errors()})
    detail = f"Not valid: {', '.join(wrong)}. /openapi.json says what is."
    return await _answer_refusal(request, Refusal(422, "Invalid parameter", detail))


async def _leave_to_shield(request: Request, error: Exception) -> Response:
    """Keeps Starlette from answering errors of the server itself in its own way."""
    raise error
