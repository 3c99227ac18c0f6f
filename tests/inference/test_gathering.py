"""What of an answer waits before safety is sent it, and what never does."""

from hypothesis import given
from hypothesis import strategies as st

from services.inference.screening.gathering import Awaited, Gathering
from services.inference.screening.safety_port import OutputPiece
from services.safety.learned.passages import Pieces

AWAITED = Awaited(0, "text", least_through=20, most_through=40, stops=".!", gather_s=1.0)
TOKENS = (" a", " word", " Then", " Mr", " 3", "14", ".", "!", '."', "\n", ".\n", "。", " ")


def piece(text: str, kind: str = "text", **how: bool) -> OutputPiece:
    return OutputPiece(0, kind, text, **how)


def told(*awaited: Awaited) -> Gathering:
    gathering = Gathering()
    for one in awaited:
        gathering.tell(one)
    return gathering


def test_nothing_waits_before_safety_says_so() -> None:
    """A service that tells nothing gets each piece at once."""
    gathering = Gathering()

    assert gathering.take([piece("a")])
    assert [one.text for one in gathering.give()] == ["a"]
    assert not gathering.give()


def test_text_waits_until_it_may_matter() -> None:
    """Stops count from where something can be judged on, with what follows them; and so does enough text."""
    gathering = told(AWAITED)
    texts = ["A first.", " word", " and more", " and", " on.", " So", " it", " goes"]

    due = [gathering.take([piece(text)]) for text in texts]

    assert due == [False, False, False, False, True, True, False, True]
    assert [one.text for one in gathering.give()] == texts
    assert gathering.gather_s == 1.0


def test_what_ends_something_or_belongs_to_a_call_never_waits() -> None:
    """Nor does text of a part of which nothing was told; what is due counts for the others of its batch."""
    gathering = told(AWAITED)

    assert not gathering.take([piece("a"), piece("b")])
    assert gathering.take([piece("", end_of_part=True)])
    assert gathering.take([piece("", end_of_choice=True)])
    assert gathering.take([piece("{}", "tool_arguments")])
    assert gathering.take([piece("hm", "reasoning")])
    assert gathering.take([piece("hm", "reasoning"), piece("c")])
    assert "".join(one.text for one in gathering.give() if one.kind == "text") == "abc"


def test_what_waits_is_looked_at_anew_when_more_is_known() -> None:
    """What did not matter may do so then, and is counted once."""
    gathering = told(AWAITED)
    assert not gathering.take([piece("ten of. it")])

    assert not gathering.tell(Awaited(0, "text", 12, 40, ".", 1.0))
    assert gathering.tell(Awaited(0, "text", 5, 40, ".", 1.0))
    assert gathering.tell(Awaited(0, "text", 0, 0, "", 1.0))
    gathering.give()
    assert not gathering.tell(Awaited(0, "text", 40, 80, ".", 1.0))
    assert not gathering.take([piece("x" * 29)])
    assert not gathering.take([piece(".")])
    assert not gathering.take([piece(".")])
    assert gathering.take([piece(" ")])


def test_a_stop_waits_for_what_follows_once_something_was_judged() -> None:
    """Before, safety begins to read at the stop; later only the character behind it tells that a sentence ends."""
    assert told(AWAITED).take([piece("x" * 35 + ".")])
    for stop, follows in ((".", " so"), ('."', " So"), (".", '"'), (".", " So.")):
        later = told(AWAITED, Awaited(0, "text", 30, 60, ".\n", 1.0))
        assert not later.take([piece("x" * 35 + stop)])
        assert later.take([piece(follows)])
    for text in (".\n", ". So", ". S.", ".\n)"):
        later = told(AWAITED, Awaited(0, "text", 30, 60, ".\n", 1.0))
        assert later.take([piece("x" * 35 + text)])


@given(st.lists(st.sampled_from(TOKENS), min_size=40, max_size=400))
def test_passages_are_complete_with_the_same_token(tokens: list[str]) -> None:
    """What waits for a passage of the learned detectors delays none, and most tokens of prose wait."""
    alone, together, gathering = Pieces(), Pieces(), Gathering()
    text = sent = ""

    for token in tokens:
        text += token
        if gathering.take([piece(token)]):
            sent += "".join(one.text for one in gathering.give())
            expected = alone.take(text, 0, final=False)
            assert together.take(sent, 0, final=False) == expected
            wakes = together.wakes
            assert not gathering.tell(Awaited(0, "text", wakes.at, wakes.surely_at, wakes.stops, 1.0))
        else:
            assert not alone.take(text, 0, final=False)


def test_few_messages_carry_prose() -> None:
    """Of a sentence of sixteen words few go by themselves."""
    pieces, gathering = Pieces(), Gathering()
    text, count = "", 0

    for number in range(400):
        text += " word." if number % 16 == 15 else " word"
        if gathering.take([piece(" word." if number % 16 == 15 else " word")]):
            gathering.give()
            count += 1
            pieces.take(text, 0, final=False)
            gathering.tell(Awaited(0, "text", *pieces.wakes, 1.0))

    assert count < 400 / 10
