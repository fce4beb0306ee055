"""What ``/openapi.json`` says is what the server does: requests made from it, good ones and bad ones."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig as Config
from schemathesis.specs.openapi.checks import positive_data_acceptance
from server_harness import CLIENT, photo_bytes, running

from hcoatnet.deploy.server.limits import Limits
from hcoatnet.deploy.server.security import Access

TOKEN = "a-token-for-the-tests-only"
GOOD, BAD = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [
    ("/v1/predict", "POST", GOOD),
    ("/v1/predict", "POST", BAD),
    ("/v1/model", "GET", GOOD),
    ("/v1/model", "GET", BAD),
    ("/healthz", "GET", GOOD),  # nothing about it can be bad
    ("/readyz", "GET", GOOD),
]


@pytest.fixture(scope="module")
def server():
    with running(limits=Limits(photos=3, bytes=200_000), access=Access(token=TOKEN), pages=()) as started:
        yield started


@pytest.fixture(scope="module")
def description(server):
    return CLIENT.get(f"{server.url}/openapi.json").json()


@pytest.fixture
def api_schema(server):
    config = Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 413, 415, 422]}}})
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json", config=config)


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_requests_made_from_the_description(server, api_schema, path, method, mode):
    operation, statuses = api_schema[path][method], set()

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        answer = case.call_and_validate(
            headers={"Authorization": f"Bearer {TOKEN}"},
            excluded_checks=[positive_data_acceptance],  # no schema can say what a photo is
        )
        statuses.add(answer.status_code)

    ask()
    assert max(statuses) < 500


def test_every_route_and_every_refusal_is_described(description):
    assert set(description["paths"]) == {"/v1/predict", "/v1/model", "/healthz", "/readyz"}
    responses = description["paths"]["/v1/predict"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "408", "413", "415", "422", "503"}
    for status, response in responses.items():
        kind = "application/json" if status == "200" else "application/problem+json"
        assert set(response["content"]) == {kind}
    assert description["paths"]["/v1/model"]["get"]["security"] == [{"token": []}]
    assert "HTTPValidationError" not in description["components"]["schemas"]


def test_without_a_token_none_is_described():
    with running(pages=()) as server:
        described = CLIENT.get(f"{server.url}/openapi.json").json()
    assert "securitySchemes" not in described["components"]
    assert "401" not in described["paths"]["/v1/predict"]["post"]["responses"]


def test_a_real_answer_has_the_described_shape(server, api_schema):
    given = {"Authorization": f"Bearer {TOKEN}"}
    files = [("photos", ("a.jpg", photo_bytes())), ("photos", ("b.jpg", photo_bytes()))]
    bad = [("photos", ("a.jpg", b"<html>"))]
    operation = api_schema["/v1/predict"]["POST"]
    for query, sent, status in [("", files, 200), ("?trace=true&overlay=true", files, 200), ("", bad, 415)]:
        answer = CLIENT.post(f"{server.url}/v1/predict{query}", files=sent, headers=given)
        answer.request.read()
        assert answer.status_code == status
        operation.validate_response(answer)
