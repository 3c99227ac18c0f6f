"""A Redis that dies while nobody asks anything of the cache is known to be dead."""

import asyncio

from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cache import redis_link
from services.cache.wiring import REDIS_HEALTH
from tests.cache.test_servicer import serving
from tests.fakes.redis_server import RedisServer

DEADLINE_S = 15


async def test_health_knows_of_a_loss_while_nobody_asks(own_redis: RedisServer, monkeypatch):
    """It would be called serving until somebody looked something up, and so would what watches it."""
    monkeypatch.setattr(redis_link.RedisLink.watch, "__defaults__", (0.1,))
    request = health_pb2.HealthCheckRequest(service=REDIS_HEALTH)
    async with serving(store="redis", redis_url=own_redis.url) as (_, channel), asyncio.timeout(DEADLINE_S):
        health = health_pb2_grpc.HealthStub(channel).Watch(request)
        try:
            told = [(await health.read()).status]
            own_redis.kill()
            told.append((await health.read()).status)
        finally:
            health.cancel()

    states = health_pb2.HealthCheckResponse
    assert told == [states.SERVING, states.NOT_SERVING]
