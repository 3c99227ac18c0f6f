"""Sentence embeddings for every service: texts in, vectors of length 1 out, and the states of each token with them.

One thread of this process runs the model. Texts that come while it is busy go together into its next turn, whoever sent
them, so that many callers cost less than one after the other; nobody ever waits for company. Nothing is cut off: a text
that is longer than the model reads is refused, for two long texts that begin alike would be taken for one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from kit import minilm
from kit.errors import InvalidArgument, MillraceError, ResourceExhausted, Unavailable
from kit.sentence_model import Precision, SentenceModel, find, not_loadable

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
T = TypeVar("T")

# What one turn takes at most: about 40 ms of the default model on one core, so that a short text never waits long
# behind long ones. Tokens are not known before the turn; English has four characters in one.
TURN_TEXTS_MAX = 16
TURN_CHARACTERS_MAX = 1024
# Texts that may wait: about a second of work.
QUEUE_TEXTS_MAX = 256
RETRY_AFTER_MS = 1_000
# The first runs of a shape are slow; these are the ends of what comes.
WARM_UP = ("warm", "a text of about as many words as a question to a machine has")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text in the space of a model.

    Attributes:
        vector: The text, float32, shape (dimension,), of length 1.
        states: Its tokens in the last layer, float32, shape (tokens, width), the special ones included.
        offsets: Where each token begins and ends in the text, in code points, shape (tokens, 2); 0, 0 for special ones.
    """

    vector: Floats
    states: Floats
    offsets: npt.NDArray[np.int32]


class Network(Protocol):
    """A loaded model, run by one thread."""

    dimension: int
    token_max: int
    tokenizer: Tokenizer

    def run(self, token_ids: Sequence[Sequence[int]]) -> tuple[Floats, list[Floats]]:
        """Computes a vector of any length for each text, shape (texts, dimension), and the states of its tokens."""
        ...


Loaded = tuple[SentenceModel, Network]


def load(name: str, threads: int, precision: Precision = "float32") -> Loaded:
    """Loads a model and runs it once; slow, and for the thread that will run it.

    A model whose kind is not computed in `int8_blocks` is loaded in float32, and its version says so: the vectors are
    nearly the same. Those of `int8` are not, so there it is refused.

    Raises:
        FailedPrecondition: MODEL_NOT_LOADABLE or MODEL_NOT_GENUINE.
    """
    begin = time.monotonic()
    try:
        model, network = _load(find(name, precision), threads)
        network.tokenizer.no_truncation()
        network.tokenizer.no_padding()
        for text in WARM_UP:
            _computed(network, [network.tokenizer.encode(text)])
    except MillraceError:
        raise
    except Exception as error:  # whatever keeps a model from loading is told to who waits for it
        raise not_loadable(name, error) from error
    seconds = round(time.monotonic() - begin, 2)
    logger.info("encoder loaded", extra={"model": model.version, "runtime": type(network).__name__, "seconds": seconds})
    return model, network


@dataclass(frozen=True, slots=True)
class _Job:
    """A text that waits, where it stands among its caller's texts, and who waits for it."""

    text: str
    index: int
    done: asyncio.Future[Encoded]


