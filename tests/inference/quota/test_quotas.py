"""Quotas: a request is let in by what it may use at most, and charged what it used."""

from __future__ import annotations

import asyncio

import pytest
import yaml

from kit.errors import Code, FailedPrecondition, ResourceExhausted
from kit.identity import Caller
from services.inference.events import Receipt
from services.inference.generation import ImagePart, Message, Prompt, Role, Sampling, TextPart, Tool, Usage
from services.inference.quota.demand import prompt_token_count, text_token_count
from services.inference.quota.keeper import Keeper
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.quotas import Quotas, unlimited
from services.inference.quota.reservation import State
from services.inference.quota.tiers import QuotaRules
from services.inference.request import CacheWish, Request
from services.inference.routing.catalog import Price, Target
from services.inference.routing.router import Route, RouteTarget
from services.inference.routing.rules import Rules
from tests.inference.parts import receipt, request
from tests.inference.quota.parts import HandClock

ALICE = Caller("alice", "acme", "user")
# Ten tokens a dollar makes sums that can be read: 100,000 micro-dollars a token.
DEAR, CHEAP = Price(prompt=100_000, completion=200_000), Price(prompt=1_000, completion=1_000)


class Counted:
    """Quotas over a store in memory, by the test's clock."""

    def __init__(self, clock: HandClock, user: str, more: str = "{}") -> None:
        text = {"version": 1, "tiers": {"t": {"user": yaml.safe_load(user)}}, "roles": {"user": "t"}}
        self.store = MemoryStore(clock)
        self.keeper = Keeper(self.store)
        self.quotas = Quotas(QuotaRules.model_validate(text | yaml.safe_load(more)), self.store, self.keeper)

    async def admit(self, asked: Request, on: Route | None = None) -> tuple[Request, Receipt]:
        told = receipt()
        return await self.quotas.admit(asked, on or route(), told), told

    async def left(self, number: int = 0) -> int:
        """What is left of a limit, found out by a request that is released at once."""
        _, told = await self.admit(asking(max_tokens=1))
        reservation = told.reservation
        assert reservation
        reservation.release()
        await asyncio.sleep(0)
        return told.limits[number].remaining + reservation.claim.amounts[number]


def route(*prices: Price | None) -> Route:
    """A route over targets of these prices."""
    targets = tuple(
        Target(engine="local", model=f"t{number}", price=one) for number, one in enumerate(prices or (None,))
    )
    return Route("gpt", "chat", "", tuple(RouteTarget(one, one.model) for one in targets), Rules())


def asking(text: str = "x" * 32, max_tokens: int | None = None, n: int = 1, **fields: object) -> Request:
    """A request of 12 prompt tokens: 8 of its text and 4 of its message."""
    prompt = Prompt(messages=(Message(Role.USER, (TextPart(text),)),), sampling=Sampling(max_tokens=max_tokens, n=n))
    return request(prompt=prompt, caller=ALICE, **fields)


async def test_prompt_and_answer_are_reserved(clock: HandClock) -> None:
    """The estimate of the prompt and the longest answer of every choice are taken before any work."""
    counted = Counted(clock, "{tokens_per_minute: 1000}")

    _, told = await counted.admit(asking(max_tokens=100, n=3))

    assert told.limits[0].remaining == 1000 - 12 - 300
    assert counted.keeper.open_count == 1


async def test_what_was_used_is_charged_once(clock: HandClock) -> None:
    """Settling charges the real use in place of the reserved one; a second settlement, or a release, is none."""
    counted = Counted(clock, "{tokens_per_day: 1000}")
    _, told = await counted.admit(asking(max_tokens=500))
    assert told.reservation

    told.reservation.settle(Usage(20, 30), None)
    told.reservation.settle(Usage(400, 400), None)
    told.reservation.release()
    await asyncio.sleep(0)

    assert told.reservation.state is State.SETTLED
    assert await counted.left() == 950
    assert counted.keeper.open_count == 0


