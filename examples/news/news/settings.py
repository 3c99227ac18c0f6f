"""What can be set: NEWS_* and NYT_*, read once at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A model on a small machine takes its time over the first page; nobody waits for it but the schedule.
WRITE_TIMEOUT_S = 120.0


class SettingsError(Exception):
    """A variable has a bad value; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The settings of the service.

    Attributes:
        millrace: gRPC target of Millrace's inference service.
        millrace_ca_file: Certificates that its server must show one of; empty: no TLS.
        api_key: A key of Millrace's, where it asks for one.
        model: Public name of the model that writes.
        feed: Address of an RSS or Atom feed.
        nyt_api_key: A key of the New York Times' developers; with it, its Top Stories are read instead of the feed.
        nyt_section: Which of them: `home`, `world`, `science`, ...
        story_count: Stories on the page.
        ttl_s: How long Millrace keeps a summary.
        host, port: Where the page is served.
        cors_origins: Origins whose pages may read `GET /news`.
    """

    millrace: str = "127.0.0.1:50051"
    millrace_ca_file: str = ""
    api_key: str = ""
    model: str = "auto"
    feed: str = ""
    nyt_api_key: str = ""
    nyt_section: str = "home"
    story_count: int = 9
    ttl_s: int = 6 * 3600
    host: str = "127.0.0.1"
    port: int = 8090
    cors_origins: tuple[str, ...] = ()

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Reads the variables.

        Raises:
            SettingsError: One has a bad value.
        """
        text = {name: environ.get(variable, "").strip() for name, variable in VARIABLES.items()}
        given = {name: value for name, value in text.items() if value}
        numbers = {name: _number(VARIABLES[name], given.pop(name), *BOUNDS[name]) for name in BOUNDS if name in given}
        origins = tuple(origin.strip() for origin in given.pop("cors_origins", "").split(",") if origin.strip())
        for variable, url in (("NEWS_FEED", given.get("feed", "")), *(("NEWS_CORS_ORIGINS", one) for one in origins)):
            if url and not url.startswith(("http://", "https://")):
                raise SettingsError(f"{variable}: {url!r} must begin with http:// or https://")
        return cls(**given, **numbers, cors_origins=origins)  # type: ignore[arg-type]


VARIABLES = {
    "millrace": "NEWS_MILLRACE",
    "millrace_ca_file": "NEWS_MILLRACE_CA_FILE",
    "api_key": "NEWS_MILLRACE_API_KEY",
    "model": "NEWS_MODEL",
    "feed": "NEWS_FEED",
    "nyt_api_key": "NYT_API_KEY",
    "nyt_section": "NYT_SECTION",
    "story_count": "NEWS_STORY_COUNT",
    "ttl_s": "NEWS_TTL_S",
    "host": "NEWS_HOST",
    "port": "NEWS_PORT",
    "cors_origins": "NEWS_CORS_ORIGINS",
}
# Millrace keeps nothing for longer than 30 days.
BOUNDS = {"story_count": (1, 30), "ttl_s": (60, 30 * 86_400), "port": (0, 65_535)}


def _number(variable: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise SettingsError(f"{variable}: {text!r} must be a whole number from {least} to {most}")
    return int(text)
