"""spaCy pipelines with named entities, by package or by directory.

Loaded and run in a thread, in turns; only what recognises entities is loaded. spaCy gives no scores: what it names
counts with the one that Presidio gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kit.errors import FailedPrecondition
from services.safety.backends.document import SpacyDocument
from services.safety.backends.spotted import Mention
from services.safety.backends.turns import Turns

SCORE = 0.85
# Of no use for entities; they take most of a pipeline's time.
_NOT_NEEDED = ("parser", "senter", "lemmatizer", "tagger", "morphologizer", "attribute_ruler", "textcat")


class SpacySpotter:
    """A pipeline; see `spotted.Spotter`."""

    def __init__(self, spec: SpacyDocument) -> None:
        self._turns: Turns[Sequence[Mention]] = Turns("spacy", lambda: _pipeline(spec))

    async def warm(self) -> None:
        """See `Spotter.warm`."""
        await self._turns.warm()

    async def mentions(self, texts: Sequence[str]) -> Sequence[Sequence[Mention]]:
        """See `Spotter.mentions`."""
        return await self._turns.read(texts)


def _pipeline(spec: SpacyDocument) -> Callable[[list[str]], list[list[Mention]]]:
    try:
        import spacy

        nlp = spacy.load(spec.model, exclude=_NOT_NEEDED)
    except Exception as error:  # whatever keeps a model from loading is told to who starts the service
        why = str(error).split("\n", 1)[0][:300]
        raise FailedPrecondition("MODEL_NOT_LOADABLE", f"{spec.model!r} cannot be used: {why}") from error
    if not {"ner", "entity_ruler", "span_ruler"} & set(nlp.pipe_names):
        raise FailedPrecondition("MODEL_NOT_LOADABLE", f"{spec.model!r} cannot be used: it recognises no entities")

    def read(texts: list[str]) -> list[list[Mention]]:
        return [
            [
                Mention(entity.start_char, entity.end_char, spec.labels[entity.label_], SCORE)
                for entity in doc.ents
                if entity.label_ in spec.labels
            ]
            for doc in nlp.pipe(texts)
        ]

    return read
