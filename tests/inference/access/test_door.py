"""The shut door, over the wire: an edge in front of inference that requires keys, and all that must not get in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from openai import AsyncOpenAI, AuthenticationError, PermissionDeniedError
from pydantic import SecretStr

from kit import telemetry
from kit.dial import dial
from kit.errors import Code, MillraceError
from kit.serve import Server
from kit.status import from_rpc_error
from millrace.inference.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    generation_pb2,
    inference_service_pb2,
    key_pb2,
    key_service_pb2,
    key_service_pb2_grpc,
)
from services.inference import wiring
from services.inference.access import secret
from services.inference.access.settings import AccessSettings
from services.inference.config import InferenceSettings
from services.inference.database.settings import DatabaseSettings
from tests.edge.conftest import RunningEdge, serving
from tests.inference.suite import DEADLINE_S, Serve, Suite, failure, spec

ROOT_KEY = secret.new_secret()
ASKED = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}
Headers = dict[str, str]


class Door:
    """Inference that requires keys, and an edge in front of it."""

    def __init__(self, suite: Suite, edge: RunningEdge, folder: Path) -> None:
        self.suite, self.edge, self.folder = suite, edge, folder

    async def make(self, name: str = "k", **fields: Any) -> tuple[str, str]:
        """The id and the secret of a new key."""
        answer = await self.edge.post("/admin/keys", {"name": name, **fields}, headers=bearer(ROOT_KEY))
        assert answer.status_code == 200, answer.text
        return answer.json()["id"], answer.json()["secret"]

    async def chat(self, headers: Headers, **fields: Any) -> httpx.Response:
        """Asks for one answer."""
        return await self.edge.post("/v1/chat/completions", {**ASKED, **fields}, headers=headers)

    async def generate(self, *metadata: tuple[str, str], **fields: Any) -> MillraceError:
        """The error that a call over gRPC ends with."""
        request = inference_service_pb2.GenerateRequest(spec=spec(**fields))
        return await failure(self.suite.stub.Generate(request, timeout=DEADLINE_S, metadata=metadata))


@pytest.fixture
async def door(serve: Serve, tmp_path: Path) -> AsyncIterator[Door]:
    """The door, shut."""
    access = AccessSettings(
        mode="required", pepper_path=tmp_path / "pepper", admin_key=SecretStr(ROOT_KEY), poll_s=0.05
    )
    suite = await serve(AUTO, access=access, cache=True)
    target = str(suite.channel._attributes["server.address"]) + f":{suite.channel._attributes['server.port']}"  # type: ignore[attr-defined]
    async with serving(target) as edge:
        yield Door(suite, edge, tmp_path)


AUTO = """  - {name: simple, targets: [{engine: openai, upstream: fake, model: s}]}
  - {name: complex, targets: [{engine: openai, upstream: fake, model: c}]}
