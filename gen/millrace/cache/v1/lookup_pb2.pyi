import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from millrace.cache.v1 import entry_pb2 as _entry_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HitKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HIT_KIND_UNSPECIFIED: _ClassVar[HitKind]
    HIT_KIND_EXACT: _ClassVar[HitKind]
    HIT_KIND_SEMANTIC: _ClassVar[HitKind]
    HIT_KIND_STALE: _ClassVar[HitKind]

class MissReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MISS_REASON_UNSPECIFIED: _ClassVar[MissReason]
    MISS_REASON_NOT_FOUND: _ClassVar[MissReason]
    MISS_REASON_EXPIRED: _ClassVar[MissReason]
    MISS_REASON_TOO_OLD: _ClassVar[MissReason]
    MISS_REASON_SCHEMA_MISMATCH: _ClassVar[MissReason]
    MISS_REASON_LEASED: _ClassVar[MissReason]
    MISS_REASON_STORE_UNAVAILABLE: _ClassVar[MissReason]
    MISS_REASON_UNSURE: _ClassVar[MissReason]
    MISS_REASON_SHADOW: _ClassVar[MissReason]
HIT_KIND_UNSPECIFIED: HitKind
HIT_KIND_EXACT: HitKind
HIT_KIND_SEMANTIC: HitKind
HIT_KIND_STALE: HitKind
MISS_REASON_UNSPECIFIED: MissReason
MISS_REASON_NOT_FOUND: MissReason
MISS_REASON_EXPIRED: MissReason
MISS_REASON_TOO_OLD: MissReason
MISS_REASON_SCHEMA_MISMATCH: MissReason
MISS_REASON_LEASED: MissReason
MISS_REASON_STORE_UNAVAILABLE: MissReason
MISS_REASON_UNSURE: MissReason
MISS_REASON_SHADOW: MissReason

class Query(_message.Message):
    __slots__ = ("key", "schema_tag", "age_max", "allow_stale", "semantic", "lease")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_TAG_FIELD_NUMBER: _ClassVar[int]
    AGE_MAX_FIELD_NUMBER: _ClassVar[int]
    ALLOW_STALE_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    key: _entry_pb2.EntryKey
    schema_tag: str
    age_max: _duration_pb2.Duration
    allow_stale: bool
    semantic: SemanticQuery
    lease: LeaseQuery
    def __init__(self, key: _Optional[_Union[_entry_pb2.EntryKey, _Mapping]] = ..., schema_tag: _Optional[str] = ..., age_max: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., allow_stale: _Optional[bool] = ..., semantic: _Optional[_Union[SemanticQuery, _Mapping]] = ..., lease: _Optional[_Union[LeaseQuery, _Mapping]] = ...) -> None: ...

class SemanticQuery(_message.Message):
    __slots__ = ("compare_text", "similarity_min", "error_max")
    COMPARE_TEXT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_MIN_FIELD_NUMBER: _ClassVar[int]
    ERROR_MAX_FIELD_NUMBER: _ClassVar[int]
    compare_text: str
    similarity_min: float
    error_max: float
    def __init__(self, compare_text: _Optional[str] = ..., similarity_min: _Optional[float] = ..., error_max: _Optional[float] = ...) -> None: ...

class LeaseQuery(_message.Message):
    __slots__ = ("ttl", "wait", "refresh")
    TTL_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    REFRESH_FIELD_NUMBER: _ClassVar[int]
    ttl: _duration_pb2.Duration
    wait: _duration_pb2.Duration
    refresh: bool
    def __init__(self, ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., refresh: _Optional[bool] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("kind", "entry", "age", "acceptance", "refresh")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    REFRESH_FIELD_NUMBER: _ClassVar[int]
    kind: HitKind
    entry: _entry_pb2.Entry
    age: _duration_pb2.Duration
    acceptance: Acceptance
    refresh: Lease
    def __init__(self, kind: _Optional[_Union[HitKind, str]] = ..., entry: _Optional[_Union[_entry_pb2.Entry, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., acceptance: _Optional[_Union[Acceptance, _Mapping]] = ..., refresh: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class Acceptance(_message.Message):
    __slots__ = ("similarity", "fit_probability", "error_max", "reason")
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    FIT_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    ERROR_MAX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    similarity: float
    fit_probability: float
    error_max: float
    reason: str
    def __init__(self, similarity: _Optional[float] = ..., fit_probability: _Optional[float] = ..., error_max: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Miss(_message.Message):
    __slots__ = ("reason", "lease", "shadow")
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    reason: MissReason
    lease: Lease
    shadow: Shadow
    def __init__(self, reason: _Optional[_Union[MissReason, str]] = ..., lease: _Optional[_Union[Lease, _Mapping]] = ..., shadow: _Optional[_Union[Shadow, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("lease_id", "ttl")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    ttl: _duration_pb2.Duration
    def __init__(self, lease_id: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Shadow(_message.Message):
    __slots__ = ("shadow_id", "entry", "acceptance")
    SHADOW_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_FIELD_NUMBER: _ClassVar[int]
    shadow_id: str
    entry: _entry_pb2.Entry
    acceptance: Acceptance
    def __init__(self, shadow_id: _Optional[str] = ..., entry: _Optional[_Union[_entry_pb2.Entry, _Mapping]] = ..., acceptance: _Optional[_Union[Acceptance, _Mapping]] = ...) -> None: ...

class ShadowVerdict(_message.Message):
    __slots__ = ("shadow_id", "fits")
    SHADOW_ID_FIELD_NUMBER: _ClassVar[int]
    FITS_FIELD_NUMBER: _ClassVar[int]
    shadow_id: str
    fits: bool
    def __init__(self, shadow_id: _Optional[str] = ..., fits: _Optional[bool] = ...) -> None: ...
