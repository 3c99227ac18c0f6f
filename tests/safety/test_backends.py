"""What every backend promises, whatever judges: the contract of detectors, kept by each of them."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from services.safety.backends.assembly import BackendPool
from services.safety.backends.document import (
    BackendSpec,
    ClassifierDocument,
    OpenAIModerationDocument,
    SpacyDocument,
    TokenClassifierDocument,
)
from services.safety.detectors.detector import Detector, Match, Warmed, is_awaited
from services.safety.detectors.folding import Folder
from services.safety.detectors.lexicon import Lexicon
from services.safety.detectors.pii import PersonalData
from services.safety.detectors.recognisers import load_recognisers
from services.safety.detectors.terms import ForbiddenTerms
from services.safety.learned.assembly import assemble
from tests.fakes.moderation_upstream import KEY, ModerationUpstream
from tests.fakes.tiny_bert import write_classifier, write_token_classifier

CALM = "the committee met on tuesday and agreed that the bridge should open before the rains begin. "
CUT_COUNT = 25


@dataclass
class Case:
    """A backend, a text in which it finds something, and of what category."""

    detector: Detector
    text: str
    category: str


def spacy_directory(path: Path) -> Path:
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "Ann Lee"}, {"label": "GPE", "pattern": "Oslo"}]
    )
    nlp.to_disk(path)
    return path


@pytest_asyncio.fixture(loop_scope="session")
async def make(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[Case]]]:
    """Makes a backend, ready to read."""
    pool = BackendPool({"MODERATION_KEY": KEY})
    upstream = ModerationUpstream({"stab": "violence"})
    learned = assemble(1)

    def backend(spec: BackendSpec) -> Detector:
        return pool.detector("mine", spec, "policies.yaml:1: detectors.mine")

    def case(kind: str) -> Case:
        if kind == "terms":
            return Case(
                ForbiddenTerms(Lexicon(Folder(), [("violence", 1.0, "stab you")])), "I will stab you.", "violence"
            )
        if kind == "pii":
            return Case(PersonalData(load_recognisers()), "Write to jo@example.com now.", "EMAIL_ADDRESS")
        if kind == "heads":
            return Case(learned.detectors["moderation"], "I will stab you, kill you and watch you bleed.", "violence")
        if kind == "names":
            return Case(learned.detectors["names"], "Yesterday Sarah Johnson spoke to us about it.", "PERSON")
        if kind == "openai_moderation":
            spec = OpenAIModerationDocument(
                backend="openai_moderation", base_url=upstream.url, api_key_env="MODERATION_KEY"
            )
            return Case(backend(spec), "I will stab you.", "violence")
        if kind == "huggingface_classifier":
            path = write_classifier(tmp_path / "classifier", {"stab": "threat", "vile": "toxic"})
            labels = {"threat": "violence", "toxic": "harassment"}
            classifier = ClassifierDocument(backend="huggingface_classifier", model=str(path), labels=labels)
            return Case(backend(classifier), "I will stab you.", "violence")
        if kind == "huggingface_ner":
            path = write_token_classifier(tmp_path / "ner", {"ann": "PER", "lee": "PER", "oslo": "LOC"})
            ner = TokenClassifierDocument(backend="huggingface_ner", model=str(path))
            return Case(backend(ner), "Yesterday Ann Lee spoke.", "PERSON")
        pipeline = SpacyDocument(backend="spacy_ner", model=str(spacy_directory(tmp_path / "pipeline")))
        return Case(backend(pipeline), "Yesterday Ann Lee spoke.", "PERSON")

    async def made(kind: str) -> Case:
        found = case(kind)
        if isinstance(found.detector, Warmed):
            await found.detector.warm()
            await found.detector.warm()
        return found

    async with upstream.served():
        yield made
        await pool.close()
        await learned.encoder.close()


KINDS = (
    "terms",
    "pii",
    "heads",
    "names",
    "openai_moderation",
    "huggingface_classifier",
    "huggingface_ner",
    "spacy_ner",
)
every_backend = pytest.mark.parametrize("kind", KINDS)
Make = Callable[[str], Awaitable[Case]]


async def read(detector: Detector, pieces: list[str], categories: tuple[str, ...] | None = None) -> list[Match]:
    """Reads a text in pieces as the service does, and sees to what every cursor promises on the way."""
    cursor = detector.cursor(detector.categories if categories is None else categories)
    text, kept, matches = "", 0, []
    for number, piece in enumerate(pieces, 1):
        text += piece
        final = number == len(pieces)
        before = cursor.safe
        if is_awaited(cursor):
            work = cursor.begin(text[kept:], kept, final)
            found = await work if work is not None else []
        else:
            found = cursor.scan(text[kept:], kept, final)
        assert before <= cursor.safe <= len(text)
        assert final or len(text) - cursor.safe <= detector.hold
        assert all(before <= match.start < match.end <= len(text) for match in found)
        matches += found
        kept = max(0, cursor.safe - detector.context)
    assert cursor.safe == len(text)
    return matches


def cut(text: str, rng: random.Random) -> list[str]:
    pieces = []
    while text:
        size = rng.choice([1, 2, 5, 40, 400])
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def strong(matches: list[Match], text: str) -> list[tuple[str, str]]:
    return [(match.category, text[match.start : match.end]) for match in matches if match.score >= 0.4]


@every_backend
async def test_it_finds_what_is_there_and_nothing_else(make: Make, kind: str) -> None:
    """Its text has a finding of its category in it; a calm text has none."""
    case = await make(kind)

    assert case.category in {category for category, _ in strong(await read(case.detector, [case.text]), case.text)}
    assert strong(await read(case.detector, [CALM]), CALM) == []


@every_backend
async def test_any_cutting_finds_the_same(make: Make, kind: str) -> None:
    """However a long text is cut, the findings are those of the whole, none held longer than promised."""
    case = await make(kind)
    text = CALM * 3 + case.text + " " + CALM * 4 + "no sentence ends here " * 12 + case.text + " " + CALM
    whole = await read(case.detector, [text])
    rng = random.Random(1)

    assert sum(category == case.category for category, _ in strong(whole, text)) >= 2
    for _ in range(CUT_COUNT):
        found = await read(case.detector, cut(text, rng))
        assert [(m.start, m.end, m.category) for m in found] == [(m.start, m.end, m.category) for m in whole]
        assert [m.score for m in found] == pytest.approx([m.score for m in whole], abs=1e-4)


@every_backend
async def test_only_wanted_categories_are_reported(make: Make, kind: str) -> None:
    """What the policy does not ask for is not told."""
    case = await make(kind)

    assert await read(case.detector, [case.text], ()) == []


HOSTILE = {
    "empty": "", "surrogates": "\ud800 and \udfff", "direction": "\u202e\u2066stab\u200f", "nul": "\0",
    "marks": "e" + "\u0301" * 400, "emoji": "😀" * 700, "letter": "a" * 5000, "han": "汉字。" * 300,
    "lines": "\n" * 2000, "spaces": " " * 1000, "stops": ". " * 700,
}  # fmt: skip


@every_backend
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_text_is_read_to_its_end(make: Make, kind: str, text: str) -> None:
    """Whatever stands there, it is read to the end, and spans lie in the text."""
    case = await make(kind)

    matches = await read(case.detector, [text])

    assert all(0 <= match.score <= 1 for match in matches)
