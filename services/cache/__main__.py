"""Starts the cache service: `python -m services.cache`."""

from kit.config import load
from kit.serve import run
from kit.telemetry import Telemetry
from services.cache.config import CacheSettings
from services.cache.wiring import CacheService, build


def main() -> None:
    """Loads the settings, then serves until told to stop."""
    settings = load(CacheSettings)

    async def build_service(telemetry: Telemetry) -> CacheService:
        return build(settings)

    run("cache", settings, build_service)


if __name__ == "__main__":
    main()
