"""The encoder: its vectors are those of the reference, and callers share one thread without waiting for each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Encoding, Tokenizer

from kit import minilm
from kit.encoder import QUEUE_TEXTS_MAX, TURN_TEXTS_MAX, Encoder, Floats, Loaded, load
from kit.errors import MillraceError
from kit.sentence_model import find

TEXTS = [
    "How do I change the email address of my account?",
    "hi",
    "Wie spät ist es in Zürich — und in 東京?",
    "the quick brown fox jumps over the lazy dog " * 12,
]
DEADLINE_S = 20.0


class Network:
    """Stands for a model: notes its turns, and waits in each until it may go on."""

    dimension = 2
    token_max = 1000

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.error: Exception | None = None
        self.tokenizer = Tokenizer.from_file(str(Path(minilm.find()) / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def run(self, token_ids: Sequence[Sequence[int]]) -> tuple[Floats, list[Floats]]:
        """Makes vectors that tell how long each text was."""
        self.turns.append(len(token_ids))
        self.entered.release()
        assert self.may_go.acquire(timeout=DEADLINE_S)
        if self.error is not None:
            raise self.error
        states = [np.tile(np.float32([3, 4 * len(ids)]), (len(ids), 1)) for ids in token_ids]
        return np.stack([state.mean(axis=0) for state in states]), states

    async def busy(self) -> None:
        """Waits until the next turn is in the model's hands."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=DEADLINE_S)


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    """The model as its authors run it."""
    return SentenceTransformer(minilm.find(), device="cpu")


@pytest.fixture
async def encoder() -> AsyncIterator[Encoder]:
    """The default model, warm."""
    encoder = Encoder()
    await encoder.warm()
    yield encoder
    await encoder.close()


@pytest.fixture
def network() -> Network:
    """A model that does as it is told."""
    return Network()


@pytest.fixture
async def slow(network: Network) -> AsyncIterator[Encoder]:
    """An encoder of that model."""

    def load_fake(name: str, threads: int) -> Loaded:
        return find(name), network

    encoder = Encoder(load=load_fake)
    await encoder.warm()
    yield encoder
    for _ in range(QUEUE_TEXTS_MAX):
        network.may_go.release()
    await encoder.close()


async def test_vectors_are_those_of_the_reference(encoder: Encoder, reference: SentenceTransformer) -> None:
    """Texts of all lengths, together and alone, get the vectors that sentence-transformers gives them."""
    wanted = reference.encode(TEXTS, convert_to_numpy=True)
    together = await encoder.encode(TEXTS)
    alone = np.concatenate([await encoder.encode([text]) for text in TEXTS])

    assert together.dtype == np.float32
    assert np.abs(together - wanted).max() < 1e-5
    assert np.abs(alone - wanted).max() < 1e-5
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)


async def test_in_8_bits_vectors_are_near_and_their_own(encoder: Encoder) -> None:
    """A vector in int8 is near that in float32, the same in any company, and of another space."""
    small = Encoder(load=partial(load, precision="int8"))
    await small.warm()
    together = await small.encode(TEXTS)
    alone = np.concatenate([await small.encode([text]) for text in TEXTS])

    assert (await encoder.encode(TEXTS) * together).sum(axis=1).min() > 0.97
    assert np.array_equal(together, alone)
    assert small.version != encoder.version
    await small.close()


async def test_in_blocks_of_8_bits_vectors_are_nearly_the_same(encoder: Encoder) -> None:
    """A vector in blocks of 8 bits differs from that in float32 by little, and not at all by its company."""
    blocks = Encoder(load=partial(load, precision="int8_blocks"))
    await blocks.warm()
    together = await blocks.encode(TEXTS)
    alone = np.concatenate([await blocks.encode([text]) for text in TEXTS])

    assert (await encoder.encode(TEXTS) * together).sum(axis=1).min() > 0.997
    assert np.array_equal(together, alone)
    assert blocks.version != encoder.version
    await blocks.close()


