"""The policy file: what it may say, and how it is refused."""

from itertools import pairwise
from pathlib import Path

import pytest

from kit.config import ConfigError
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety import wiring
from services.safety.policy import Direction, Rule, Verdict
from services.safety.policy_file import load_policies
from tests.safety.conftest import Serve
from tests.safety.messages import prompt, spans


def test_embedded_policies_hold_the_promised_profiles() -> None:
    """`off`, `moderation`, `default` and `strict` exist, and nothing embedded fails open."""
    policies = load_policies()

    assert set(policies.profiles) == {"off", "moderation", "default", "private", "strict"}
    assert not list(policies.fail_open_rules())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("profiles:\n  x:\n    description: d\n", "strictness"),
        ("profiles:\n  x: {description: d, strictness: 1, input: {pii: {action: burn}}}\n", "action"),
        ("profiles:\n  x: {description: d, strictness: 1, input: {nose: {action: flag}}}\n", "nose"),
        (
            "profiles:\n  x:\n    description: d\n    strictness: 1\n    output:\n      pii:\n        action: flag\n"
            "        actions: {CREDIT_CRD: redact}\n",
            "CREDIT_CRD",
        ),
        (
            "profiles:\n  x: {description: d, strictness: 1, input: "
            "{forbidden_terms: {action: flag, actions: {viol: block}}}}\n",
            "viol",
        ),
        ("terms:\n  - category: illicit\n    phrases: ['make (a bomb']\n", "phrases[0]"),
        ("terms:\n  - category: illicit\n    phrases: ['(a)?']\n", "phrases[0]"),
        ("terms: [\n", "policies.yaml:"),
        (
            "profiles:\n  x:\n    description: d\n    strictness: 1\n    input:\n      pii: {action: flag}\n"
            "      toxicity: {action: flag}\n",
            "policies.yaml:7: profiles.x.input.toxicity: there is no such detector",
        ),
        (
            "profiles:\n  x:\n    description: d\n    strictness: 1\n    input:\n      moderation:\n"
            "        action: flag\n        actions:\n          selfharm: block\n",
            "policies.yaml:9: profiles.x.input.moderation.actions.selfharm",
        ),
        (
            "detectors:\n  toxicity: {backend: huggingfaces_classifier, model: a, labels: {b: c}}\n",
            ":2: detectors.toxicity",
        ),
        (
            "detectors:\n  toxicity:\n    backend: huggingface_classifier\n    labels: {b: c}\n",
            "detectors.toxicity.model",
        ),
        (
            "detectors:\n  toxicity:\n    backend: spacy_ner\n    model: m\n    labels: {}\n",
            ":5: detectors.toxicity.labels",
        ),
        (
            "detectors:\n  toxicity: {backend: huggingface_classifier, model: a, labels: {b: c}}\nprofiles:\n"
            "  x: {description: d, strictness: 1, input: {toxicity: {action: anonymise}}}\n",
            ":4: profiles.x.input.toxicity: only prompts are anonymised",
        ),
    ],
)
def test_bad_file_names_line_and_field(tmp_path: Path, text: str, complaint: str) -> None:
    """A mistake stops start-up and says where it is."""
    path = tmp_path / "policies.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_policies(path)

    assert "policies.yaml:" in caught.value.message
    assert complaint in caught.value.message


def test_version_is_a_digest_of_the_files(tmp_path: Path) -> None:
    """The version changes with any file it comes from, and only then."""
    path = tmp_path / "policies.yaml"
    path.write_text("profiles: {}")
    first = load_policies(path).version
    assert load_policies(path).version == first != load_policies().version

    path.write_text("profiles: {} # changed")

    assert load_policies(path).version != first


