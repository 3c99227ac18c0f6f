"""The text of a key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.errors import ConfigError
from services.inference.access import secret
from services.inference.access.pepper import derive, pepper_of
from services.inference.access.settings import AccessSettings


def test_a_new_secret_is_long_random_and_says_whose_it_is() -> None:
    """256 bits behind a mark that scanners can look for; no two are alike."""
    made = {secret.new_secret() for _ in range(100)}

    assert len(made) == 100
    assert all(re.fullmatch(r"mr_[A-Za-z0-9_-]{49}", one) and secret.is_secret(one) for one in made)


def test_a_typo_is_told_from_a_key() -> None:
    """Whichever character is wrong, missing or doubled, the checksum does not fit any more."""
    good = secret.new_secret()
    for index in range(3, len(good)):
        other = "A" if good[index] != "A" else "B"
        assert not secret.is_secret(good[:index] + other + good[index + 1 :])
        assert not secret.is_secret(good[:index] + good[index + 1 :])
        assert not secret.is_secret(good[:index] + other + good[index:])


@pytest.mark.parametrize("text", ["", "mr_", "none", "sk-abc", "mr_" + "é" * 49, secret.new_secret() + "\n"])
def test_what_is_no_key_is_none(text: str) -> None:
    """Whatever SDKs send where they were given none, or with a line's end behind it."""
    assert not secret.is_secret(text)


def test_what_is_kept_depends_on_the_pepper_and_shows_nothing() -> None:
    """The same key under two peppers has nothing in common, and neither holds a part of it."""
    text = secret.new_secret()
    kept = secret.digest(text, b"one")

    assert kept == secret.digest(text, b"one") != secret.digest(text, b"two")
    assert len(kept) == 64
    assert text[3:12] not in kept


def test_a_pepper_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The second start reads what the first one made."""
    settings = AccessSettings(pepper_path=tmp_path / "deep" / "pepper")
    made = pepper_of(settings)

    assert pepper_of(settings) == made
    assert len(made) >= 32
    assert settings.pepper_path.stat().st_mode & 0o777 == 0o600
    assert list(settings.pepper_path.parent.iterdir()) == [settings.pepper_path]
    assert derive(made, "keys") != derive(made, "logins")


def test_a_pepper_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """The start says what to do about it."""
    path = tmp_path / "pepper"
    path.write_text("x" * 40)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        pepper_of(AccessSettings(pepper_path=path))