async def test_tokens_come_with_their_places(encoder: Encoder) -> None:
    """Each token's offsets cut its characters out of the text, and the mean of the states is the vector."""
    text = "Zürich costs 12 francs"
    (encoded,) = await encoder.token_states([text])
    mean = encoded.states.mean(axis=0)

    words = [text[begin:end] for begin, end in encoded.offsets.tolist()]
    assert "".join(words) == text.replace(" ", "")
    assert words[0] == words[-1] == ""
    assert encoded.states.shape == (len(words), encoder.dimension)
    assert encoded.vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


async def test_no_text_gives_no_vector(encoder: Encoder) -> None:
    """An empty list is answered with an array of no rows."""
    assert (await encoder.encode([])).shape == (0, encoder.dimension)


async def test_a_long_list_keeps_its_order(encoder: Encoder) -> None:
    """Texts of several turns come back in order."""
    texts = [f"text number {at}" for at in range(2 * TURN_TEXTS_MAX + 3)]
    vectors = await encoder.encode(texts)
    (last,) = await encoder.encode(texts[-1:])

    assert len(vectors) == len(texts)
    assert (vectors @ last).argmax() == len(texts) - 1


async def test_a_text_that_is_too_long_is_named(encoder: Encoder) -> None:
    """It fails its own call with its index, and no other call of the same turn."""
    bad = encoder.encode(["ok"] * TURN_TEXTS_MAX + ["word " * 300])
    refused, fine = await asyncio.gather(bad, encoder.encode(["fine"]), return_exceptions=True)

    assert isinstance(refused, MillraceError)
    assert (refused.reason, refused.field_violations[0].field) == (
        "CONTEXT_LENGTH_EXCEEDED",
        f"texts[{TURN_TEXTS_MAX}]",
    )
    assert isinstance(fine, np.ndarray)


async def test_callers_share_turns(slow: Encoder, network: Network) -> None:
    """What comes while the model is busy goes into its next turn together, and each caller gets its own vector."""
    first = asyncio.create_task(slow.encode(["first"]))
    await network.busy()
    others = [asyncio.create_task(slow.encode(["word " * count])) for count in range(1, 5)]
    await asyncio.sleep(0)
    network.may_go.release()
    await first
    await network.busy()
    network.may_go.release()
    vectors = await asyncio.gather(*others)

    assert network.turns == [1, 4]
    assert [round(float(vector[0, 1] / vector[0, 0] * 3 / 4)) for vector in vectors] == [3, 4, 5, 6]


async def test_a_turn_is_bounded_by_its_text(slow: Encoder, network: Network) -> None:
    """Long texts are not taken together: a short one that comes after them waits for one turn, not for all."""
    calls = [asyncio.create_task(slow.encode(["a" * 600])) for _ in range(3)]
    for _ in calls:
        await network.busy()
        network.may_go.release()
    await asyncio.gather(*calls)

    assert network.turns == [1, 1, 1]


async def test_a_list_lets_others_in_between(slow: Encoder, network: Network) -> None:
    """A single text waits for the turn of a long list that is under way, not for the whole list."""
    long = asyncio.create_task(slow.encode(["x"] * 4 * TURN_TEXTS_MAX))
    await network.busy()
    single = asyncio.create_task(slow.encode(["y"]))
    await asyncio.sleep(0)
    network.may_go.release(2)
    await single

    assert not long.done()
    network.may_go.release(4)
    await long


