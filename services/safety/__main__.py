"""Starts the safety service: `python -m services.safety`."""

from kit.serve import main
from kit.telemetry import Telemetry
from services.safety import wiring
from services.safety.config import SafetySettings


async def _build(settings: SafetySettings, telemetry: Telemetry) -> wiring.SafetyService:
    return wiring.build(settings)


if __name__ == "__main__":
    main("safety", SafetySettings, _build)
