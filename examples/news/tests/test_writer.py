"""How Millrace is called."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from news.story import FrontPage, Story
from news.writer import Writer, WriterError, open_channel
from stand_in import Millrace, Refusal

PAGE = FrontPage("The Test", "https://test.example/", (Story("Rain", "https://test.example/1", "It falls."),))


async def test_a_summary_is_written_and_recalled(writer: Writer, millrace: Millrace) -> None:
    """The first call asks a model, the second takes what is kept, and both say so."""
    written = await writer.write(PAGE, "news-1", 10)
    kept = await writer.recall(PAGE, "visit-1", 10)

    assert (written.text, written.model, written.request_id, written.from_cache) == (
        "All is well.",
        "pen",
        "news-1",
        False,
    )
    assert (kept.text, kept.from_cache, kept.age_s) == ("All is well.", True, 60)
    assert millrace.written() == 1


async def test_a_call_says_what_a_good_caller_says(writer: Writer, millrace: Millrace) -> None:
    """A deadline, an id, a key, and that the answer may be kept for six hours."""
    await writer.write(PAGE, "news-1", 10)

    (request,) = millrace.requests
    assert request.request_id == "news-1"
    assert millrace.metadata[0]["authorization"] == "Bearer mr_key"
    assert 5 < millrace.deadlines_s[0] < 11  # deadlines are rounded on their way
    assert (request.spec.cache.ttl.seconds, request.spec.cache.age_max.seconds) == (21_600, 10_800)
    assert request.spec.sampling.temperature == 0
    assert request.spec.sampling.HasField("temperature")
    assert "1. Rain: It falls." in request.spec.conversation.messages[1].parts[0].text


async def test_both_calls_ask_the_same(writer: Writer, millrace: Millrace) -> None:
    """Only the policy differs, or the cache would not know the one by the other."""
    await writer.write(PAGE, "news-1", 10)
    await writer.recall(PAGE, "visit-1", 10)

    specs = [request.spec for request in millrace.requests]
    for spec in specs:
        spec.ClearField("cache")
    assert specs[0] == specs[1]


async def test_a_caller_who_leaves_ends_the_call(writer: Writer, millrace: Millrace) -> None:
    """Cancelling the task is enough: Millrace learns of it."""
    millrace.hold = asyncio.Event()
    task = asyncio.create_task(writer.write(PAGE, "news-1", 10))
    async with asyncio.timeout(10):
        await millrace.asked.wait()
        task.cancel()
        await millrace.cancelled.wait()
    assert task.cancelled()


async def test_a_refusal_keeps_its_reason(writer: Writer, millrace: Millrace) -> None:
    """The details of the status say why, and when to come again."""
    millrace.refusals = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "spent", 30)]

    with pytest.raises(WriterError) as refused:
        await writer.write(PAGE, "news-1", 10)

    told = refused.value
    assert (told.reason, told.message, told.retry_after_s) == ("QUOTA_EXCEEDED", "spent", 30)


async def test_nothing_kept_is_told_apart(writer: Writer) -> None:
    """It is no fault of anybody."""
    with pytest.raises(WriterError) as refused:
        await writer.recall(PAGE, "visit-1", 10)

    assert refused.value.reason == "NOT_CACHED"


async def test_a_deadline_ends_the_call(writer: Writer, millrace: Millrace) -> None:
    """At both ends."""
    millrace.hold = asyncio.Event()

    with pytest.raises(WriterError) as refused:
        await writer.write(PAGE, "news-1", 0.05)

    assert refused.value.reason == "DEADLINE_EXCEEDED"


async def test_nobody_there_names_no_address() -> None:
    """What visitors read does not say where Millrace would be."""
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(WriterError) as refused:
            await Writer(channel, "pen", 60).write(PAGE, "news-1", 5)

    assert refused.value.reason == "UNAVAILABLE"
    assert "127.0.0.1" not in refused.value.message


async def test_no_text_is_no_summary(writer: Writer, millrace: Millrace) -> None:
    """An answer of blanks is not shown."""
    millrace.text = "  "

    with pytest.raises(WriterError, match="NO_TEXT"):
        await writer.write(PAGE, "news-1", 10)
