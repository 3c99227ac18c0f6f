"""Where each service of the suite listens, from the services' own settings.

The command line reads the same variables as the services do, so that both always mean the same place.
"""

from __future__ import annotations

import socket
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
    """The four services' settings and what follows from them.

    Attributes:
        span_store_port: Where the edge takes every service's spans, so that traces are seen without a collector.
    """

    edge: EdgeSettings
    inference: InferenceSettings
    cache: CacheSettings
    safety: SafetySettings
    span_store_port: int

    @classmethod
    def load(cls) -> Layout:
        """Reads the environment.

        Raises:
            ConfigError: A variable has a bad value.
        """
        edge = load(EdgeSettings)
        port = edge.span_store_port or _free_port()
        return cls(edge, load(InferenceSettings), load(CacheSettings), load(SafetySettings), port)

    @property
    def parts(self) -> list[Part]:
        """The services, callers before callees: the order in which they must stop."""
        parts = [
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
        return [self._traced(part) for part in parts]

    def _traced(self, part: Part) -> Part:
        """The same service, which sends its spans to the edge; the edge itself is told where to take them."""
        environ = {f"MILLRACE_{part.name.upper()}_SPAN_STORE": f"127.0.0.1:{self.span_store_port}", **part.environ}
        if part.name == "edge":
            environ["MILLRACE_EDGE_SPAN_STORE_PORT"] = str(self.span_store_port)
        return replace(part, environ=environ)

    @property
    def edge_url(self) -> str:
        """Base URL of the edge."""
        scheme = "https" if self.edge.tls_cert_file else "http"
        return f"{scheme}://{_part('edge', self.edge).address}"

    @property
    def inference_target(self) -> str:
        """gRPC target of inference."""
        return _part("inference", self.inference).address


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


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
