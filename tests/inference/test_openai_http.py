"""The openai engine's connections, against a server that does with them what it likes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kit.errors import Code, ConfigError, MillraceError
from services.inference.engines import openai_engine, openai_http
from services.inference.engines.openai_engine import OpenAIEngine
from services.inference.generation import Delta, EngineEvent, Message, Prompt, Role, TextPart
from services.inference.routing.catalog import Upstream
from tests.fakes.certificates import Authority
from tests.faults import answers
from tests.faults.upstream import Asked, End, Pause, Script, ScriptedUpstream
from tests.inference.suite import only_tasks, tasks_now

DEADLINE_S = 5.0
PROMPT = Prompt("gpt", messages=(Message(Role.USER, (TextPart("hi"),)),))
Answers = Callable[[Asked], Script]
Start = Callable[..., Awaitable[tuple[ScriptedUpstream, OpenAIEngine]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts an upstream that follows a script, and its engine."""
    async with AsyncExitStack() as stack:

        async def make(
            script: Answers, tls: ssl.SSLContext | None = None, **fields: object
        ) -> tuple[ScriptedUpstream, OpenAIEngine]:
            upstream = ScriptedUpstream(script, tls)
            await upstream.start()
            stack.push_async_callback(upstream.stop)
            entry = Upstream.model_validate({"base_url": upstream.url, **fields})
            engine = OpenAIEngine("fake", entry, None)
            await engine.warm()
            stack.push_async_callback(engine.close)
            return upstream, engine

        yield make


async def ask(engine: OpenAIEngine) -> list[EngineEvent]:
    async with asyncio.timeout(DEADLINE_S):
        return [event async for batch in engine.generate(PROMPT, None) for event in batch]


async def text(engine: OpenAIEngine) -> str:
    """The text of an answer, once its connection is back in the pool or closed."""
    before = tasks_now()
    events = await ask(engine)
    await only_tasks(before)
    return "".join(event.text for event in events if isinstance(event, Delta))


async def failure(engine: OpenAIEngine) -> MillraceError:
    try:
        answer = await ask(engine)
    except MillraceError as error:
        return error
    raise AssertionError(f"it succeeded: {answer}")


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what the server's side of a connection shows."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a look at a set, not a wait for a time
            await asyncio.sleep(0.001)


def from_the_second_on(*steps: bytes | Pause | End) -> Answers:
    """A good answer to the first request of a connection, then the steps."""
    return lambda asked: answers.good() if asked.number == 1 else steps


async def test_a_connection_that_was_closed_while_idle_is_not_used(start: Start) -> None:
    """News of the end that came in time costs nothing: the next request has a connection of its own."""
    upstream, engine = await start(lambda asked: answers.good())
    await text(engine)
    upstream.hang_up()
    await until(lambda: upstream.open_count == 0)

    assert await text(engine) == answers.TEXT
    assert (upstream.connection_count, len(upstream.asked)) == (2, 2)


@pytest.mark.parametrize("how", [End.CLOSE, End.RESET])
async def test_a_connection_that_is_closed_as_it_is_used_again_is_no_failure(start: Start, how: End) -> None:
    """The request that met the end on its way is sent once more, at once, on a connection that is new."""
    upstream, engine = await start(from_the_second_on(how))
    await text(engine)

    assert await text(engine) == answers.TEXT
    assert (upstream.connection_count, len(upstream.asked)) == (2, 3)


async def test_many_stale_connections_cost_one_more_request_each(start: Start) -> None:
    """A pool that went stale as a whole fails nobody: the second sending never takes a pooled connection."""
    gate = asyncio.Event()

    def script(asked: Asked) -> Script:
        return [End.RESET] if gate.is_set() and asked.number > 1 else [Pause(0.05), *answers.good()]

    upstream, engine = await start(script)
    await asyncio.gather(*(text(engine) for _ in range(5)))
    await until(lambda: upstream.busy_count == 0)
    gate.set()

    assert await asyncio.gather(*(text(engine) for _ in range(5))) == [answers.TEXT] * 5
    assert (upstream.connection_count, len(upstream.asked)) == (10, 15)