auto: {simple: simple, complex: complex}
"""


def bearer(text: str) -> Headers:
    return {"Authorization": f"Bearer {text}"}


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_key_opens_every_way_in(door: Door) -> None:
    """REST in either header, streamed or not, and gRPC; over gRPC names are lower case, over HTTP any."""
    _, text = await door.make()
    assert (await door.chat(bearer(text))).status_code == 200
    assert (await door.chat({"x-ApI-kEy": text})).status_code == 200
    assert "[DONE]" in (await door.chat(bearer(text), stream=True)).text
    assert (await door.edge.post("/chat", {"message": "x", "model": "gpt"}, headers=bearer(text))).status_code == 200
    request = inference_service_pb2.GenerateRequest(spec=spec())
    answer = await door.suite.stub.Generate(request, timeout=DEADLINE_S, metadata=[("x-api-key", text)])

    assert answer.generation.choices


ATTACKS: dict[str, tuple[Headers | list[tuple[str, str]], int, str]] = {
    "nothing": ({}, 401, "missing_api_key"),
    "what SDKs send without a key": (bearer("none"), 401, "invalid_api_key"),
    "a guess": (bearer(secret.new_secret()), 401, "invalid_api_key"),
    "another scheme": ({"Authorization": "Basic YWRtaW46YWRtaW4="}, 401, "invalid_api_key"),
    "an empty key": ({"X-API-Key": ""}, 401, "invalid_api_key"),
    "a token that nobody signed": (bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."), 401, "invalid_api_key"),
    "a header that is too large": (bearer("x" * 5000), 431, "header_too_large"),
    "two headers that disagree": ({**bearer(ROOT_KEY), "X-API-Key": "x"}, 400, "credentials_ambiguous"),
    "the same header twice": (
        [("Authorization", f"Bearer {ROOT_KEY}"), ("Authorization", f"Bearer {ROOT_KEY}")],
        400,
        "credentials_ambiguous",
    ),
    "the principal of an administrator": ({"x-millrace-principal": "admin"}, 401, "missing_api_key"),
    "a client's id in place of a key": ({"X-Client-Id": "admin"}, 401, "missing_api_key"),
}


@pytest.mark.parametrize(("headers", "status", "code"), ATTACKS.values(), ids=ATTACKS)
async def test_what_is_no_key_does_not_get_in(door: Door, headers: Any, status: int, code: str) -> None:
    """The upstream is not asked, streams and batches are no way around, and 401 says how to do better."""
    for path, body in (
        ("/v1/chat/completions", ASKED),
        ("/v1/chat/completions", {**ASKED, "stream": True}),
        ("/batch-process", {"items": [{"message": "x"}], "model": "gpt"}),
        ("/v1/embeddings", {"model": "vectors", "input": "x"}),
        ("/v1/moderations", {"input": "x"}),
    ):
        answer = await door.edge.client.post(path, json=body, headers=headers)
        assert code_of(answer) == (status, code)
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert ("www-authenticate" in answer.headers) == (status == 401)
    for path in ("/v1/models", "/stats", "/admin/keys"):
        answer = await door.edge.client.get(path, headers=headers)
        assert code_of(answer) == (status, code)


@pytest.mark.parametrize(
    "query",
    ["api_key={}", "x=1&API-KEY={}", "access_token={}", "apikey={}", "authorization=Bearer%20{}", "q={}", "key={}"],
)
async def test_a_key_in_a_url_is_refused_by_name(door: Door, query: str) -> None:
    """Even a good one beside a good header: it stands in logs now."""
    url = f"/v1/models?{query.format(ROOT_KEY)}"

    assert code_of(await door.edge.get(url, headers=bearer(ROOT_KEY))) == (400, "key_in_url")


@pytest.mark.parametrize(
    "url", ["/v1/models/{}", "/v1/models/%6D{:.1}", "/chat-status/{}?x=1", "/v1/models?x=%6d{:.1}"]
)
async def test_no_spelling_hides_a_key_in_a_url(door: Door, url: str) -> None:
    """In the path as in the query, percent-encoded or not; the answer does not repeat it."""
    written = url.replace("{:.1}", ROOT_KEY[1:]).replace("{}", ROOT_KEY)
    answer = await door.edge.get(written, headers=bearer(ROOT_KEY))

    assert code_of(answer) == (400, "key_in_url")
    assert ROOT_KEY not in answer.text


@pytest.mark.parametrize("value", [b"Bearer k\xc3\xa9y", b"Bearer \x80\xff", b"Bearer a\tb"])
async def test_a_header_that_is_no_text_is_refused(door: Door, value: bytes) -> None:
    """What no metadata can carry is 401 at the edge, and no 500."""
    answer = await door.edge.client.post("/v1/chat/completions", json=ASKED, headers=[(b"authorization", value)])

    assert code_of(answer) == (401, "invalid_api_key")


async def test_a_key_ends_at_once_for_everybody(door: Door) -> None:
    """Revoked over REST, it is refused over REST and gRPC by the next call; rotated, the old secret is."""
    key_id, text = await door.make()
    assert (await door.chat(bearer(text))).status_code == 200
    rotated = await door.edge.post(f"/admin/keys/{key_id}/rotate", {}, headers=bearer(ROOT_KEY))
    assert code_of(await door.chat(bearer(text))) == (401, "invalid_api_key")
    text = rotated.json()["secret"]
    assert (await door.chat(bearer(text))).status_code == 200
    await door.edge.client.delete(f"/admin/keys/{key_id}", headers=bearer(ROOT_KEY))

    assert code_of(await door.chat(bearer(text))) == (401, "invalid_api_key")
    assert (await door.generate(("x-api-key", text))).reason == "KEY_REVOKED"
    listed = (await door.edge.get("/admin/keys?limit=1", headers=bearer(ROOT_KEY))).json()
    assert listed["data"][0]["revoked_at"]
    assert text not in str(listed)


async def test_a_revocation_reaches_another_replica(door: Door) -> None:
    """A second inference over the same database sends the key away as soon as it has polled."""
    key_id, text = await door.make()
    settings = InferenceSettings(
        port=0,
        models_file=door.folder / "models.yaml",
        access=AccessSettings(mode="required", pepper_path=door.folder / "pepper", poll_s=0.05),
        database=DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{door.folder}/millrace.sqlite3")),
        cache={"target": "none"},  # type: ignore[arg-type]
        safety={"target": "none"},  # type: ignore[arg-type]
    )
    other = await wiring.build(settings, telemetry.off(), {})
    server = Server("inference", settings, other.registrations, telemetry.off())
    port = await server.start()
    await other.warm(server)
    server.set_serving("", True)
    async with dial(f"127.0.0.1:{port}") as channel:
        stub = access_service_pb2_grpc.AccessServiceStub(channel)

        async def who() -> str:
            try:
                answer = await stub.GetCaller(  # type: ignore[misc]
                    access_service_pb2.GetCallerRequest(), timeout=DEADLINE_S, metadata=[("x-api-key", text)]
                )
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error).reason
            return str(answer.role)

        before = await who()
        await door.edge.client.delete(f"/admin/keys/{key_id}", headers=bearer(ROOT_KEY))
        async with asyncio.timeout(DEADLINE_S):
            while (after := await who()) == "user":
                pass
    await server.stop(0)
    await other.close()

    assert (before, after) == ("user", "KEY_REVOKED")


async def test_tenants_are_not_spoofed(door: Door) -> None:
    """A user's key with another tenant in its metadata is refused; a service's acts for it; REST has no such header."""
    _, user = await door.make(tenant="acme")
    _, service = await door.make(role="service")
    spoofed = await door.generate(("x-api-key", user), ("x-millrace-tenant", "victim"))
    over_rest = await door.chat({**bearer(user), "x-millrace-tenant": "victim"})
    acting = await _caller(door, ("x-api-key", service), ("x-millrace-tenant", "victim"))

    assert (spoofed.code, spoofed.reason) == (Code.PERMISSION_DENIED, "TENANT_NOT_ALLOWED")
    assert over_rest.status_code == 200
    assert (acting.tenant, acting.role) == ("victim", "service")


async def test_one_tenants_answers_are_not_anothers(door: Door) -> None:
    """The same question under keys of two tenants: each pays for its own answer, then gets that again."""
    _, one = await door.make(tenant="one")
    _, two = await door.make(tenant="two")
    outcomes = []
    for text in (one, two, one, two):
        answer = await door.chat(bearer(text), temperature=0)
        outcomes.append(answer.headers["x-millrace-cache"])

    assert outcomes == ["miss", "miss", "exact", "exact"]


async def _caller(door: Door, *metadata: tuple[str, str]) -> access_service_pb2.GetCallerResponse:
    stub = access_service_pb2_grpc.AccessServiceStub(door.suite.channel)
    request = access_service_pb2.GetCallerRequest()
    return await stub.GetCaller(request, timeout=DEADLINE_S, metadata=metadata)  # type: ignore[misc, no-any-return]


SCOPED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another model": ({"models": ["gpt"]}, {"model": "spared"}, "model_not_allowed"),
    "a model behind a pattern": ({"models": ["any-a*"]}, {"model": "any-b"}, "model_not_allowed"),
    "what auto picks": ({"models": ["auto", "complex"]}, {"model": "auto"}, "model_not_allowed"),
    "a fallback": ({"models": ["gpt"]}, {"millrace": {"fallbacks": ["spared"]}}, "model_not_allowed"),
    "the route's own safety profile": ({"safety_profiles": ["strict"]}, {}, "profile_not_allowed"),
    "another endpoint": ({"endpoints": ["embed"]}, {}, "endpoint_not_allowed"),
}


@pytest.mark.parametrize(("scopes", "asked", "code"), SCOPED.values(), ids=SCOPED)
async def test_a_scope_holds_whatever_way_a_request_takes(
    door: Door, scopes: dict[str, Any], asked: dict[str, Any], code: str
) -> None:
    """Asked by name, by pattern, through `auto` or as a fallback: 403 names what is not in the scope."""
    _, text = await door.make(**scopes)
    fallbacks = asked.pop("millrace", {}).get("fallbacks", [])
    if fallbacks:
        routing = generation_pb2.RoutingPolicy(fallbacks=fallbacks)
        error = await door.generate(("x-api-key", text), routing=routing)
        assert (error.code, error.reason.lower()) == (Code.PERMISSION_DENIED, code)
        assert fallbacks[0] in error.message
        return
    for stream in (False, True):
        assert code_of(await door.chat(bearer(text), stream=stream, **asked)) == (403, code)


async def test_a_scope_lets_through_what_it_names(door: Door) -> None:
    """And the list of models shows just that."""
    _, text = await door.make(models=["gpt", "any-a*", "simple"])
    for model in ("gpt", "any-abc", "auto"):
        assert (await door.chat(bearer(text), model=model)).status_code == 200
    listed = (await door.edge.get("/v1/models", headers=bearer(text))).json()

    assert [model["id"] for model in listed["data"]] == ["gpt", "simple"]
    assert code_of(await door.edge.get("/v1/models/spared", headers=bearer(text))) == (403, "model_not_allowed")
    embedding = await door.edge.post("/v1/embeddings", {"model": "vectors", "input": "x"}, headers=bearer(text))
    assert code_of(embedding) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    "path", ["/admin/keys/", "/admin/../admin/keys", "//admin/keys", "/ADMIN/keys", "/admin%2fkeys"]
)
async def test_no_spelling_of_a_path_leads_around_the_door(door: Door, path: str) -> None:
    """There is one spelling; what a proxy might take for it is no path here, or asks for a key like it."""
    answer = await door.edge.client.get(path)

    assert answer.status_code in (401, 404, 405)


@pytest.mark.parametrize("fields", [{"role": "guest"}, {"endpoints": ["generate"]}])
async def test_who_may_have_nothing_kept_is_answered(door: Door, fields: dict[str, Any]) -> None:
    """A response is not kept for them, and one that must be is 403."""
    _, text = await door.make(**fields)
    body = {"model": "gpt", "input": "hi"}
    answer = await door.edge.post("/v1/responses", body, headers=bearer(text))
    assert (answer.status_code, answer.json()["store"]) == (200, False)
    for wish in ({"store": True}, {"background": True}):
        refused = await door.edge.post("/v1/responses", {**body, **wish}, headers=bearer(text))
        assert refused.status_code == 403
        assert "`store` false" in refused.json()["error"]["message"]
    batch = {"input_file_id": "file-x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert (await door.edge.post("/v1/batches", batch, headers=bearer(text))).status_code == 403


async def test_work_for_later_is_refused_at_once(door: Door) -> None:
    """A model out of scope is 403 in the background as it is for whoever waits."""
    _, text = await door.make(models=["gpt"])
    later = {"model": "vectors", "input": "hi", "background": True}
    answers = [
        await door.edge.post("/v1/responses", later, headers=bearer(text)),
        await door.edge.post("/chat-async", {"message": "hi", "model": "nothing"}, headers=bearer(text)),
    ]

    assert [code_of(answer) for answer in answers] == [(403, "model_not_allowed")] * 2


async def test_a_user_counts_its_own_keys(door: Door) -> None:
    """In /stats, as everything else there; an administrator sees them all."""
    _, text = await door.make(role="user", principal="ada")
    await door.make(role="user", principal="ada")
    await door.make(role="user", principal="bob")
    own = (await door.edge.get("/stats", headers=bearer(text))).json()

    assert own["total_api_keys"] == 2


@pytest.mark.parametrize("role", ["user", "guest", "service"])
async def test_only_administrators_administer(door: Door, role: str) -> None:
    """403 for every way to make, see or end a key or a user."""
    key_id, text = await door.make(role=role)
    assert code_of(await door.edge.get("/admin/keys", headers=bearer(text))) == (403, "role_not_allowed")
    made = await door.edge.post("/admin/keys", {"name": "x", "role": "admin"}, headers=bearer(text))
    assert code_of(made) == (403, "role_not_allowed")
    ended = await door.edge.client.delete(f"/admin/keys/{key_id}", headers=bearer(text))
    assert code_of(ended) == (403, "role_not_allowed")
    stub = access_service_pb2_grpc.AccessServiceStub(door.suite.channel)
    user = access_service_pb2.CreateUserRequest(user=access_service_pb2.User(name="eve"), password="x" * 12)
    error = await failure(stub.CreateUser(user, timeout=DEADLINE_S, metadata=[("x-api-key", text)]))  # type: ignore[arg-type]

    assert error.reason == "ROLE_NOT_ALLOWED"


@pytest.mark.parametrize("role", ["user", "guest"])
async def test_priority_is_not_the_callers_to_take(door: Door, role: str) -> None:
    """Above 0 it is for services; below it is anybody's."""
    _, text = await door.make(role=role)
    error = await door.generate(("x-api-key", text), routing=generation_pb2.RoutingPolicy(priority=1))
    assert error.reason == "PRIORITY_NOT_ALLOWED"
    request = inference_service_pb2.GenerateRequest(spec=spec(routing=generation_pb2.RoutingPolicy(priority=-5)))

    assert await door.suite.stub.Generate(request, timeout=DEADLINE_S, metadata=[("x-api-key", text)])


