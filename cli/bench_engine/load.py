"""Callers of the local engine, each asking again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from cli.bench_engine.record import Answer, Limits, record
from services.inference.engines.local.engine import LocalEngine
from services.inference.generation import Delta, Prompt, Sampling

NAME = "millrace"
# Of an answer before the first that counts: whatever is made once is made then, by every engine.
WARM_UP_TOKENS = 4


class Prompts:
    """Random texts of a number of tokens, no two of which begin alike."""

    def __init__(self, directory: str, token_count: int) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self._token_count = token_count
        self._random = random.Random(0)

    def text(self, token_count: int | None = None) -> str:
        """A prompt; its length may be off by a token or two where the tokenizer joins what it is made of."""
        wanted = token_count or self._token_count
        words = self._tokenizer.decode([self._random.randrange(len(self._tokenizer)) for _ in range(wanted)])
        text: str = self._tokenizer.decode(self._tokenizer(words)["input_ids"][:wanted])
        return text

    def ids(self) -> list[int]:
        """A prompt as ids."""
        ids: list[int] = self._tokenizer(self.text())["input_ids"]
        return ids


class Load:
    """The engine on one model in one precision."""

    def __init__(self, directory: str, precision: Any, caller_count_max: int, threads: int, *, drafts: bool) -> None:
        self._precision = precision
        self._engine = LocalEngine(
            directory,
            active_max=caller_count_max + 1,
            threads=threads,
            precision=precision,
            drafts=drafts,
            wait_s_max=3600,
        )

    async def warm(self) -> None:
        """Loads the model."""
        await self._engine.warm()

    async def close(self) -> None:
        """Frees it."""
        await self._engine.close()

    async def measure(
        self,
        prompts: Prompts,
        new_tokens: int,
        levels: Sequence[int],
        rounds: int,
        limits: Limits,
        long_prompt: int | None,
    ) -> list[dict[str, Any]]:
        """One record for each number of callers, and one more where a long prompt is to arrive beside them."""
        await self.warm()
        try:
            await self.ask(prompts.text(), WARM_UP_TOKENS)
            records = []
            for level in levels:
                records.append(await self._level(NAME, prompts, new_tokens, level, rounds, limits, None))
                if long_prompt:
                    name = f"{NAME} +{long_prompt}"
                    records.append(await self._level(name, prompts, new_tokens, level, rounds, limits, long_prompt))
            return records
        finally:
            await self.close()

    async def _level(
        self,
        name: str,
        prompts: Prompts,
        new_tokens: int,
        level: int,
        rounds: int,
        limits: Limits,
        long_prompt: int | None,
    ) -> dict[str, Any]:
        async def call() -> list[Answer]:
            return [await self.ask(prompts.text(), new_tokens) for _ in range(rounds)]

        cpu_begin = time.process_time()
        async with asyncio.TaskGroup() as callers:
            tasks = [callers.create_task(call()) for _ in range(level)]
            if long_prompt:
                callers.create_task(self.ask(prompts.text(long_prompt), 1))
        answers = [answer for task in tasks for answer in task.result()]
        return record(name, self._precision, level, answers, limits, time.process_time() - cpu_begin)

    async def ask(self, text: str, new_tokens: int) -> Answer:
        """One call; its answer has the length that was asked for."""
        sampling = Sampling(max_tokens=new_tokens, min_tokens=new_tokens)
        answer = Answer(time.perf_counter())
        async for events in self._engine.generate(Prompt(raw_prompt=text, sampling=sampling), None):
            now = time.perf_counter()
            counted = max((e.completion_token_count or 0 for e in events if isinstance(e, Delta)), default=0)
            answer.tokens_s += [now] * (counted - len(answer.tokens_s))
        # Tokens within a character, or at the end, come without text of their own.
        answer.tokens_s += [time.perf_counter()] * (new_tokens - len(answer.tokens_s))
        return answer