async def test_a_release_gives_tokens_back_and_keeps_the_request(clock: HandClock) -> None:
    """A kept answer or a refused prompt costs no tokens; that the request came counts."""
    counted = Counted(clock, "{requests_per_minute: 10, tokens_per_minute: 1000}")
    _, told = await counted.admit(asking(max_tokens=500))
    assert told.reservation

    told.reservation.release()
    await asyncio.sleep(0)

    assert await counted.left(1) == 1000
    assert await counted.left(0) == 8  # of ten: this one, the probe before, and the probe itself put back


async def test_an_answer_without_a_bound_gets_one(clock: HandClock) -> None:
    """Where tokens are limited a request without max_tokens is bounded, so that it cannot use more than it holds."""
    counted = Counted(clock, "{tokens_per_minute: 1000}", "answer_token_count_max: 64")

    bounded, told = await counted.admit(asking())
    free, _ = await Counted(clock, "{requests_per_minute: 9}").admit(asking())

    assert bounded.prompt.sampling.max_tokens == 64
    assert told.limits[0].remaining == 1000 - 12 - 64
    assert free.prompt.sampling.max_tokens is None


async def test_money_is_reserved_by_the_dearest_target(clock: HandClock) -> None:
    """Whichever target answers, the budget holds; what is not spent comes back."""
    counted = Counted(clock, "{usd_per_day: 10}")

    _, told = await counted.admit(asking(max_tokens=10), route(CHEAP, DEAR, None))
    assert told.reservation
    assert told.limits[0].remaining == 10_000_000 - 12 * 100_000 - 10 * 200_000
    told.reservation.settle(Usage(12, 10), 22_000)
    await asyncio.sleep(0)

    _, told = await counted.admit(asking(max_tokens=1), route(CHEAP))
    assert told.limits[0].remaining == 10_000_000 - 22_000 - 13_000


async def test_an_unknown_price_counts_nothing_or_is_refused(clock: HandClock) -> None:
    """A budget in money cannot be held where nobody knows the price: the operator says what becomes of such calls."""
    _, told = await Counted(clock, "{usd_per_day: 1}").admit(asking(max_tokens=10_000_000))
    assert told.limits[0].remaining == 1_000_000

    with pytest.raises(FailedPrecondition) as caught:
        await Counted(clock, "{usd_per_day: 1}", "unpriced: refuse").admit(asking())
    assert caught.value.reason == "PRICE_UNKNOWN"


@pytest.mark.parametrize(
    ("user", "max_tokens", "reason", "retry_after_ms"),
    [
        ("{requests_per_minute: 1, tokens_per_day: 9999}", 1, "RATE_LIMITED", 60_000),
        ("{tokens_per_minute: 100}", 80, "TOKENS_LIMITED", 50_400),
        ("{tokens_per_minute: 100}", 100, "TOKENS_LIMITED", None),
        ("{tokens_per_day: 100}", 80, "BUDGET_EXCEEDED", 12 * 3_600_000),
        ("{tokens_per_month: 100}", 80, "BUDGET_EXCEEDED", (15 * 24 - 12) * 3_600_000),
        ("{concurrent_requests: 1}", 1, "CONCURRENCY_LIMITED", 1_000),
        # The longest wait of all is told: who comes back after the minute would be refused again.
        ("{requests_per_minute: 1, tokens_per_day: 100}", 80, "BUDGET_EXCEEDED", 12 * 3_600_000),
    ],
)
async def test_a_refusal_names_the_limit_and_the_wait(
    clock: HandClock, user: str, max_tokens: int, reason: str, retry_after_ms: int | None
) -> None:
    """The second request of the same size is told which limit it met and when there is room for it."""
    counted = Counted(clock, user)
    if retry_after_ms is not None:
        await counted.admit(asking(max_tokens=max_tokens))
    told = receipt()

    with pytest.raises(ResourceExhausted) as caught:
        await counted.quotas.admit(asking(max_tokens=max_tokens), route(), told)

    error = caught.value
    assert (error.code, error.reason, error.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, reason, retry_after_ms)
    assert error.quota_violations[0][0] == "user:alice"
    assert error.metadata["limit"] in {state.name for state in told.limits}
    assert told.reservation is None


