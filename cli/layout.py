"""Where each service of the suite listens, from the services' own settings.

The command line reads the same variables as the services do, so that both always mean the same place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cli.child import Part
from kit.config import ServeSettings, load
from services.cache.config import CacheSettings
from services.edge.config import EdgeSettings
from services.inference.config import InferenceSettings
from services.safety.config import SafetySettings

# Where inference leaves the first key for the banner, which shows it once and removes it.
FIRST_KEY_VARIABLE = "MILLRACE_INFERENCE_ACCESS_FIRST_KEY_PATH"
FIRST_KEY_PATH = Path(".millrace/first-key")


@dataclass(frozen=True)
class Layout:
    """The four services' settings and what follows from them."""

    edge: EdgeSettings
    inference: InferenceSettings
    cache: CacheSettings
    safety: SafetySettings

    @classmethod
    def load(cls) -> Layout:
        """Reads the environment.

        Raises:
            ConfigError: A variable has a bad value.
        """
        return cls(load(EdgeSettings), load(InferenceSettings), load(CacheSettings), load(SafetySettings))

    @property
    def parts(self) -> list[Part]:
        """The services, callers before callees: the order in which they must stop."""
        return [
            replace(
                _part("edge", self.edge, {"MILLRACE_EDGE_INFERENCE_TARGET": self.inference_target}),
                grace_s=self.edge.drain_delay_s + self.edge.grace_s,
            ),
            _part(
                "inference",
                self.inference,
                {
                    "MILLRACE_INFERENCE_CACHE_TARGET": _part("cache", self.cache).address,
                    "MILLRACE_INFERENCE_SAFETY_TARGET": _part("safety", self.safety).address,
                    FIRST_KEY_VARIABLE: str(FIRST_KEY_PATH),
                },
            ),
            _part("cache", self.cache),
            _part("safety", self.safety),
        ]

    @property
    def edge_url(self) -> str:
        """Base URL of the edge."""
        scheme = "https" if self.edge.tls_cert_file else "http"
        return f"{scheme}://{_part('edge', self.edge).address}"

    @property
    def inference_target(self) -> str:
        """gRPC target of inference."""
        return _part("inference", self.inference).address


def _part(name: str, settings: ServeSettings, environ: Mapping[str, str] | None = None) -> Part:
    return Part(
        name=name,
        command=(f"services.{name}",),
        host=settings.host,
        port=settings.port,
        grace_s=settings.grace_s,
        tls=settings.tls_cert_file is not None,
        environ=environ or {},
    )
