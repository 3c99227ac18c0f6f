"""The service in one object: what it loads, and when."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from kit.errors import FailedPrecondition
from services.safety import wiring
from services.safety.config import SafetySettings
from services.safety.detectors.detector import Detector
from services.safety.policy import Direction, Policies
from services.safety.policy_file import load_policies
from services.safety.reload import FILE
from tests.fakes.detectors import WarmedDetector
from tests.safety.test_reload import Board

NEEDING = """
profiles:
  careful: {description: d, strictness: 60, output: {moderation: {action: flag}}}
"""
FREE = "profiles:\n" + "".join(
    f"  {name}: {{description: d, strictness: 1, input: {{pii: {{action: flag}}}}}}\n"
    for name in ("default", "private", "strict", "moderation")
)


def built(policies: str, path: Path, detectors: Mapping[str, Detector]) -> wiring.SafetyService:
    path.write_text(policies)
    return wiring.build(SafetySettings(port=0, policies_file=path), detectors)


async def test_a_model_loads_only_where_a_policy_needs_it(tmp_path: Path) -> None:
    """A detector without a rule in any profile is never loaded; one more profile, and it is."""
    path = tmp_path / "policies.yaml"
    needed, idle = WarmedDetector("moderation"), WarmedDetector("injection")
    service = built(FREE, path, {"moderation": needed, "injection": idle})

    await service.safety.warm()
    assert (needed.warm_count, idle.warm_count) == (0, 0)
    path.write_text(FREE + NEEDING.partition("profiles:\n")[2])
    assert service.reload
    await service.safety.put_in_force(load_policies(path))

    assert (needed.warm_count, idle.warm_count) == (1, 0)
    await service.close()


async def test_policies_whose_model_does_not_load_are_refused(tmp_path: Path) -> None:
    """The policies before them stay in force, and the health of the file tells."""
    path = tmp_path / "policies.yaml"
    broken = WarmedDetector("moderation", FailedPrecondition("MODEL_NOT_LOADABLE", "no such model"))
    service = built(FREE, path, {"moderation": broken})
    before = service.safety.policies
    board = Board()
    assert service.reload
    service.reload.start(board)

    path.write_text(FREE + NEEDING.partition("profiles:\n")[2])
    await service.reload.check()

    assert service.safety.policies is before
    assert board.told[FILE] is False
    await service.close()


async def test_start_fails_where_a_model_does_not_load(tmp_path: Path) -> None:
    """A service that cannot judge as its policies say does not become ready."""
    broken = WarmedDetector("moderation", FailedPrecondition("MODEL_NOT_LOADABLE", "no such model"))
    service = built(NEEDING, tmp_path / "policies.yaml", {"moderation": broken})

    with pytest.raises(FailedPrecondition, match="no such model"):
        await service.safety.warm()
    await service.close()


def test_every_rule_has_a_detector(embedded: wiring.SafetyService) -> None:
    """No embedded profile names a detector that the service does not have."""
    policies: Policies = embedded.safety.policies
    rules = [rule for each in policies.profiles.values() for way in Direction for rule in each.rules[way]]

    assert {rule.detector for rule in rules} <= embedded.safety.detectors.keys()
