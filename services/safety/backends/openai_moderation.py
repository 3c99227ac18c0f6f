"""OpenAI's moderation endpoint as a scorer: its wire, spoken over connections that are kept.

It sends texts and nothing else: no names, no ids. What goes wrong is an error that the policy decides about; the body
of an error is neither told nor kept, for it may quote the text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from yarl import URL

from kit.errors import MillraceError, Unavailable
from services.safety.backends.document import MODERATION_CATEGORIES, OpenAIModerationDocument
from services.safety.backends.scored import Scores

# Texts of one request, and requests at once for one long text.
REQUEST_TEXTS_MAX = 32
REQUESTS_AT_ONCE = 4
# The deadlines of policies are shorter; this ends what nobody waits for.
_TIMEOUT = aiohttp.ClientTimeout(total=60.0)


class OpenAIModerationScorer:
    """The endpoint, through an HTTP proxy if there is one; see `scored.Scorer`."""

    def __init__(
        self,
        spec: OpenAIModerationDocument,
        api_key: str,
        session: Callable[[], aiohttp.ClientSession],
        proxy: URL | None = None,
    ) -> None:
        self._url = spec.base_url.rstrip("/") + "/moderations"
        self._model = spec.model
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._session, self._proxy = session, proxy

    async def warm(self) -> None:
        """See `Scorer.warm`. Whether the endpoint answers is for each check to find out."""

    async def scores(self, texts: Sequence[str]) -> Sequence[Scores]:
        """See `Scorer.scores`."""
        slots = asyncio.Semaphore(REQUESTS_AT_ONCE)

        async def ask(part: Sequence[str]) -> list[Scores]:
            async with slots:
                return await self._ask(part)

        parts = [texts[at : at + REQUEST_TEXTS_MAX] for at in range(0, len(texts), REQUEST_TEXTS_MAX)]
        answers = await asyncio.gather(*map(ask, parts))
        return [scores for answer in answers for scores in answer]

    async def _ask(self, texts: Sequence[str]) -> list[Scores]:
        # A lone surrogate is no text for JSON; its look is not what is judged.
        inputs = [text.encode("utf-8", "replace").decode() for text in texts]
        try:
            body = {"model": self._model, "input": inputs}
            async with self._session().post(
                self._url, json=body, headers=self._headers, timeout=_TIMEOUT, proxy=self._proxy
            ) as answer:
                if answer.status != 200:
                    raise _failed(f"it answered {answer.status}")
                return _scores(await answer.json(content_type=None), len(texts))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _failed(type(error).__name__) from None


def _scores(answer: Any, count: int) -> list[Scores]:
    """Reads an answer, and believes none that is not what was asked for."""
    try:
        scores: list[Scores] = [
            {name: float(value) for name, value in result["category_scores"].items() if name in MODERATION_CATEGORIES}
            for result in answer["results"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _failed("its answer is not one of moderation") from None
    if len(scores) != count or not all(0 <= score <= 1 for each in scores for score in each.values()):
        raise _failed("its answer does not fit the question")
    return scores


def _failed(why: str) -> MillraceError:
    return Unavailable("MODERATION_FAILED", f"the moderation endpoint failed: {why}")
