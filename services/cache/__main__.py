"""Starts the cache service: `python -m services.cache`."""

from kit.serve import main
from services.cache.config import CacheSettings
from services.cache.wiring import build

if __name__ == "__main__":
    main("cache", CacheSettings, build)
