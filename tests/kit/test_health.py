from __future__ import annotations

import asyncio
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.fakes.echo_service import NAME
from tests.fakes.span_sink import DEADLINE_S
from tests.kit.conftest import Suite

Status = health_pb2.HealthCheckResponse


@pytest.fixture
async def stub(suite: Suite):
    """Returns a plain health client."""
    async with grpc.aio.insecure_channel(suite.target) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def _ask(name: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=name)


async def test_each_name_has_a_status_of_its_own(suite: Suite, stub) -> None:
    """The server, its services and free names are set and asked one by one."""
    suite.server.set_serving("model/tiny", True)
    suite.server.set_serving(NAME, False)

    assert (await stub.Check(_ask(""))).status == Status.SERVING
    assert (await stub.Check(_ask("model/tiny"))).status == Status.SERVING
    assert (await stub.Check(_ask(NAME))).status == Status.NOT_SERVING


async def test_the_server_as_a_whole_includes_its_services(suite: Suite, stub) -> None:
    """What is set for "" holds for each service: a client that watches the service's name sees it."""
    suite.server.set_serving("", False)
    assert (await stub.Check(_ask(NAME))).status == Status.NOT_SERVING

    suite.server.set_serving("", True)
    assert (await stub.Check(_ask(NAME))).status == Status.SERVING


async def test_a_name_that_nobody_set_is_not_found(stub) -> None:
    """As the health protocol says."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(_ask("model/none"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_list_names_all(stub) -> None:
    """One call tells everything."""
    answer = await stub.List(health_pb2.HealthListRequest())

    assert {name: response.status for name, response in answer.statuses.items()} == {
        "": Status.SERVING,
        NAME: Status.SERVING,
    }


async def test_watch_tells_every_change(suite: Suite, stub) -> None:
    """The state at first, then each change; an unknown name is SERVICE_UNKNOWN until it is set."""
    watch = stub.Watch(_ask("model/tiny"))
    async with asyncio.timeout(DEADLINE_S):
        seen = [(await watch.read()).status]
        for serving in (True, False, True):
            suite.server.set_serving("model/tiny", serving)
            # Setting the same again is no change and is not told.
            suite.server.set_serving("model/tiny", serving)
            seen.append((await watch.read()).status)
    watch.cancel()

    assert seen == [Status.SERVICE_UNKNOWN, Status.SERVING, Status.NOT_SERVING, Status.SERVING]


async def test_a_forgotten_name_is_unknown_again(suite: Suite, stub) -> None:
    """To those who watch it, who ask, and in the list; to forget what nobody set changes nothing."""
    suite.server.set_serving("model/tiny", True)
    watch = stub.Watch(_ask("model/tiny"))
    async with asyncio.timeout(DEADLINE_S):
        seen = [(await watch.read()).status]
        suite.server.forget("model/none")
        suite.server.forget("model/tiny")
        seen.append((await watch.read()).status)
    watch.cancel()

    assert seen == [Status.SERVING, Status.SERVICE_UNKNOWN]
    assert "model/tiny" not in (await stub.List(health_pb2.HealthListRequest())).statuses
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Check(_ask("model/tiny"))


async def test_watchers_do_not_hold_up_a_stop(suite: Suite, stub) -> None:
    """Each is told NOT_SERVING and let go; the stop takes none of its grace, and nothing turns SERVING again."""
    watches = [stub.Watch(_ask(name)) for name in ("", NAME, "", "model/none")]
    async with asyncio.timeout(DEADLINE_S):
        for watch in watches:
            await watch.read()
        started = time.perf_counter()
        await suite.server.stop(grace_s=60)
        suite.server.set_serving("", True)
        last = [await _rest(watch) for watch in watches]

    assert time.perf_counter() - started < DEADLINE_S
    assert last == [[Status.NOT_SERVING], [Status.NOT_SERVING], [Status.NOT_SERVING], []]


async def _rest(watch) -> list[int]:
    """Returns what a watch still tells, up to its end."""
    statuses = []
    while (answer := await watch.read()) is not grpc.aio.EOF:
        statuses.append(answer.status)
    return statuses
