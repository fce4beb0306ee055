"""What ``/openapi.json`` says beyond what FastAPI finds out by itself: bodies, refusals, the token."""

from typing import Any

from fastapi import FastAPI

from hcoatnet.deploy.server.problems import MEDIA_TYPE
from hcoatnet.deploy.server.schemas import ProblemDocument
from hcoatnet.deploy.server.uploads import FIELD

WHEN = {
    400: "The body is malformed or was cut short.",
    401: "The token is missing or wrong.",
    403: "The request comes from a page of another server.",
    408: "The photos took too long to arrive.",
    413: "A photo, or all together, are too large, or there are too many.",
    415: "A photo, or the body, is of a type that is not read.",
    422: "A photo is damaged, none was sent, or a parameter is not valid.",
    503: "The server is busy (then Retry-After says when to try again) or stops.",
}
EXAMPLE = {
    "title": "Not a photo",
    "status": 415,
    "detail": "The photo cannot be answered; nothing was computed.",
    "problems": [
        {
            "name": "notes.pdf",
            "rule": "not an image",
            "found": "the file begins with b'%PDF-1.7', which is no photo",
            "expected": "JPEG, PNG, WebP, BMP, TIFF or GIF",
            "fix": "Export it as JPEG or PNG, or take it out.",
        }
    ],
}


def predict_body(most: int) -> dict[str, Any]:
    """The body of ``POST /v1/predict``, of at most so many photos."""
    photo = {"type": "string", "format": "binary"}
    photos = {"type": "array", "items": photo, "minItems": 1, "maxItems": most}
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: photos}, "additionalProperties": False}
    return {
        "required": True,
        "description": "JPEG, PNG, WebP, BMP, TIFF or GIF, whatever the file is called. See /v1/model for the limits.",
        "content": {"multipart/form-data": {"schema": form}, "image/*": {"schema": photo}},
    }


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for FastAPI's ``responses``."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        schema = {"$ref": f"#/components/schemas/{ProblemDocument.__name__}"}
        content: dict[str, Any] = {"schema": schema}
        if status == EXAMPLE["status"]:
            content["example"] = EXAMPLE
        described[status] = {"description": WHEN[status], "content": {MEDIA_TYPE: content}}
    return described


def describe_api(app: FastAPI, *, needs_token: bool) -> None:
    """Complete the description of the API, once.

    Args:
        app: With all its routes.
        needs_token: Whether requests to the model must bring a token.
    """
    description = app.openapi()
    components = description.setdefault("components", {})
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"] |= {**schema.pop("$defs"), ProblemDocument.__name__: schema}
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in description["paths"].items():
            if path.startswith("/v1/"):
                for operation in operations.values():
                    operation["security"] = [{"token": []}]
    else:
        for operations in description["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("401", None)
    app.openapi_schema = description