@pytest.mark.parametrize("count", [-1, 0, -(2**31), 2**31 - 1, 2**63, 1e300])
async def test_token_counts_are_no_way_to_free_tokens(door: Door, count: float) -> None:
    """Negative and huge ones are refused before anything is reserved or asked."""
    _, text = await door.make()
    answer = await door.chat(bearer(text), max_tokens=count)

    assert answer.status_code == 400


async def test_a_login_opens_the_door_for_a_while(door: Door) -> None:
    """Name and password become a token, a refresh token becomes the next one, once."""
    stub = access_service_pb2_grpc.AccessServiceStub(door.suite.channel)
    user = access_service_pb2.User(name="ada", tenant="acme", role=key_pb2.KEY_ROLE_USER)
    create = access_service_pb2.CreateUserRequest(user=user, password="correct horse")
    await stub.CreateUser(create, timeout=DEADLINE_S, metadata=[("x-api-key", ROOT_KEY)])  # type: ignore[misc]
    wrong = await door.edge.post("/login", {"username": "ada", "password": "wrong"})
    login = await door.edge.post("/login", {"username": "ada", "password": "correct horse"})
    token = login.json()["access_token"]
    fresh = await door.edge.post("/login/refresh", {"refresh_token": login.json()["refresh_token"]})
    again = await door.edge.post("/login/refresh", {"refresh_token": login.json()["refresh_token"]})

    assert code_of(wrong) == (401, "login_failed")
    assert login.headers["cache-control"] == "no-store"
    assert (await door.chat(bearer(token))).status_code == 200
    assert (await door.chat(bearer(fresh.json()["access_token"]))).status_code == 200
    assert code_of(again) == (401, "refresh_token_reused")
    who = await _caller(door, ("authorization", f"Bearer {token}"))
    assert (who.principal, who.tenant, who.role) == ("ada", "acme", "user")


