"""What the page is made of: stories, and the front page of whoever published them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Picture:
    """A picture at its publisher's; `description` is empty where the publisher gives none."""

    url: str
    description: str = ""


@dataclass(frozen=True)
class Story:
    """A headline, what its publisher says in a sentence or two, and where it leads. Plain text, never markup."""

    title: str
    url: str
    teaser: str = ""
    picture: Picture | None = None
    published: datetime | None = None


@dataclass(frozen=True)
class FrontPage:
    """The top stories of one publisher, the first one first."""

    publisher: str
    url: str
    stories: tuple[Story, ...]
