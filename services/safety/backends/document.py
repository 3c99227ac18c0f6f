"""What the policy file says of a backend: which model judges, where it is, and what its labels are called here.

Data only: nothing is loaded and nobody is called because of it. `assembly.py` makes detectors of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import pydantic

from kit.document import Document

Category = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_/-]{0,63}$")]
Labels = Annotated[dict[str, Category], pydantic.Field(min_length=1)]
_ModelName = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=1024)]

# OpenAI's moderation categories: https://platform.openai.com/docs/guides/moderation
MODERATION_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)

# What the NER models of spaCy and of the hub call people and places: OntoNotes, CoNLL, WikiNER.
NER_LABELS = {
    "PERSON": "PERSON", "PER": "PERSON",
    "LOCATION": "LOCATION", "LOC": "LOCATION", "GPE": "LOCATION",
}  # fmt: skip


class OpenAIModerationDocument(Document):
    """OpenAI's moderation endpoint, or one that speaks like it."""

    finds_spans: ClassVar[bool] = False
    categories: ClassVar[tuple[str, ...]] = MODERATION_CATEGORIES

    backend: Literal["openai_moderation"]
    model: _ModelName = "omni-moderation-latest"
    base_url: Annotated[str, pydantic.StringConstraints(pattern=r"^https?://[^\s/]+(/\S*)?$")] = (
        "https://api.openai.com/v1"
    )
    api_key_env: str | None = None
    api_key_file: Path | None = None

    @pydantic.model_validator(mode="after")
    def _check_key(self) -> Self:
        if (self.api_key_env is None) == (self.api_key_file is None):
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


class _Labelled(Document):
    """A model whose labels have names here; what has none is not reported."""

    labels: Labels

    @property
    def categories(self) -> tuple[str, ...]:
        """What it can find."""
        return tuple(sorted(set(self.labels.values())))


class ClassifierDocument(_Labelled):
    """A text classifier of the Hugging Face hub, by name or by directory."""

    finds_spans: ClassVar[bool] = False

    backend: Literal["huggingface_classifier"]
    model: _ModelName
    revision: str | None = None


class TokenClassifierDocument(_Labelled):
    """A token classifier (NER) of the Hugging Face hub, by name or by directory."""

    finds_spans: ClassVar[bool] = True

    backend: Literal["huggingface_ner"]
    model: _ModelName
    revision: str | None = None
    labels: Labels = NER_LABELS


class SpacyDocument(_Labelled):
    """A spaCy pipeline with named entities, by package or by directory."""

    finds_spans: ClassVar[bool] = True

    backend: Literal["spacy_ner"]
    model: _ModelName
    labels: Labels = NER_LABELS


BackendSpec = OpenAIModerationDocument | ClassifierDocument | TokenClassifierDocument | SpacyDocument
BackendDocument = Annotated[BackendSpec, pydantic.Field(discriminator="backend")]
