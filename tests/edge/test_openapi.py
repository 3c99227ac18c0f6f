"""The document, the page that shows it, and whether the edge keeps to it."""

from __future__ import annotations

import asyncio
import re

import jsonschema
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

EXAMPLES_MAX = 12


def no_internal_error(context, response, case):
    """500 is a bug; 501, 503 and 504 may be the truth, for instance after a timeout of one millisecond."""
    assert response.status_code != 500, response.text


CHECKS = (
    no_internal_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
)


async def test_every_route_is_in_the_document(edge):
    """The document has every endpoint that was promised, under its own operation id."""
    paths = (await edge.get("/openapi.json")).json()["paths"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]

    assert {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/moderations",
        "/v1/models",
        "/v1/models/{model}",
        "/chat",
        "/chat/stream",
        "/chat/smart",
        "/chat/safe",
        "/summarize",
        "/generate",
        "/batch-process",
        "/health",
        "/health/detailed",
        "/livez",
        "/readyz",
        "/ready",
        "/stats",
        "/history",
        "/v1/usage",
        "/metrics",
    } <= paths.keys()
    assert len(ids) == len(set(ids))


async def test_every_schema_is_a_schema(edge):
    """Each component is valid JSON Schema and every reference has its target."""
    answer = await edge.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]

    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert set(re.findall(r"#/components/schemas/([^\"]+)", answer.text)) <= schemas.keys()


async def test_the_page_needs_nothing_from_elsewhere(edge):
    """The page and what it loads come from the edge, under a policy that allows nothing else."""
    page = await edge.get("/docs")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert all(path.startswith("/") for path in loaded)
    for path in loaded:
        assert (await edge.get(path)).status_code == 200


async def test_no_input_finds_a_500_or_breaks_the_document(edge):
    """Generated requests, good and bad, to every operation: no server error, and every answer as documented."""
    schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{edge.url}/openapi.json")
    await asyncio.to_thread(_try_all, schema)


def _try_all(schema) -> None:
    """Runs every operation's cases, good ones and bad ones, one after the other."""
    for found in schema.get_all_operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _try(found.ok(), mode)


def _try(operation, mode) -> None:
    @settings(
        max_examples=EXAMPLES_MAX,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case):
        case.call_and_validate(checks=CHECKS, timeout=10)

    attempt()
