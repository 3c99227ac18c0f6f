"""What can be set."""

from __future__ import annotations

import re

import pytest
from news.settings import Settings, SettingsError


def test_everything_has_a_default() -> None:
    """Nothing must be set, and what is empty is not set: compose files pass empty variables on."""
    assert Settings.load({"NEWS_FEED": "", "NEWS_PORT": " "}) == Settings()


def test_what_is_set_holds() -> None:
    """Numbers are numbers, and origins a list."""
    found = Settings.load({"NEWS_TTL_S": "3600", "NEWS_CORS_ORIGINS": "https://a.example, https://b.example"})

    assert (found.ttl_s, found.cors_origins) == (3600, ("https://a.example", "https://b.example"))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("NEWS_PORT", "70000"), ("NEWS_TTL_S", "1"), ("NEWS_STORY_COUNT", "-1"), ("NEWS_FEED", "file:///etc/passwd"),
     ("NEWS_CORS_ORIGINS", "*")],
)  # fmt: skip
def test_a_bad_value_is_named(variable: str, value: str) -> None:
    """By its variable; a page for everybody's scripts is not to be had by mistake."""
    with pytest.raises(SettingsError, match=re.escape(f"{variable}: {value!r}")):
        Settings.load({variable: value})