async def test_the_queue_has_a_bound(slow: Encoder, network: Network) -> None:
    """When too many texts wait, more are refused at once and the others are answered."""
    held = asyncio.create_task(slow.encode(["held"]))
    await network.busy()
    waiting = [asyncio.create_task(slow.encode(["w"])) for _ in range(QUEUE_TEXTS_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(MillraceError) as refused:
        await slow.encode(["one more"])
    network.may_go.release(1 + QUEUE_TEXTS_MAX)
    await asyncio.gather(held, *waiting)

    assert refused.value.reason == "QUEUE_FULL"


async def test_who_has_left_is_not_worked_for(slow: Encoder, network: Network) -> None:
    """A cancelled caller's texts never reach the model, and its neighbours are answered."""
    held = asyncio.create_task(slow.encode(["held"]))
    await network.busy()
    leaver = asyncio.create_task(slow.encode(["a", "b", "c"]))
    stayer = asyncio.create_task(slow.encode(["d"]))
    await asyncio.sleep(0)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    network.may_go.release(2)
    await asyncio.gather(held, stayer)

    assert network.turns == [1, 1]


async def test_a_failed_turn_fails_its_callers_only(slow: Encoder, network: Network) -> None:
    """The model's error reaches who was in the turn; the next turn runs."""
    network.error = RuntimeError("broken")
    network.may_go.release(2)
    with pytest.raises(RuntimeError, match="broken"):
        await slow.encode(["a"])
    network.error = None

    assert (await slow.encode(["b"])).shape == (1, 2)


@pytest.mark.parametrize(("text", "on_loop"), [("short", True), ("word " * 300, False)])
async def test_tokens_of_little_text_are_made_at_once(
    slow: Encoder, network: Network, monkeypatch: pytest.MonkeyPatch, text: str, on_loop: bool
) -> None:
    """Those of a long text would keep the loop from everybody else, and are left to the thread."""
    makers: list[int] = []
    tokenizer = network.tokenizer

    class Noting:
        def encode(self, text: str) -> Encoding:
            makers.append(threading.get_ident())
            return tokenizer.encode(text)

    monkeypatch.setattr(network, "tokenizer", Noting())
    network.may_go.release()
    await slow.encode([text])

    assert [maker == threading.get_ident() for maker in makers] == [on_loop]


class Panic(BaseException):
    """As a library in Rust raises one."""


async def test_a_panic_of_the_tokenizer_is_told(
    slow: Encoder, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends neither the thread nor the wait, and the next text is encoded."""
    tokenizer = network.tokenizer

    class Panicking:
        def encode(self, text: str) -> Encoding:
            raise Panic

    monkeypatch.setattr(network, "tokenizer", Panicking())
    with pytest.raises(Panic):
        await slow.encode(["a"])
    monkeypatch.setattr(network, "tokenizer", tokenizer)
    network.may_go.release()

    assert (await slow.encode(["b"])).shape == (1, 2)


async def test_closing_refuses_who_waits(slow: Encoder, network: Network) -> None:
    """At close the turn in hand ends and what waits is told to go elsewhere."""
    held = asyncio.create_task(slow.encode(["held"]))
    await network.busy()
    waiting = asyncio.create_task(slow.encode(["waiting"]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(slow.close())
    with pytest.raises(MillraceError) as refused:
        await waiting
    network.may_go.release()
    await closing

    assert refused.value.reason == "SHUTTING_DOWN"
    assert (await held).shape == (1, 2)


async def test_before_and_after_its_time() -> None:
    """Before warm-up and after close a call is UNAVAILABLE."""
    encoder = Encoder()
    with pytest.raises(MillraceError) as early:
        await encoder.encode(["x"])
    await encoder.close()
    with pytest.raises(MillraceError) as late:
        await encoder.encode(["x"])

    assert (early.value.reason, late.value.reason) == ("MODEL_NOT_READY", "SHUTTING_DOWN")


async def test_a_missing_model_is_named() -> None:
    """A model that does not exist fails to warm with its name."""
    encoder = Encoder("/no/such/directory")
    with pytest.raises(MillraceError, match="/no/such/directory") as failed:
        await encoder.warm()
    await encoder.close()

    assert failed.value.reason == "MODEL_NOT_LOADABLE"


def test_load_says_what_is_wrong_with_the_weights(tmp_path: Path) -> None:
    """Weights that cannot be read fail the load with the model's name."""
    genuine = Path(minilm.find())
    for name in minilm.SHA256:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(genuine / name)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")

    with pytest.raises(MillraceError, match=str(tmp_path)) as failed:
        load(str(tmp_path), 1)

    assert failed.value.reason == "MODEL_NOT_LOADABLE"
