"""From tokens to text: whole characters, and stop strings that never leak."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.text import BROKEN_TOKENS, Detokenizer, StopGate
from services.inference.generation import Prompt, TokenLogprob
from tests.fakes.tiny_gpt2 import write_tiny_gpt2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A model whose tokens are nearly all single bytes."""
    return load(str(write_tiny_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))))


def logprob(text: str) -> TokenLogprob:
    """A log probability of a token."""
    return TokenLogprob(text, -1.0, text.encode())


@pytest.mark.parametrize("text", ["plain", "Käse – 奶酪 🧀!", "👩‍👩‍👧 and 🇨🇭", "the winter"])
def test_detokenizer_gives_whole_characters(model: LocalModel, text: str) -> None:
    """No piece holds half a character, and all pieces together are the text."""
    detokenizer = Detokenizer(model.decode, model.encode(Prompt(raw_prompt="before")))

    pieces = [detokenizer.add(token_id) for token_id in model.encode(Prompt(raw_prompt=text))]

    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_detokenizer_passes_broken_bytes_on(model: LocalModel) -> None:
    """Bytes that never make a character do not hold the answer back for ever."""
    detokenizer = Detokenizer(model.decode, [])
    lead = model.encode(Prompt(raw_prompt="🧀"))[0]

    pieces = [detokenizer.add(lead) for _ in range(BROKEN_TOKENS + 1)]

    assert "".join(pieces) == "\ufffd" * (BROKEN_TOKENS + 1)


@given(
    text=st.text("abc", max_size=40),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    seed=st.integers(),
)
def test_stop_gate_equals_a_search_in_the_whole_text(text: str, stops: list[str], seed: int) -> None:
    """However a text is cut into pieces, what leaves is the text before the stop string that is first complete."""
    found = min(((text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text), default=None)
    wanted = text if found is None else text[: found[1]]
    gate, rng, left, at = StopGate(tuple(stops)), random.Random(seed), "", 0

    while at < len(text) and not gate.stopped_by:
        size = rng.randint(0, 3)
        left += gate.add(text[at : at + size], None)[0]
        assert wanted.startswith(left)
        at += size
    if not gate.stopped_by:
        left += gate.flush()[0]

    assert left == wanted
    assert bool(gate.stopped_by) == (found is not None)


def test_held_log_probabilities_come_with_their_text() -> None:
    """The log probability of a token leaves when all of its text has left, and one of a stop string never."""
    gate = StopGate(("stop",))

    assert gate.add("a s", logprob("a s")) == ("a ", ())
    assert gate.add("t", logprob("t")) == ("", ())
    assert gate.add("x", logprob("x")) == ("stx", (logprob("a s"), logprob("t"), logprob("x")))
    assert gate.add("st", logprob("st")) == ("", ())
    assert gate.add("op!", logprob("op!")) == ("", ())
    assert gate.stopped_by == "stop"


def test_half_a_stop_character_does_not_leak_as_log_probability() -> None:
    """The first byte of a stop string's character is held with the character."""
    gate = StopGate(("é",))

    assert gate.add("", logprob("\ufffd")) == ("", ())
    assert gate.add("é", logprob("\ufffd")) == ("", ())
    assert gate.stopped_by == "é"


def test_flush_gives_the_rest() -> None:
    """An answer that ends otherwise gives what was held, log probabilities of half characters included."""
    gate = StopGate(("stop",))
    gate.add("sto", logprob("sto"))
    gate.add("", logprob("\ufffd"))

    assert gate.flush() == ("sto", (logprob("sto"), logprob("\ufffd")))