class Encoder:
    """One model and its thread.

    Errors of every call:
        InvalidArgument: `texts[INDEX]` with reason CONTEXT_LENGTH_EXCEEDED; says nothing about the other texts.
        ResourceExhausted: QUEUE_FULL.
        Unavailable: MODEL_NOT_READY before `warm`, SHUTTING_DOWN after `close`.
    """

    def __init__(
        self, model: str = minilm.NAME, *, threads: int = 1, load: Callable[[str, int], Loaded] = load
    ) -> None:
        """`model` is `all-minilm-l6-v2`, a directory, or a name on the hub, which needs a network once.

        More than one thread gains little on short texts, and loses much where the cores are busy.
        """
        self._load = partial(load, model, threads)
        self._thread = _Worker("encoder")
        self._loaded: Loaded | None = None
        self._loading: asyncio.Future[Loaded] | None = None
        self._jobs: deque[_Job] = deque()
        self._is_busy = False
        self._is_closed = False

    @property
    def version(self) -> str:
        """Names the space of the vectors: the model, its files and its precision. Those of two never mix."""
        return self._ready()[0].version

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._ready()[1].dimension

    @property
    def token_max(self) -> int:
        """Most tokens of a text, the special ones included."""
        return self._ready()[1].token_max

    async def warm(self) -> None:
        """Loads the model and runs it once; again and again has no effect.

        Raises:
            FailedPrecondition: MODEL_NOT_LOADABLE or MODEL_NOT_GENUINE.
        """
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_future()
            self._thread.do(self._load, partial(_settle, self._loading))
        self._loaded = await asyncio.shield(self._loading)

    async def encode(self, texts: Sequence[str]) -> Floats:
        """Returns the vectors, float32, shape (texts, dimension), each of length 1."""
        return (await self.encode_counted(texts))[0]

    async def encode_counted(self, texts: Sequence[str]) -> tuple[Floats, int]:
        """Returns the vectors, as `encode` does, and how many tokens the texts have, the special ones included."""
        network = self._ready()[1]
        vectors, token_count = np.empty((len(texts), network.dimension), np.float32), 0
        for begin in range(0, len(texts), TURN_TEXTS_MAX):
            for row, encoded in enumerate(await self._together(texts, begin), begin):
                vectors[row] = encoded.vector
                token_count += len(encoded.offsets)
        return vectors, token_count

    async def token_states(self, texts: Sequence[str]) -> list[Encoded]:
        """Returns vectors and the states of all tokens, in one pass."""
        return [
            encoded for begin in range(0, len(texts), TURN_TEXTS_MAX) for encoded in await self._together(texts, begin)
        ]

    async def close(self) -> None:
        """Refuses who waits, and frees the model after the turn in hand."""
        self._is_closed = True
        while self._jobs:
            _settle(self._jobs.popleft().done, _shutting_down())
        await self._thread.close()
        self._loaded = None

    def _ready(self) -> Loaded:
        if self._is_closed:
            raise _shutting_down()
        if self._loaded is None:
            raise Unavailable("MODEL_NOT_READY", "the model is being loaded; retry", retry_after_ms=RETRY_AFTER_MS)
        return self._loaded

    async def _together(self, texts: Sequence[str], begin: int) -> list[Encoded]:
        """Has as many texts encoded as a turn takes; the rest of a long list lets others in between."""
        self._ready()
        part = texts[begin : begin + TURN_TEXTS_MAX]
        if len(self._jobs) + len(part) > QUEUE_TEXTS_MAX:
            raise ResourceExhausted("QUEUE_FULL", "too many texts wait; retry", retry_after_ms=RETRY_AFTER_MS)
        loop = asyncio.get_running_loop()
        jobs = [_Job(text, index, loop.create_future()) for index, text in enumerate(part, begin)]
        self._jobs.extend(jobs)
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._start_turn)  # at the tick's end, with what else came in it
        return [await jobs[0].done] if len(jobs) == 1 else await asyncio.gather(*(job.done for job in jobs))

    def _start_turn(self) -> None:
        jobs = _next_turn(self._jobs)
        self._is_busy = bool(jobs) and not self._is_closed
        if self._is_busy:
            network, encodings = self._ready()[1], list[Encoding]()
            # Tokens of so little text are made sooner than a thread gets the interpreter to make them, which it would
            # have to wrest from the loop several times; what fails here fails there as well, and is told.
            if sum(len(job.text) for job in jobs) <= TURN_CHARACTERS_MAX:
                with suppress(BaseException):
                    encodings = _encodings(network, jobs)
            self._thread.do(
                lambda: _computed(network, encodings or _encodings(network, jobs)), partial(self._end_turn, jobs)
            )

    def _end_turn(self, jobs: list[_Job], outcome: list[Encoded | None] | BaseException) -> None:
        for row, job in enumerate(jobs):
            _settle(job.done, outcome if isinstance(outcome, BaseException) else outcome[row] or self._too_long(job))
        self._start_turn()

    def _too_long(self, job: _Job) -> InvalidArgument:
        problem = f"is longer than the {self.token_max} tokens that the model reads"
        return InvalidArgument(f"texts[{job.index}]", problem, reason="CONTEXT_LENGTH_EXCEEDED")


