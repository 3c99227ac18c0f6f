"""Models that a policy file names: those that do not fit stop the start and are named as the file does."""

from pathlib import Path

import pytest

from kit.config import ConfigError
from millrace.safety.v1 import safety_service_pb2 as pb
from services.safety import wiring
from services.safety.config import SafetySettings
from services.safety.policy_file import load_policies
from tests.fakes.tiny_bert import write_classifier, write_token_classifier
from tests.safety.conftest import Serve
from tests.safety.messages import prompt, spans
from tests.safety.test_backends import spacy_directory

PROFILE = "profiles:\n  x: {description: d, strictness: 1, input: {mine: {action: flag}}}\n"


async def complaint(path: Path, detector: str) -> str:
    path.write_text(f"detectors:\n  mine: {{{detector}}}\n{PROFILE}")
    service = wiring.build(SafetySettings(port=0, policies_file=path))
    with pytest.raises(ConfigError) as caught:
        await service.safety.warm()
    await service.close()
    return caught.value.message


async def test_a_model_that_is_not_there_is_named_by_line_and_field(tmp_path: Path) -> None:
    """A directory that does not exist, a label that the model lacks, a pipeline without entities."""
    path = tmp_path / "policies.yaml"
    known = write_classifier(tmp_path / "classifier", {"vile": "toxic"})
    tagger = write_token_classifier(tmp_path / "ner", {"ann": "PER"})

    missing = await complaint(path, "backend: huggingface_classifier, model: /nowhere/model, labels: {a: b}")
    strange = await complaint(path, f"backend: huggingface_classifier, model: {known}, labels: {{rude: hate}}")
    nameless = await complaint(path, f"backend: huggingface_ner, model: {tagger}, labels: {{ORG: ORG}}")
    empty = await complaint(path, "backend: spacy_ner, model: no_such_package")

    assert missing.startswith("policies.yaml:2: detectors.mine: '/nowhere/model' cannot be used")
    assert "it has no label 'rude', but toxic" in strange
    assert "none of its labels is named: O, PER" in nameless
    assert empty.startswith("policies.yaml:2: detectors.mine: 'no_such_package' cannot be used")


async def test_names_are_anonymised_by_the_model_that_the_file_names(serve: Serve, tmp_path: Path) -> None:
    """People and places that a pipeline finds are replaced with a way back, beside what patterns find."""
    pipeline = spacy_directory(tmp_path / "pipeline")
    stub = await serve(
        f"""
detectors:
  mine: {{backend: spacy_ner, model: {pipeline}}}
profiles:
  hidden:
    description: d
    strictness: 80
    input: {{pii: {{action: anonymise}}, mine: {{action: anonymise}}}}
"""
    )
    text = "Ann Lee of Oslo is jo@example.com; tell Ann Lee."

    said = await stub.CheckInput(prompt(text, profile="hidden"))

    assert said.segments[0].replacement == "<PERSON_1> of <LOCATION_1> is <EMAIL_ADDRESS_1>; tell <PERSON_1>."
    assert spans(said.assessment, text)[:2] == [("PERSON", "Ann Lee"), ("LOCATION", "Oslo")]
    back = await stub.Restore(pb.RestoreRequest(texts=[said.segments[0].replacement], placeholders=said.placeholders))
    assert list(back.texts) == [text]


async def test_a_model_stays_loaded_when_the_file_changes_elsewhere(tmp_path: Path) -> None:
    """A reload that says the same of a model keeps it; one that names another frees it."""
    path = tmp_path / "policies.yaml"
    known = write_classifier(tmp_path / "classifier", {"vile": "toxic"})
    text = (
        f"detectors:\n  mine: {{backend: huggingface_classifier, model: {known}, labels: {{toxic: hate}}}}\n{PROFILE}"
    )
    path.write_text(text)
    service = wiring.build(SafetySettings(port=0, policies_file=path))
    await service.safety.warm()
    before = service.safety.detectors["mine"]

    path.write_text(text + "  y: {description: d, strictness: 1}\n")
    await service.safety.put_in_force(load_policies(path))
    assert service.safety.detectors["mine"] is before
    path.write_text(text.replace("{toxic: hate}", "{toxic: harassment}"))
    await service.safety.put_in_force(load_policies(path))

    assert service.safety.detectors["mine"] is not before
    assert service.safety.detectors["mine"].categories == ("harassment",)
    await service.close()
