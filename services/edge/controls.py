"""Request headers that steer a generation: the cache and the safety profile.

`Cache-Control: no-cache` asks for a fresh answer that replaces the stored one; `no-store` keeps the cache out of it.
`x-millrace-safety-profile` names a profile.
"""

from __future__ import annotations

from millrace.inference.v1 import generation_pb2 as pb
from services.edge.exchange import Exchange
from services.edge.fault import Fault

_PROFILE = b"x-millrace-safety-profile"


def apply_controls(exchange: Exchange, spec: pb.GenerationSpec) -> pb.GenerationSpec:
    """Puts what the headers ask for into a spec, and returns it."""
    if cache_control := exchange.headers.get(b"cache-control"):
        wishes = {wish.strip().lower() for wish in cache_control.split(b",")}
        if b"no-store" in wishes:
            spec.cache.mode = pb.CACHE_MODE_OFF
        elif b"no-cache" in wishes:
            spec.cache.mode = pb.CACHE_MODE_REFRESH
    if profile := exchange.headers.get(_PROFILE):
        if not profile.isascii() or len(profile) > 64:
            raise Fault.invalid("Expected the name of a profile.", _PROFILE.decode())
        spec.safety.profile = profile.decode()
    return spec