class _Worker:
    """A thread that does one thing after another, and tells the event loop what came of each.

    An executor does more than that, and holds the interpreter for it when the loop has just been woken.
    """

    def __init__(self, name: str) -> None:
        self._todo: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = Thread(target=self._live, name=name, daemon=True)

    def do(self, work: Callable[[], T], then: Callable[[T | BaseException], object]) -> None:
        """Has work done in the thread, and the loop that runs now told its result or error."""
        if not self._thread.ident:
            self._thread.start()
        self._todo.put((asyncio.get_running_loop(), work, then))

    async def close(self) -> None:
        """Ends the thread after what it was given."""
        self._todo.put(None)
        if self._thread.ident:
            await asyncio.to_thread(self._thread.join)

    def _live(self) -> None:
        while task := self._todo.get():
            loop, work, then = task
            outcome: Any
            try:
                outcome = work()
            except BaseException as error:  # a panic of the tokenizer is no Exception
                outcome = error
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                loop.call_soon_threadsafe(then, outcome)
            del task, work, then, outcome  # texts are kept no longer than needed


_Task = tuple[asyncio.AbstractEventLoop, Callable[[], Any], Callable[[Any], object]]


def _next_turn(jobs: deque[_Job]) -> list[_Job]:
    """Takes texts in order of arrival, as many as fit padded to the longest; those nobody waits for are dropped."""
    turn: list[_Job] = []
    longest = 0
    while jobs and len(turn) < TURN_TEXTS_MAX:
        longest = max(longest, len(jobs[0].text))
        if turn and longest * (len(turn) + 1) > TURN_CHARACTERS_MAX:
            break
        job = jobs.popleft()
        if not job.done.done():
            turn.append(job)
    return turn


def _settle(done: asyncio.Future[T], outcome: T | BaseException) -> None:
    if done.done():  # its caller has left
        return
    if isinstance(outcome, BaseException):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _encodings(network: Network, jobs: Sequence[_Job]) -> list[Encoding]:
    return [network.tokenizer.encode(_readable(job.text)) for job in jobs]


def _computed(network: Network, encodings: Sequence[Encoding]) -> list[Encoded | None]:
    """Encodes the texts of one turn, in the thread; None stands for one that is too long."""
    fitting = [encoding for encoding in encodings if len(encoding) <= network.token_max]
    if not fitting:
        return [None] * len(encodings)
    vectors, states = network.run([encoding.ids for encoding in fitting])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    results = iter(zip(vectors, states, fitting, strict=True))
    return [_encoded(*next(results)) if len(encoding) <= network.token_max else None for encoding in encodings]


def _readable(text: str) -> str:
    """A text without lone surrogates, which Python strings may hold and no tokenizer reads; as long as before."""
    return text.encode("utf-8", "replace").decode()


def _encoded(vector: Floats, states: Floats, encoding: Encoding) -> Encoded:
    return Encoded(vector, states, np.array(encoding.offsets, np.int32))


def _load(model: SentenceModel, threads: int) -> Loaded:
    """Chooses what runs a model. The libraries are imported here, in the thread, for they take seconds."""
    from kit import bert_onnx, sentence_torch

    if not bert_onnx.runs(model) and model.precision == "int8_blocks":
        model = replace(model, precision="float32")
    if bert_onnx.runs(model):
        return model, bert_onnx.BertOnnx(model, threads)
    if model.precision != "float32":
        raise ValueError(f"its kind is not computed in {model.precision}")
    return model, sentence_torch.SentenceTorch(model, threads)


def _shutting_down() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "the service is stopping; retry elsewhere", retry_after_ms=RETRY_AFTER_MS)