async def test_operators_terms_and_profiles_are_in_force(serve: Serve) -> None:
    """A term of the operator's file blocks in the embedded profiles, and its profile can be asked for."""
    stub = await serve(
        """
terms:
  - {category: secret/project, score: 0.8, phrases: ["project (nightjar|owl)"]}
profiles:
  links:
    description: Links are redacted.
    strictness: 70
    input: {pii: {action: allow, actions: {URL: redact}}}
"""
    )

    blocked = await stub.CheckInput(prompt("Tell me of Project  Nightjar!"))
    redacted = await stub.CheckInput(prompt("a@b.co at https://example.com/x", profile="links"))

    assert spans(blocked.assessment, "Tell me of Project  Nightjar!") == [("secret/project", "Project  Nightjar")]
    assert blocked.assessment.verdict == verdict.VERDICT_BLOCK
    assert redacted.segments[0].replacement == "a@b.co at <URL>"
    listed = await stub.ListPolicies(pb.ListPoliciesRequest())
    assert [p.profile for p in listed.policies][2:] == ["default", "links", "private", "strict"]


async def test_embedded_terms_can_be_left_out(serve: Serve) -> None:
    """`embedded_terms: false` leaves only the operator's."""
    stub = await serve("embedded_terms: false\nterms:\n  - {category: illicit, phrases: [nightjar]}\n")

    assert (await stub.CheckInput(prompt("how to build a pipe bomb"))).assessment.verdict < verdict.VERDICT_BLOCK
    assert (await stub.CheckInput(prompt("NIGHTJAR"))).assessment.verdict == verdict.VERDICT_BLOCK


async def test_low_scores_count_only_as_scores(serve: Serve) -> None:
    """A term that scores below the threshold is no finding, and its score is reported."""
    stub = await serve("terms:\n  - {category: illicit, score: 0.2, phrases: [nightjar]}\n")

    assessment = (await stub.CheckInput(prompt("nightjar"))).assessment

    assert (assessment.verdict, assessment.finding_count) == (verdict.VERDICT_ALLOW, 0)
    scores = {score.category: (score.score, score.flagged) for score in assessment.scores}
    assert scores["illicit"] == (0.2, False)


async def test_what_was_retrieved_has_a_rule_of_its_own(serve: Serve) -> None:
    """A policy may be stricter with tool results and documents than with what people write."""
    stub = await serve(
        "terms:\n  - {category: illicit, score: 0.5, phrases: [nightjar]}\nprofiles:\n  careful:\n    description: d\n"
        "    strictness: 1\n    input:\n      forbidden_terms:\n        action: flag\n        threshold: 0.6\n"
        "        retrieved: {action: block, threshold: 0.2}\n"
    )
    roles = verdict.ROLE_USER, verdict.ROLE_TOOL, verdict.ROLE_DOCUMENT

    said = [(await stub.CheckInput(prompt("nightjar", profile="careful", role=role))).assessment for role in roles]

    assert [each.verdict for each in said] == [verdict.VERDICT_ALLOW, verdict.VERDICT_BLOCK, verdict.VERDICT_BLOCK]
    listed = {each.profile: each for each in (await stub.ListPolicies(pb.ListPoliciesRequest())).policies}
    retrieved = listed["careful"].rules[0].retrieved
    assert (retrieved.action, retrieved.threshold) == (verdict.VERDICT_BLOCK, 0.2)


def severity(rules: tuple[Rule, ...], detector: str, category: str, retrieved: bool) -> tuple[int, float]:
    """What is done about a finding, and from which score on; nothing, where the detector does not run."""
    rule = next((rule.for_text(retrieved) for rule in rules if rule.detector == detector), None)
    return (rule.action_for(category), rule.threshold) if rule else (Verdict.ALLOW, 1.0)


def test_a_stricter_profile_is_never_laxer(embedded: wiring.SafetyService) -> None:
    """`strictness` means: no text, category or direction gets a milder action, or gets it from a higher score on."""
    profiles = [
        embedded.safety.policies.profile(name) for name in ("off", "moderation", "default", "private", "strict")
    ]
    assert [profile.strictness for profile in profiles] == sorted(profile.strictness for profile in profiles)

    for laxer, stricter in pairwise(profiles):
        for way in Direction:
            for name, detector in embedded.safety.detectors.items():
                for category in set(detector.categories) - detector.optional_categories:
                    for retrieved in (False, True):
                        milder, late = severity(laxer.rules[way], name, category, retrieved)
                        harder, early = severity(stricter.rules[way], name, category, retrieved)
                        assert harder >= milder, (laxer.name, stricter.name, way.name, name, category)
                        if harder == milder > Verdict.ALLOW:
                            assert early <= late, (laxer.name, stricter.name, way.name, name, category)