async def test_openai_python_knows_what_is_wrong(door: Door) -> None:
    """A good key works unchanged; a bad one is its AuthenticationError, what is out of scope its PermissionDenied."""
    _, text = await door.make(models=["gpt"])
    message: Any = ASKED["messages"]
    async with AsyncOpenAI(base_url=f"{door.edge.url}/v1", api_key=text, max_retries=0) as client:
        answer = await client.chat.completions.create(model="gpt", messages=message)
        assert answer.choices[0].message.content
        with pytest.raises(PermissionDeniedError) as denied:
            await client.chat.completions.create(model="spared", messages=message)
        with pytest.raises(AuthenticationError) as unknown:
            await client.with_options(api_key="sk-x").chat.completions.create(model="gpt", messages=message)

    assert denied.value.code == "model_not_allowed"
    assert unknown.value.code == "invalid_api_key"


async def test_no_log_span_or_error_shows_a_key(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Good, bad, revoked and misplaced keys, passwords and tokens: nothing of them is told anywhere."""
    caplog.set_level(logging.DEBUG)
    key_id, text = await door.make(role="admin")
    guess, password = secret.new_secret(), "a password to look for"
    told = [
        (await door.chat(bearer(text))).text,
        (await door.chat(bearer(guess))).text,
        (await door.chat({**bearer(text), "X-API-Key": guess})).text,
        (await door.edge.get(f"/v1/models?api_key={text}")).text,
        (await door.edge.get("/admin/keys", headers=bearer(text))).text,
        (await door.edge.post("/login", {"username": "ada", "password": password})).text,
        (await door.edge.post("/admin/keys", {"name": text, "role": "x"}, headers=bearer(text))).text,
    ]
    await door.edge.client.delete(f"/admin/keys/{key_id}", headers=bearer(text))
    told.append((await door.chat(bearer(text))).text)
    told += [span.to_json() for span in door.suite.spans.spans]
    ours = [record for record in caplog.records if record.name.startswith(("kit", "services", "grpc", "asyncio"))]
    told += [f"{record.getMessage()} {record.__dict__}" for record in ours]
    told += [Path("/proc/self/cmdline").read_text()]

    for one in (text, guess, password, ROOT_KEY):
        assert not [line for line in told if one in line or one[12:40] in line]
    assert len(door.suite.spans.spans) > 5


async def test_keys_over_grpc(door: Door) -> None:
    """KeyService is what the REST of administrators translates: make, list, rotate, revoke."""
    stub: Any = key_service_pb2_grpc.KeyServiceStub(door.suite.channel)
    options: dict[str, Any] = {"timeout": DEADLINE_S, "metadata": [("x-api-key", ROOT_KEY)]}
    asked = key_pb2.Key(name="k", tier="premium", endpoints=["embed"])
    made = await stub.CreateKey(key_service_pb2.CreateKeyRequest(key=asked), **options)
    rotate = key_service_pb2.RotateKeyRequest(key_id=made.key.key_id)
    rotate.overlap.seconds = 60
    rotated = await stub.RotateKey(rotate, **options)
    page = await stub.ListKeys(key_service_pb2.ListKeysRequest(page_size=1), **options)
    nobody = await failure(stub.RevokeKey(key_service_pb2.RevokeKeyRequest(key_id="x"), **options))

    assert made.key.role == key_pb2.KEY_ROLE_USER
    assert made.secret.startswith(made.key.prefix)
    assert rotated.key.prefix == page.keys[0].prefix != made.key.prefix
    assert (await _caller(door, ("x-api-key", made.secret))).tier == "premium"
    assert nobody.reason == "KEY_NOT_FOUND"


@pytest.mark.parametrize("overlap_s", [-1, 31 * 86_400])
async def test_an_overlap_has_bounds(door: Door, overlap_s: int) -> None:
    """A rotation that never ends would be none."""
    key_id, _ = await door.make()
    stub: Any = key_service_pb2_grpc.KeyServiceStub(door.suite.channel)
    request = key_service_pb2.RotateKeyRequest(key_id=key_id)
    request.overlap.seconds = overlap_s
    error = await failure(stub.RotateKey(request, timeout=DEADLINE_S, metadata=[("x-api-key", ROOT_KEY)]))

    assert error.field_violations[0].field == "overlap"


async def test_health_needs_no_key(door: Door) -> None:
    """Probes and the figures for Prometheus work for those who have none; they tell of no model."""
    for path in ("/livez", "/readyz", "/health", "/metrics", "/openapi.json", "/docs"):
        assert (await door.edge.get(path)).status_code == 200
    assert (await door.edge.get("/health/detailed")).json()["models"] == {}
