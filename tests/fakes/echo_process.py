"""The echo service as a process: `python -m tests.fakes.echo_process`, for tests of what a process does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from kit.config import ConfigError, ServeSettings
from kit.serve import Registration, Server, main
from kit.telemetry import Telemetry
from tests.fakes.echo_service import EchoService


class EchoSettings(ServeSettings):
    """The server's settings and how its warm-up goes."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_ECHO_")

    warm: Literal["well", "never", "refused", "broken"] = Field(default="well", description="How the warm-up goes.")


class EchoProcess:
    """What the process runs."""

    def __init__(self, settings: EchoSettings) -> None:
        self._settings = settings

    @property
    def registrations(self) -> Sequence[Registration]:
        """The echo service alone."""
        return [EchoService().registration]

    async def warm(self, server: Server) -> None:
        """Warms up as the settings say."""
        match self._settings.warm:
            case "never":
                await asyncio.Event().wait()
            case "refused":
                raise ConfigError("model.bin: no such model")
            case "broken":
                raise RuntimeError("a bug")

    async def close(self) -> None:
        """Says so, for tests to see the order."""
        print("closed", flush=True)


async def build(settings: EchoSettings, telemetry: Telemetry) -> EchoProcess:
    """Wires the process."""
    return EchoProcess(settings)


if __name__ == "__main__":
    main("echo", EchoSettings, build)
