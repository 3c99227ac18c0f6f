"""Reload: a changed quotas file takes effect without a restart, whole or not at all.

The file is looked at every second. What is reserved stays as it is; a bad file changes nothing but the health of
`quotas-file`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kit.cancelling import cancel_all
from kit.document_file import DocumentFile
from kit.errors import ConfigError
from services.inference.quota.quotas import Quotas
from services.inference.quota.tiers import QuotaRules

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
FILE = "quotas-file"  # its name in the health service
Report = Callable[[str, bool], None]


class QuotasReload:
    """Puts the quotas file in force whenever it changes.

    Args:
        file: The file, read once by now.
        quotas: Where it is put in force.
        interval_s: Between two looks.
    """

    def __init__(self, file: DocumentFile[QuotaRules], quotas: Quotas, interval_s: float = CHECK_INTERVAL_S) -> None:
        self._file, self._quotas, self._interval_s = file, quotas, interval_s
        self._task: asyncio.Task[None] | None = None

    def start(self, report: Report) -> None:
        """Watches the file from now on, and reports whether it is good."""
        report(FILE, True)
        self._task = asyncio.create_task(self._watch(report))

    async def check(self, report: Report) -> None:
        """Looks at the file once, and puts it in force if it has changed."""
        if not await asyncio.to_thread(self._file.has_changed):
            return
        try:
            rules = await asyncio.to_thread(self._file.read)
        except ConfigError as error:
            log.error("quotas file refused; the one before stays in force: %s", error.message)
            report(FILE, False)
            return
        self._quotas.put_in_force(rules)
        report(FILE, True)
        log.info("quotas file read", extra={"tier_count": len(rules.tiers)})

    async def close(self) -> None:
        """Stops watching."""
        if self._task:
            await cancel_all({self._task})

    async def _watch(self, report: Report) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.check(report)
            except Exception:  # whatever it was, the next file may be better
                log.exception("the quotas file could not be looked at")
