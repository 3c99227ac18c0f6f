"""Tools of a local model through the whole suite, by stock openai-python."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.fakes.tiny_gpt2 import write_tiny
from tests.flow.conftest import Suite

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls | default([]) | tojson }}{% endfor %}"
    "<tool_call></tool_call>"
)
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Köln", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
USER: Any = {"role": "user", "content": "How is the weather?"}
ASKED: Any = {"model": "tiny", "tools": [TOOL], "parallel_tool_calls": False, "temperature": 1, "max_tokens": 200}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One local model, of random weights, that writes calls as Qwen does."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, "qwen2", 2048, TEMPLATE, "<tool_call> </tool_call>")
    return f"version: 1\nmodels:\n  - name: tiny\n    targets: [{{{{engine: local, model: {folder}}}}}]\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(suite: Suite) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK's client; it retries nothing, so that errors show."""
    http = httpx.AsyncClient(trust_env=False, timeout=60)
    async with openai.AsyncOpenAI(base_url=f"{suite.url}/v1", api_key="none", max_retries=0, http_client=http) as made:
        yield made


async def test_a_tool_is_called_and_its_result_is_read(client: openai.AsyncOpenAI) -> None:
    """A required call comes with arguments that fit; the next turn takes it and its result back."""
    first = await client.chat.completions.create(messages=[USER], tool_choice="required", **ASKED)
    message = first.choices[0].message
    assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
    assert message.tool_calls
    call: Any = message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Köln", "Rome")

    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turns: Any = [USER, message.model_dump(exclude_none=True), result]
    second = await client.chat.completions.create(messages=turns, tool_choice="none", **ASKED)
    assert first.usage
    assert second.usage
    assert second.usage.prompt_tokens > 20
    assert not second.choices[0].message.tool_calls


async def test_a_call_streams_in_fragments(client: openai.AsyncOpenAI) -> None:
    """Streamed, the fragments of a named call add up, under one id, and no marker is ever content."""
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    stream = await client.chat.completions.create(messages=[USER], tool_choice=choice, stream=True, seed=3, **ASKED)
    deltas = [(chunk.choices[0].delta, chunk.choices[0].finish_reason) async for chunk in stream if chunk.choices]

    pieces = [call for delta, _ in deltas for call in delta.tool_calls or ()]
    assert not any(delta.content for delta, _ in deltas)
    assert [piece.id for piece in pieces if piece.id] == [pieces[0].id]
    arguments = "".join(piece.function.arguments or "" for piece in pieces if piece.function)
    assert json.loads(arguments)["city"] in ("Köln", "Rome")
    assert deltas[-1][1] == "tool_calls"