async def test_an_answer_that_nobody_asked_for_is_nobodys(start: Start) -> None:
    """A connection on which a second answer lies is not used again: the next request would take it for its own."""
    stray = [answers.head(), *map(answers.piece, [answers.chunk({"content": "stray"}), *answers.end()])]
    twice = [*answers.good(), Pause(0.01), *stray, answers.LAST_PIECE, Pause(0.01)]
    upstream, engine = await start(lambda asked: twice if len(upstream.asked) == 1 else answers.good())
    assert await text(engine) == answers.TEXT
    await until(lambda: upstream.busy_count == 0)

    assert await text(engine) == answers.TEXT
    assert (upstream.connection_count, len(upstream.asked)) == (2, 2)


@pytest.mark.parametrize("how", [End.CLOSE, End.RESET])
async def test_a_new_connection_that_is_closed_is_a_failure(start: Start, how: End) -> None:
    """An upstream that takes a request and goes is not asked again behind the route's back."""
    upstream, engine = await start(lambda asked: [how])

    assert (await failure(engine)).reason == "UPSTREAM_DISCONNECTED"
    assert len(upstream.asked) == 1


async def test_a_connection_that_is_closed_late_is_a_failure(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle end shows within a round trip; one that comes after the upstream had time to work is its failure."""
    monkeypatch.setattr(openai_http, "IDLE_CLOSE_S", 0.01)
    upstream, engine = await start(from_the_second_on(Pause(0.05), End.CLOSE))
    await text(engine)

    assert (await failure(engine)).reason == "UPSTREAM_DISCONNECTED"
    assert len(upstream.asked) == 2


async def test_half_an_answer_is_not_asked_for_again(start: Start) -> None:
    """Once a byte of the answer has come, the connection was not idle."""
    upstream, engine = await start(from_the_second_on(b"HTTP/1.1 200 OK\r\nContent-Ty", Pause(0.01), End.CLOSE))
    await text(engine)

    assert (await failure(engine)).reason == "UPSTREAM_DISCONNECTED"
    assert len(upstream.asked) == 2


async def test_errors_keep_their_connection(start: Start) -> None:
    """An upstream that refuses every request is not also asked for a handshake each time."""
    upstream, engine = await start(lambda asked: [answers.error(429)])
    for _ in range(3):
        assert (await failure(engine)).code is Code.RESOURCE_EXHAUSTED

    assert upstream.connection_count == 1


async def test_an_error_that_drips_is_not_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status has its meaning though the body never ends, and the connection is closed."""
    monkeypatch.setattr(openai_http, "ERROR_S", 0.05)
    head = answers.head(503, answers.JSON, framing="Content-Length: 1000", Retry_After="3")
    upstream, engine = await start(lambda asked: [head, b'{"err', End.SILENCE])
    error = await failure(engine)

    assert (error.reason, error.retry_after_ms) == ("UPSTREAM_INTERNAL_SERVER", 3_000)
    await until(lambda: upstream.open_count == 0)


async def test_an_error_without_end_is_not_read_to_it(start: Start) -> None:
    """Of a body that floods, a bounded part is read, and its connection is closed."""
    flood = answers.piece(b"x" * 65_536)
    upstream, engine = await start(lambda asked: [answers.head(500, "text/plain"), *[flood] * 1000])

    assert (await failure(engine)).reason == "UPSTREAM_INTERNAL_SERVER"
    await until(lambda: upstream.open_count == 0)


async def test_an_error_that_pretends_to_be_an_answer(start: Start) -> None:
    """An error object with status 200 and JSON for a stream says what it says."""
    body = b'{"error": {"message": "slow down", "code": 429}}'
    _, engine = await start(lambda asked: [answers.whole(body)])

    assert (await failure(engine)).reason == "UPSTREAM_RATE_LIMIT"


async def test_nothing_is_unpacked(start: Start) -> None:
    """Compression is not asked for, and what comes compressed all the same is refused unread."""
    upstream, engine = await start(lambda asked: answers.stream([b"\x1f\x8b"], Content_Encoding="gzip"))

    assert "content encoding 'gzip'" in (await failure(engine)).message
    assert upstream.asked[0].headers["accept-encoding"] == "identity"


async def test_what_comes_after_done_is_drained(start: Start) -> None:
    """A body that ends a moment after [DONE] keeps its connection; whatever it still says is ignored."""
    steps = [answers.head(), *map(answers.piece, [*answers.words(), *answers.end()])]
    upstream, engine = await start(lambda asked: [*steps, Pause(0.01), answers.piece(b"data: {no"), answers.LAST_PIECE])
    for _ in range(2):
        assert await text(engine) == answers.TEXT
        await until(lambda: upstream.busy_count == 0)

    assert upstream.connection_count == 1


async def test_a_body_that_does_not_end_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """After [DONE] the answer is complete; a connection that stays open is closed soon."""
    monkeypatch.setattr(openai_http, "DRAIN_S", 0.05)
    steps = [answers.head(), *map(answers.piece, [*answers.words(), *answers.end()]), End.SILENCE]
    upstream, engine = await start(lambda asked: steps)

    assert await text(engine) == answers.TEXT
    await until(lambda: upstream.open_count == 0)


async def test_closing_the_engine_ends_what_drains(start: Start) -> None:
    """Nothing of an engine is left when it is closed."""
    steps = [answers.head(), *map(answers.piece, [*answers.words(), *answers.end()]), End.SILENCE]
    upstream, engine = await start(lambda asked: steps)
    before = tasks_now()
    await ask(engine)
    await engine.close()

    assert tasks_now() <= before
    await until(lambda: upstream.open_count == 0)


async def test_a_whole_answer_has_a_bound(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than any answer has is refused, and not read to its end."""
    monkeypatch.setattr(openai_engine, "ANSWER_BYTES_MAX", 100_000)
    flood = answers.piece(b" " * 65_536)
    upstream, engine = await start(lambda asked: [answers.head(200, answers.JSON), *[flood] * 1000], streams=False)

    assert "too large" in (await failure(engine)).message
    await until(lambda: upstream.open_count == 0)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([b"SSH-2.0-OpenSSH_9.6\r\n\r\n", End.SILENCE], "UPSTREAM_MALFORMED"),
        ([answers.head(X_Large="x" * 20_000), End.SILENCE], "UPSTREAM_MALFORMED"),
        ([answers.head(), b"zz\r\ndata: {}\r\n", End.SILENCE], "UPSTREAM_TRUNCATED"),
        ([answers.head(101, Upgrade="x", Connection="Upgrade"), End.SILENCE], "UPSTREAM_STATUS_101"),
        ([answers.head(302, Location="http://elsewhere/"), answers.LAST_PIECE], "UPSTREAM_REDIRECT"),
    ],
    ids=["no HTTP", "large head", "bad framing", "upgrade", "redirect"],
)
async def test_what_is_no_answer(start: Start, steps: list[bytes | End], reason: str) -> None:
    """Nonsense fails at once instead of being waited for, and its connection is closed or given back."""
    upstream, engine = await start(lambda asked: steps)

    assert (await failure(engine)).reason == reason
    await until(lambda: upstream.busy_count == 0)


@pytest.mark.parametrize("framing", ["Connection: close", "Connection: keep-alive"])
async def test_old_framing_is_understood(start: Start, framing: str) -> None:
    """Without a length or pieces, the end of the connection ends the answer: complete after [DONE], else cut."""
    head, events = answers.head(framing=framing).replace(b"HTTP/1.1", b"HTTP/1.0"), [*answers.words(), *answers.end()]
    upstream, engine = await start(lambda asked: [head, *events[: -1 if len(upstream.asked) > 1 else None], End.CLOSE])

    assert await text(engine) == answers.TEXT
    assert (await failure(engine)).reason == "UPSTREAM_TRUNCATED"


async def test_news_before_the_answer_is_passed_over(start: Start) -> None:
    """Informational heads come and go; the one that counts is the last."""
    news = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    _, engine = await start(lambda asked: [news, *answers.good()])

    assert await text(engine) == answers.TEXT


async def test_certificates(start: Start, tmp_path: Path) -> None:
    """A certificate counts only if it is for the host, and signed by an authority of the system's or of `ca_file`."""
    authority = Authority(tmp_path)

    def served(host: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.issue(host))
        return context

    trusted = {"ca_file": str(authority.certificate)}
    _, known = await start(lambda asked: answers.good(), served("localhost"), **trusted)
    _, unknown = await start(lambda asked: answers.good(), served("localhost"))
    _, other = await start(lambda asked: answers.good(), served("elsewhere"), **trusted)

    assert await text(known) == answers.TEXT
    assert (await failure(unknown)).reason == "UPSTREAM_TLS"
    assert (await failure(other)).reason == "UPSTREAM_TLS"


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bad_file_of_authorities_stops_the_start(tmp_path: Path, content: str | None) -> None:
    """The operator is told at once which entry names a file that cannot be used."""
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    entry = Upstream.model_validate({"base_url": "https://fake/v1", "ca_file": str(file)})
    with pytest.raises(ConfigError, match=r"upstreams\.fake\.ca_file.*ca\.pem"):
        OpenAIEngine("fake", entry, None)
