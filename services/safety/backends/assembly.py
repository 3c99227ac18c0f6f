"""Makes the detectors of the backends that a policy file names.

One that did not change stays across a reload of the file, with the model that it has loaded; one that no policy names
any more is freed when the last call ends that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from kit.errors import ConfigError
from kit.proxies import DIRECT, Proxies
from services.safety.backends.document import (
    BackendSpec,
    ClassifierDocument,
    OpenAIModerationDocument,
    SpacyDocument,
    TokenClassifierDocument,
)
from services.safety.backends.huggingface import HuggingFaceScorer, HuggingFaceSpotter
from services.safety.backends.openai_moderation import OpenAIModerationScorer
from services.safety.backends.scored import Scored
from services.safety.backends.spacy_ner import SpacySpotter
from services.safety.backends.spotted import Spotted


class BackendPool:
    """The backends in use, by name and by what the file says of them.

    Args:
        environ: Where keys are looked up.
        proxies: What stands before endpoints.
    """

    def __init__(self, environ: Mapping[str, str], proxies: Proxies = DIRECT) -> None:
        self._environ, self._proxies = environ, proxies
        self._made: WeakValueDictionary[str, Scored | Spotted] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None

    def detector(self, name: str, spec: BackendSpec, place: str) -> Scored | Spotted:
        """The detector of a backend; nothing is loaded before it is warmed.

        Args:
            name: What policies call it.
            spec: What the file says of it.
            place: Where the file says so, for complaints.

        Raises:
            ConfigError: Its key is not there.
        """
        key = f"{name} {spec!r}"
        if (made := self._made.get(key)) is None:
            made = self._made[key] = self._make(name, spec, place)
        return made

    async def close(self) -> None:
        """Closes connections; models end with whoever uses them."""
        if self._session:
            await self._session.close()

    def _make(self, name: str, spec: BackendSpec, place: str) -> Scored | Spotted:
        match spec:
            case OpenAIModerationDocument():
                key, proxy = _key(spec, self._environ, place), self._proxies.before(URL(spec.base_url))
                scorer = OpenAIModerationScorer(spec, key, self._connections, proxy)
                return Scored(name, spec.categories, scorer, place)
            case ClassifierDocument():
                return Scored(name, spec.categories, HuggingFaceScorer(spec), place)
            case TokenClassifierDocument():
                return Spotted(name, spec.categories, HuggingFaceSpotter(spec), place)
            case SpacyDocument():
                return Spotted(name, spec.categories, SpacySpotter(spec), place)

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._session


def _key(spec: OpenAIModerationDocument, environ: Mapping[str, str], place: str) -> str:
    if spec.api_key_env is not None:
        if key := environ.get(spec.api_key_env):
            return key
        raise ConfigError(f"{place}.api_key_env: the environment variable {spec.api_key_env} is not set")
    try:
        assert spec.api_key_file, "the document has one of the two"
        return Path(spec.api_key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}.api_key_file: cannot be read: {error}") from None
