"""Texts: kept only where that is switched on, and only as safety has left them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select

from millrace.inference.v1 import generation_pb2
from services.inference.events import Completed
from services.inference.generation import ChoiceFinished, Delta, FinishReason, Prompt, ToolCallDelta, Usage
from services.inference.ledger import tables
from services.inference.ledger.history import Scope
from services.inference.ledger.settings import LedgerSettings
from services.inference.ledger.transcript import TEXT_CHARS_MAX, Transcript
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.parts import prompt, receipt
from tests.inference.suite import Serve


async def test_texts_are_kept_where_that_is_switched_on(serve: Serve, upstream: OpenAIUpstream, tmp_path: Path) -> None:
    """Prompt and answer as the upstream got and gave them; what was redacted for it stays redacted."""
    suite = await serve(safety=True, ledger=LedgerSettings(folder=tmp_path / "books", keep_texts=True))
    upstream.replies["gpt"] = Reply(("It", " is", " noon"))
    private = generation_pb2.SafetyPolicy(profile="private")
    await suite.generate(text="Write to bob.miller@example.com, please", safety=private)
    (row,) = await suite.inference.books.history.page(Scope(), 5, None)

    sent = upstream.asked[0].body["messages"][0]["content"]
    assert "bob.miller@example.com" not in sent
    assert row["prompt"] == f"user: {sent}"
    assert row["completion"] == "It is noon"


async def test_by_default_no_text_is_kept(serve: Serve) -> None:
    """Not even an empty row."""
    suite = await serve()
    await suite.generate(text="a secret")
    (row,) = await suite.inference.books.history.page(Scope(), 5, None)
    async with suite.inference.database.reading() as connection:
        count = await connection.scalar(select(func.count()).select_from(tables.texts))

    assert (row["prompt"], row["completion"], count) == ("", "", 0)


def test_every_part_of_an_answer_is_told() -> None:
    """Choices one after the other; refusals and calls of tools, too; nothing that PostgreSQL could not keep."""
    transcript = Transcript(Prompt(raw_prompt="once\x00 upon"))
    transcript.take([Delta(0, "a "), Delta(1, refusal="No."), Delta(0, "time")])
    transcript.take([Delta(2, tool_calls=(ToolCallDelta(0, "c1", "look", '{"at": 1}'),))])
    transcript.take([ChoiceFinished(0, FinishReason.STOP), Completed(Usage(), receipt())])

    assert transcript.texts() == ("once upon", 'a time\n\nNo.\n\nlook({"at": 1})')


def test_a_text_has_a_bound() -> None:
    """The beginning of a long one is kept."""
    transcript = Transcript(prompt("x" * 2 * TEXT_CHARS_MAX))
    for _ in range(5):
        transcript.take([Delta(0, "y" * (TEXT_CHARS_MAX // 2))])

    assert [len(text) for text in transcript.texts()] == [TEXT_CHARS_MAX, TEXT_CHARS_MAX]
