"""A changed quotas file is put in force whole; a bad one changes nothing but its health."""

from __future__ import annotations

from pathlib import Path

from kit.document_file import DocumentFile
from services.inference.quota.quotas import unlimited
from services.inference.quota.reload import FILE, QuotasReload
from services.inference.quota.tiers import QuotaRules
from tests.inference.parts import receipt
from tests.inference.quota.test_quotas import asking, route

FIVE = "version: 1\ntiers: {t: {user: {requests_per_minute: 5}}}\nroles: {user: t}\n"


async def limit_in_force(quotas) -> int | None:
    told = receipt()
    await quotas.admit(asking(), route(), told)
    return told.limits[0].limit if told.limits else None


async def test_a_file_takes_effect_whole_or_not_at_all(tmp_path: Path) -> None:
    """Each change holds from the next look on; a bad file leaves the one before in force and says so."""
    path = tmp_path / "quotas.yaml"
    path.write_text("version: 1")
    file, quotas = DocumentFile(path, QuotaRules), unlimited()
    file.read()
    reload, health = QuotasReload(file, quotas), {}

    async def write(text: str) -> int | None:
        path.write_text(text)
        await reload.check(health.__setitem__)
        return await limit_in_force(quotas)

    assert await write(FIVE) == 5
    assert health == {FILE: True}
    assert await write(FIVE.replace("5", "many")) == 5
    assert health == {FILE: False}
    assert await write(FIVE.replace("5", "70")) == 70
    assert health == {FILE: True}
