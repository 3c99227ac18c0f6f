"""A changed policy file takes effect without a restart, whole or not at all."""

import asyncio
import logging
from pathlib import Path

import pytest

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety import policy_file, wiring
from services.safety.config import SafetySettings
from services.safety.policy import Direction
from services.safety.reload import FILE
from services.safety.stream import Delta, OutputKind, OutputStream, PartKey, Released
from tests.safety.conftest import Serve
from tests.safety.messages import prompt

DEADLINE_S = 20.0


def terms(*phrases: str) -> str:
    return "terms:\n" + "".join(f"  - {{category: secret/{p}, phrases: [{p}]}}\n" for p in phrases)


class Board:
    """Remembers what is told of health."""

    def __init__(self) -> None:
        self.told: dict[str, bool] = {}

    def set_serving(self, name: str, serving: bool) -> None:
        self.told[name] = serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policies.yaml"
    path.write_text(terms("nightjar"))
    return path


async def begun(path: Path) -> tuple[wiring.SafetyService, Board]:
    """The service with a file that is looked at when the test says so."""
    service = wiring.build(SafetySettings(port=0, policies_file=path))
    board = Board()
    assert service.reload
    service.reload.start(board)
    await service.reload.close()
    return service, board


async def released(stream: OutputStream, text: str, final: bool) -> str:
    events = await stream.push([Delta(PartKey(0, OutputKind.TEXT), text, ends_part=final)])
    return "".join(event.text for event in events if isinstance(event, Released))


async def test_a_call_ends_by_the_policies_that_it_began_with(path: Path) -> None:
    """What changes in between is for the next call; the version tells which is which."""
    service, board = await begun(path)
    before = service.safety.screening("", Direction.OUTPUT)
    stream = OutputStream(before, 1)
    assert await released(stream, "an owl ", False) == "an owl "

    path.write_text(terms("owl"))
    assert service.reload
    await service.reload.check()

    assert await released(stream, "and an owl ", True) == "and an owl "
    after = service.safety.screening("", Direction.OUTPUT)
    assert await released(OutputStream(after, 1), "an owl ", True) == "an "
    assert before.policy_version != after.policy_version == service.safety.policies.version
    assert board.told == {FILE: True}
    await service.close()


async def test_a_bad_file_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is named by line and field, and the health of the file says so until it is good again."""
    service, board = await begun(path)
    version = service.safety.policies.version
    assert service.reload

    path.write_text("profiles:\n  default: {description: d, strictness: 1, input: {pii: {action: burn}}}\n")
    await service.reload.check()

    assert service.safety.policies.version == version
    assert board.told == {FILE: False}
    assert "policies.yaml:2: profiles.default.input.pii.action" in caplog.text

    path.write_text(terms("owl", "nightjar"))
    await service.reload.check()
    assert board.told == {FILE: True}
    assert service.safety.policies.version != version
    await service.close()


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "{}\n", "terms:\n", "terms: []\nprofiles:\n"])
async def test_an_emptied_file_is_refused(path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """An editor that truncates before it writes, or a full disk, takes no term out of force."""
    service, board = await begun(path)
    version = service.safety.policies.version
    assert service.reload

    path.write_text(text)
    await service.reload.check()

    assert service.safety.policies.version == version
    assert board.told == {FILE: False}
    assert "policy file refused" in caplog.text
    await service.close()


@pytest.mark.parametrize("text", ["", "terms:\n", "terms: []\n"])
async def test_an_emptied_list_of_terms_is_refused(
    path: Path, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded terms are read anew with the policy file; without them nothing is put in force."""
    service, board = await begun(path)
    version = service.safety.policies.version
    assert service.reload

    emptied = tmp_path / "terms.yaml"
    emptied.write_text(text)
    monkeypatch.setattr(policy_file, "EMBEDDED_TERMS", emptied)
    path.write_text(terms("owl"))
    await service.reload.check()

    assert service.safety.policies.version == version
    assert board.told == {FILE: False}
    await service.close()


async def test_what_fails_open_is_told_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A change that lets text pass unscreened is in the log, as it would be at start."""
    service, _ = await begun(path)
    assert service.reload

    path.write_text(
        "profiles:\n  lax: {description: d, strictness: 1, input: {pii: {action: flag, on_failure: open}}}\n"
    )
    with caplog.at_level(logging.WARNING):
        await service.reload.check()

    told = [vars(record) for record in caplog.records if record.message == "fails open"]
    assert [(one["profile"], one["detector"]) for one in told] == [("lax", "pii")]
    await service.close()


async def test_a_served_file_is_watched(serve: Serve, tmp_path: Path) -> None:
    """Written anew, it is in force soon, seen over the wire."""
    stub = await serve(terms("nightjar"))
    (tmp_path / "policies.yaml").write_text(terms("owl"))

    async with asyncio.timeout(DEADLINE_S):
        while (await stub.CheckInput(prompt("nightjar"))).assessment.verdict == verdict.VERDICT_BLOCK:
            await stub.ListPolicies(pb.ListPoliciesRequest())

    assert (await stub.CheckInput(prompt("owl"))).assessment.verdict == verdict.VERDICT_BLOCK