async def test_a_wait_that_was_told_is_enough(clock: HandClock) -> None:
    """Who comes back after the time it was told is let in."""
    counted = Counted(clock, "{tokens_per_minute: 700}")
    await counted.admit(asking(max_tokens=600))
    with pytest.raises(ResourceExhausted) as caught:
        await counted.admit(asking(max_tokens=600))

    clock.now_ms += caught.value.retry_after_ms or 0

    await counted.admit(asking(max_tokens=600))


async def test_a_refused_request_takes_nothing(clock: HandClock) -> None:
    """One limit without room leaves the others untouched."""
    counted = Counted(clock, "{requests_per_minute: 10, tokens_per_minute: 100}")
    for _ in range(5):
        with pytest.raises(ResourceExhausted):
            await counted.admit(asking(max_tokens=1_000))

    assert await counted.left(0) == 10


async def test_renewals_by_the_cache_are_nobodys(clock: HandClock) -> None:
    """An answer that the cache has made anew behind a caller's back is not charged to that caller."""
    counted = Counted(clock, "{requests_per_minute: 1}")

    for _ in range(3):
        _, told = await counted.admit(asking(cache=CacheWish(lease_id="l")))
    assert told.limits == ()


async def test_texts_to_embed_count_as_prompts(clock: HandClock) -> None:
    """An embedding uses the tokens of its texts and no answer."""
    counted = Counted(clock, "{tokens_per_minute: 100}")
    told = receipt()

    await counted.quotas.admit_texts(asking(), ["x" * 40, "y" * 41], route(), told)

    assert told.limits[0].remaining == 100 - 21


async def test_no_limits_ask_no_store() -> None:
    """Who is not limited is let in as it came, with nothing to settle."""
    quotas, told, asked = unlimited(), receipt(), asking()

    assert await quotas.admit(asked, route(), told) is asked
    assert (told.limits, told.reservation) == ((), None)


async def test_another_file_takes_effect_at_once(clock: HandClock) -> None:
    """What is put in force holds for the next request; what is reserved is settled as it was."""
    counted = Counted(clock, "{tokens_per_day: 1000}")
    _, told = await counted.admit(asking(max_tokens=500))
    assert told.reservation

    counted.quotas.put_in_force(QuotaRules(version=1))
    _, free = await counted.admit(asking())
    told.reservation.settle(Usage(1, 1), None)
    await asyncio.sleep(0)

    assert free.limits == ()
    assert counted.keeper.open_count == 0


def test_prompts_are_estimated_with_all_that_they_hold() -> None:
    """Text by its bytes, messages, tools and pictures."""
    picture = Message(Role.USER, (ImagePart("https://x/y.png"),))
    tool = Tool("f", "x" * 20, "y" * 20)

    assert prompt_token_count(Prompt(raw_prompt="x" * 40)) == 10
    assert prompt_token_count(Prompt(messages=(picture,), tools=(tool,))) == 4 + 1_000 + 10
    assert text_token_count(["é" * 4, "日本"]) == 4


async def test_what_has_come_so_far_is_what_a_lost_process_is_charged(clock: HandClock) -> None:
    """Reports follow the answer where its engine counts as it goes; where none does, all that was reserved stays."""
    counted = Counted(clock, "{tokens_per_day: 1000, usd_per_day: 100}")
    _, told = await counted.admit(asking(max_tokens=100, n=2), route(CHEAP))
    assert told.reservation

    assert told.reservation.progress() is None
    told.produced = {0: 30, 1: 4}

    assert told.reservation.progress() == (Usage(12, 34), 46_000)
