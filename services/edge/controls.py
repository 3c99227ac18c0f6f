"""Request headers that steer a generation: the cache and the safety profile.

`Cache-Control: no-cache` asks for a fresh answer that replaces the stored one; `no-store` keeps the cache out of it;
`max-age=N` takes a stored answer of at most N seconds, and `only-if-cached` no other than a stored one; together with
`no-cache` it asks for what cannot be, a fresh answer that is not made. Its other directives are let go, as HTTP has it.
`x-millrace-safety-profile` names a profile.
"""

from __future__ import annotations

import re

from kit.errors import NotFound
from millrace.inference.v1 import generation_pb2 as pb
from services.edge.exchange import Exchange
from services.edge.fault import Fault

_PROFILE = b"x-millrace-safety-profile"
_AGE = re.compile(rb"[0-9]+")
_AGE_MAX_S = 365 * 86_400  # the contract's longest; nothing is kept for so long


def apply_controls(exchange: Exchange, spec: pb.GenerationSpec) -> pb.GenerationSpec:
    """Puts what the headers ask for into a spec, and returns it."""
    if cache_control := exchange.headers.get(b"cache-control"):
        _apply_cache_control(cache_control, spec.cache)
    if profile := exchange.headers.get(_PROFILE):
        if not profile.isascii() or len(profile) > 64:
            raise Fault.invalid("Expected the name of a profile.", _PROFILE.decode())
        spec.safety.profile = profile.decode()
    return spec


def _apply_cache_control(value: bytes, cache: pb.CachePolicy) -> None:
    wishes = dict(_directive(wish) for wish in value.lower().split(b","))
    if b"only-if-cached" in wishes:  # nothing is made, so that nothing is stored either
        if b"no-cache" in wishes:
            raise Fault.of(NotFound("NOT_CACHED", "no kept answer will do, and the request asks for nothing else"))
        cache.mode = pb.CACHE_MODE_ONLY_IF_CACHED
    elif b"no-store" in wishes:
        cache.mode = pb.CACHE_MODE_OFF
        return
    elif b"no-cache" in wishes:
        cache.mode = pb.CACHE_MODE_REFRESH
        return
    if (age := wishes.get(b"max-age")) is not None:
        if not _AGE.fullmatch(age):
            raise Fault.invalid("Expected max-age as whole seconds.", "Cache-Control")
        # Nine digits are above the bound: no text is too long to be a number.
        cache.age_max.seconds = min(int(age.lstrip(b"0")[:9] or b"0"), _AGE_MAX_S)


def _directive(text: bytes) -> tuple[bytes, bytes]:
    name, _, argument = text.partition(b"=")
    return name.strip(), argument.strip().strip(b'"')
