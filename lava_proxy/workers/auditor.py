"""The books check as a routine: one process at a time audits what is new, all show the result."""

from __future__ import annotations

import logging

from lava_proxy.store.audit import LastAudit, audit_alone, last_audit
from lava_proxy.store.database import Database
from lava_proxy.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Auditor:
    """Audits when the last audit, by whichever process, is `interval_s` old."""

    def __init__(self, database: Database, metrics: Metrics, interval_s: float) -> None:
        self._database = database
        self._metrics = metrics
        self._interval_s = interval_s

    async def run_once(self) -> None:
        """Look, audit if it is time, and show the result."""
        last = await self._last()
        if last.age_s is None or last.age_s >= self._interval_s:
            found = await audit_alone(self._database)
            for difference in found.differences if found else ():
                log.error("the books do not add up: %s %s", difference.check, difference.facts)
            last = await self._last()
        self._metrics.audited(last.differences, last.sound_age_s)
        self._metrics.quarantined(last.quarantined, last.quarantined_e10)

    async def _last(self) -> LastAudit:
        async with self._database.connection() as conn:
            return await last_audit(conn)
