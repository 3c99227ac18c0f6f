"""Models of the Hugging Face hub: text classifiers and token classifiers, by directory or by name.

They run in a thread, in turns. Nothing is cut off: what is longer than a model reads is read in pieces, and the highest
score of a piece counts. transformers and torch come with `millrace[local]` and are imported when a model loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kit import openmp
from kit.errors import FailedPrecondition
from services.safety.backends.document import ClassifierDocument, TokenClassifierDocument
from services.safety.backends.scored import Scores
from services.safety.backends.spotted import Mention
from services.safety.backends.turns import Turns

# Where a configuration does not say how many tokens a model reads.
TOKENS_MAX = 512


class HuggingFaceScorer:
    """A text classifier; see `scored.Scorer`."""

    def __init__(self, spec: ClassifierDocument) -> None:
        self._turns: Turns[Scores] = Turns("classifier", lambda: _classifier(spec))

    async def warm(self) -> None:
        """See `Scorer.warm`."""
        await self._turns.warm()

    async def scores(self, texts: Sequence[str]) -> Sequence[Scores]:
        """See `Scorer.scores`."""
        return await self._turns.read(texts)


class HuggingFaceSpotter:
    """A token classifier; see `spotted.Spotter`."""

    def __init__(self, spec: TokenClassifierDocument) -> None:
        self._turns: Turns[Sequence[Mention]] = Turns("ner", lambda: _token_classifier(spec))

    async def warm(self) -> None:
        """See `Spotter.warm`."""
        await self._turns.warm()

    async def mentions(self, texts: Sequence[str]) -> Sequence[Sequence[Mention]]:
        """See `Spotter.mentions`."""
        return await self._turns.read(texts)


def _classifier(spec: ClassifierDocument) -> Callable[[list[str]], list[Scores]]:
    """Loads a text classifier; slow, and for the thread that will run it."""
    tokenizer, model = _load(spec, "AutoModelForSequenceClassification")
    columns = _columns(spec, model, lambda label: label)
    # As transformers' own pipeline: several labels at once, or a single one, are independent of each other.
    several = model.config.problem_type == "multi_label_classification" or model.config.num_labels == 1
    token_max = _token_max(tokenizer, model)

    def read(texts: list[str]) -> list[Scores]:
        import torch

        pieces = [list(_pieces(text, tokenizer, token_max)) for text in texts]
        batch = tokenizer([piece for each in pieces for piece in each], padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**batch).logits.float()
        shares = iter((logits.sigmoid() if several else logits.softmax(-1)).tolist())
        return [_highest(columns, [next(shares) for _ in each]) for each in pieces]

    return read


def _highest(columns: Mapping[int, str], rows: Sequence[Sequence[float]]) -> Scores:
    scores: dict[str, float] = {}
    for column, category in columns.items():
        scores[category] = max(scores.get(category, 0.0), *(row[column] for row in rows))
    return scores


def _token_classifier(spec: TokenClassifierDocument) -> Callable[[list[str]], list[list[Mention]]]:
    """Loads a token classifier; slow, and for the thread that will run it."""
    tokenizer, model = _load(spec, "AutoModelForTokenClassification")
    if not tokenizer.is_fast:
        raise _not_loadable(spec.model, "its tokenizer does not tell where tokens stand")
    columns = _columns(spec, model, _kind)
    begins = frozenset(column for column, label in model.config.id2label.items() if label.startswith("B-"))
    token_max = _token_max(tokenizer, model)

    def read(texts: list[str]) -> list[list[Mention]]:
        import torch

        pieces = [list(_pieces(text, tokenizer, token_max)) for text in texts]
        batch = tokenizer(
            [piece for each in pieces for piece in each],
            padding=True, return_tensors="pt", return_offsets_mapping=True,
        )  # fmt: skip
        offsets = batch.pop("offset_mapping").tolist()
        with torch.inference_mode():
            scores, labels = model(**batch).logits.float().softmax(-1).max(-1)
        found = iter(
            list(
                _mentions(
                    batch.word_ids(row), offsets[row], labels[row].tolist(), scores[row].tolist(), columns, begins
                )
            )
            for row in range(len(offsets))
        )
        return [_joined(each, [next(found) for _ in each]) for each in pieces]

    return read


def _mentions(
    words: Sequence[int | None],
    offsets: Sequence[tuple[int, int]],
    labels: Sequence[int],
    scores: Sequence[float],
    columns: Mapping[int, str],
    begins: frozenset[int],
) -> Iterator[Mention]:
    """Joins words of one category that follow each other; a word is what its first token is."""
    found: list[Mention] = []
    last: int | None = None
    for word, (start, end), label, score in zip(words, offsets, labels, scores, strict=True):
        if word is None:
            continue
        if word == last:
            if found and found[-1].end == start:
                found[-1] = found[-1]._replace(end=end)
            continue
        category = columns.get(label)
        follows = bool(found) and last is not None and last == word - 1 and found[-1].category == category
        last = word
        if category is None:
            yield from found
            found = []
        elif follows and label not in begins:
            found[-1] = found[-1]._replace(end=end, score=min(found[-1].score, score))
        else:
            yield from found
            found = [Mention(start, end, category, score)]
    yield from found


def _joined(pieces: Sequence[str], mentions: Sequence[Sequence[Mention]]) -> list[Mention]:
    """The mentions of a text, from those of its pieces."""
    joined: list[Mention] = []
    at = 0
    for piece, found in zip(pieces, mentions, strict=True):
        joined += [each._replace(start=at + each.start, end=at + each.end) for each in found]
        at += len(piece)
    return joined


def _load(spec: ClassifierDocument | TokenClassifierDocument, kind: str) -> tuple[Any, Any]:
    openmp.wait_asleep()
    try:
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(spec.model, revision=spec.revision or "main")
        model = getattr(transformers, kind).from_pretrained(spec.model, revision=spec.revision or "main")
    except ImportError:
        raise _not_loadable(spec.model, "install millrace[local], which brings transformers and torch") from None
    except Exception as error:  # whatever keeps a model from loading is told to who starts the service
        raise _not_loadable(spec.model, str(error).split("\n", 1)[0][:300]) from error
    model.eval()
    return tokenizer, model


def _columns(
    spec: ClassifierDocument | TokenClassifierDocument, model: Any, kind: Callable[[str], str]
) -> dict[int, str]:
    """The category of each output that the policy file has a name for."""
    known = {column: kind(label) for column, label in model.config.id2label.items()}
    if isinstance(spec, ClassifierDocument) and (strange := spec.labels.keys() - set(known.values())):
        raise _not_loadable(spec.model, f"it has no label {min(strange)!r}, but {', '.join(sorted(known.values()))}")
    columns = {column: spec.labels[label] for column, label in known.items() if label in spec.labels}
    if not columns:
        raise _not_loadable(spec.model, f"none of its labels is named: {', '.join(sorted(set(known.values())))}")
    return columns


def _kind(label: str) -> str:
    """What a label of the BIO scheme or its relatives marks."""
    return label[2:] if label[1:2] == "-" else label


def _token_max(tokenizer: Any, model: Any) -> int:
    """How many tokens a model reads; RoBERTa's kin count positions from behind the padding's."""
    positions = getattr(model.config, "max_position_embeddings", TOKENS_MAX)
    padding = (getattr(model.config, "pad_token_id", 0) or 0) + 1 if "roberta" in model.config.model_type else 0
    return int(min(tokenizer.model_max_length, positions - padding))


def _pieces(text: str, tokenizer: Any, token_max: int) -> Iterator[str]:
    """Halves a text until each piece is read whole."""
    if len(text) < 2 or len(tokenizer(text, verbose=False)["input_ids"]) <= token_max:
        yield text
        return
    middle = text.rfind(" ", len(text) // 4, len(text) * 3 // 4) + 1 or len(text) // 2
    yield from _pieces(text[:middle], tokenizer, token_max)
    yield from _pieces(text[middle:], tokenizer, token_max)


def _not_loadable(model: str, why: str) -> FailedPrecondition:
    return FailedPrecondition("MODEL_NOT_LOADABLE", f"{model!r} cannot be used: {why}")
