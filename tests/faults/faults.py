"""Every fault of the wall, in the order of the table."""

from __future__ import annotations

from tests.faults.bodies import BODIES, WHOLE_ANSWERS
from tests.faults.connections import CONNECTIONS
from tests.faults.fault import Fault
from tests.faults.silences import SILENCES
from tests.faults.statuses import STATUSES

GROUPS: dict[str, tuple[Fault, ...]] = {
    "Connections": CONNECTIONS,
    "Silence": SILENCES,
    "Statuses": STATUSES,
    "Streams": BODIES,
    "Answers in one piece (`streams: false`)": WHOLE_ANSWERS,
}
FAULTS = tuple(fault for faults in GROUPS.values() for fault in faults)
