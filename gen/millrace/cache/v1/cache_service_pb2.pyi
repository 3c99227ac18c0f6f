import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.cache.v1 import entry_pb2 as _entry_pb2
from millrace.cache.v1 import lookup_pb2 as _lookup_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvictionReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVICTION_REASON_UNSPECIFIED: _ClassVar[EvictionReason]
    EVICTION_REASON_ENTRIES: _ClassVar[EvictionReason]
    EVICTION_REASON_BYTES: _ClassVar[EvictionReason]
    EVICTION_REASON_EXPIRED: _ClassVar[EvictionReason]
EVICTION_REASON_UNSPECIFIED: EvictionReason
EVICTION_REASON_ENTRIES: EvictionReason
EVICTION_REASON_BYTES: EvictionReason
EVICTION_REASON_EXPIRED: EvictionReason

class LookupRequest(_message.Message):
    __slots__ = ("request_id", "query")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    query: _lookup_pb2.Query
    def __init__(self, request_id: _Optional[str] = ..., query: _Optional[_Union[_lookup_pb2.Query, _Mapping]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("request_id", "hit", "miss")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HIT_FIELD_NUMBER: _ClassVar[int]
    MISS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    hit: _lookup_pb2.Hit
    miss: _lookup_pb2.Miss
    def __init__(self, request_id: _Optional[str] = ..., hit: _Optional[_Union[_lookup_pb2.Hit, _Mapping]] = ..., miss: _Optional[_Union[_lookup_pb2.Miss, _Mapping]] = ...) -> None: ...

class LookupStreamRequest(_message.Message):
    __slots__ = ("request_id", "query")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    query: _lookup_pb2.Query
    def __init__(self, request_id: _Optional[str] = ..., query: _Optional[_Union[_lookup_pb2.Query, _Mapping]] = ...) -> None: ...

class LookupStreamResponse(_message.Message):
    __slots__ = ("request_id", "hit", "following", "chunk", "restarted", "miss", "completed", "waiting")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HIT_FIELD_NUMBER: _ClassVar[int]
    FOLLOWING_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    RESTARTED_FIELD_NUMBER: _ClassVar[int]
    MISS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    hit: _lookup_pb2.Hit
    following: Following
    chunk: bytes
    restarted: Restarted
    miss: _lookup_pb2.Miss
    completed: Completed
    waiting: Waiting
    def __init__(self, request_id: _Optional[str] = ..., hit: _Optional[_Union[_lookup_pb2.Hit, _Mapping]] = ..., following: _Optional[_Union[Following, _Mapping]] = ..., chunk: _Optional[bytes] = ..., restarted: _Optional[_Union[Restarted, _Mapping]] = ..., miss: _Optional[_Union[_lookup_pb2.Miss, _Mapping]] = ..., completed: _Optional[_Union[Completed, _Mapping]] = ..., waiting: _Optional[_Union[Waiting, _Mapping]] = ...) -> None: ...

class Following(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Restarted(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Waiting(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Completed(_message.Message):
    __slots__ = ("entry", "chunk_count")
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    entry: _entry_pb2.Entry
    chunk_count: int
    def __init__(self, entry: _Optional[_Union[_entry_pb2.Entry, _Mapping]] = ..., chunk_count: _Optional[int] = ...) -> None: ...

class StoreRequest(_message.Message):
    __slots__ = ("request_id", "lease_id", "draft", "chunks", "savings", "shadow_verdict")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_VERDICT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease_id: str
    draft: _entry_pb2.EntryDraft
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    savings: _entry_pb2.Savings
    shadow_verdict: _lookup_pb2.ShadowVerdict
    def __init__(self, request_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., draft: _Optional[_Union[_entry_pb2.EntryDraft, _Mapping]] = ..., chunks: _Optional[_Iterable[bytes]] = ..., savings: _Optional[_Union[_entry_pb2.Savings, _Mapping]] = ..., shadow_verdict: _Optional[_Union[_lookup_pb2.ShadowVerdict, _Mapping]] = ...) -> None: ...

class StoreResponse(_message.Message):
    __slots__ = ("request_id", "entry_id", "expire_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    entry_id: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., entry_id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StoreStreamRequest(_message.Message):
    __slots__ = ("start", "chunk", "finish")
    START_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    start: StoreStart
    chunk: bytes
    finish: StoreFinish
    def __init__(self, start: _Optional[_Union[StoreStart, _Mapping]] = ..., chunk: _Optional[bytes] = ..., finish: _Optional[_Union[StoreFinish, _Mapping]] = ...) -> None: ...

class StoreStart(_message.Message):
    __slots__ = ("request_id", "lease_id", "draft")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease_id: str
    draft: _entry_pb2.EntryDraft
    def __init__(self, request_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., draft: _Optional[_Union[_entry_pb2.EntryDraft, _Mapping]] = ...) -> None: ...

class StoreFinish(_message.Message):
    __slots__ = ("savings", "shadow_verdict")
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_VERDICT_FIELD_NUMBER: _ClassVar[int]
    savings: _entry_pb2.Savings
    shadow_verdict: _lookup_pb2.ShadowVerdict
    def __init__(self, savings: _Optional[_Union[_entry_pb2.Savings, _Mapping]] = ..., shadow_verdict: _Optional[_Union[_lookup_pb2.ShadowVerdict, _Mapping]] = ...) -> None: ...

class StoreStreamResponse(_message.Message):
    __slots__ = ("request_id", "entry_id", "expire_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    entry_id: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., entry_id: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("request_id", "lease_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    lease_id: str
    def __init__(self, request_id: _Optional[str] = ..., lease_id: _Optional[str] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ("request_id", "released")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    released: bool
    def __init__(self, request_id: _Optional[str] = ..., released: _Optional[bool] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("request_id", "namespace", "include_users", "entry_id", "tag", "everything", "dry_run")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_USERS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    namespace: _entry_pb2.Namespace
    include_users: bool
    entry_id: str
    tag: str
    everything: bool
    dry_run: bool
    def __init__(self, request_id: _Optional[str] = ..., namespace: _Optional[_Union[_entry_pb2.Namespace, _Mapping]] = ..., include_users: _Optional[bool] = ..., entry_id: _Optional[str] = ..., tag: _Optional[str] = ..., everything: _Optional[bool] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("request_id", "entry_count")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    entry_count: int
    def __init__(self, request_id: _Optional[str] = ..., entry_count: _Optional[int] = ...) -> None: ...

class ReportFalseHitRequest(_message.Message):
    __slots__ = ("request_id", "namespace", "entry_id", "compare_text")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    COMPARE_TEXT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    namespace: _entry_pb2.Namespace
    entry_id: str
    compare_text: str
    def __init__(self, request_id: _Optional[str] = ..., namespace: _Optional[_Union[_entry_pb2.Namespace, _Mapping]] = ..., entry_id: _Optional[str] = ..., compare_text: _Optional[str] = ...) -> None: ...

class ReportFalseHitResponse(_message.Message):
    __slots__ = ("request_id", "removed")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    removed: bool
    def __init__(self, request_id: _Optional[str] = ..., removed: _Optional[bool] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("request_id", "tenant")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tenant: str
    def __init__(self, request_id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("request_id", "stats")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    stats: Stats
    def __init__(self, request_id: _Optional[str] = ..., stats: _Optional[_Union[Stats, _Mapping]] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("start_time", "entry_count", "size_bytes", "lookup_count", "hits", "misses", "store_count", "eviction_count", "false_hit_count", "lease_count", "saved", "store", "store_available", "semantic_enabled", "semantic_error", "evictions", "shared_count", "refresh_count")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_COUNT_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    STORE_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVICTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    FALSE_HIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    STORE_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_ENABLED_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_ERROR_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    SHARED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFRESH_COUNT_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    entry_count: int
    size_bytes: int
    lookup_count: int
    hits: _containers.RepeatedCompositeFieldContainer[HitCount]
    misses: _containers.RepeatedCompositeFieldContainer[MissCount]
    store_count: int
    eviction_count: int
    false_hit_count: int
    lease_count: int
    saved: _entry_pb2.Savings
    store: str
    store_available: bool
    semantic_enabled: bool
    semantic_error: ErrorEstimate
    evictions: _containers.RepeatedCompositeFieldContainer[EvictionCount]
    shared_count: int
    refresh_count: int
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., entry_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., lookup_count: _Optional[int] = ..., hits: _Optional[_Iterable[_Union[HitCount, _Mapping]]] = ..., misses: _Optional[_Iterable[_Union[MissCount, _Mapping]]] = ..., store_count: _Optional[int] = ..., eviction_count: _Optional[int] = ..., false_hit_count: _Optional[int] = ..., lease_count: _Optional[int] = ..., saved: _Optional[_Union[_entry_pb2.Savings, _Mapping]] = ..., store: _Optional[str] = ..., store_available: _Optional[bool] = ..., semantic_enabled: _Optional[bool] = ..., semantic_error: _Optional[_Union[ErrorEstimate, _Mapping]] = ..., evictions: _Optional[_Iterable[_Union[EvictionCount, _Mapping]]] = ..., shared_count: _Optional[int] = ..., refresh_count: _Optional[int] = ...) -> None: ...

class HitCount(_message.Message):
    __slots__ = ("kind", "count")
    KIND_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    kind: _lookup_pb2.HitKind
    count: int
    def __init__(self, kind: _Optional[_Union[_lookup_pb2.HitKind, str]] = ..., count: _Optional[int] = ...) -> None: ...

class MissCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: _lookup_pb2.MissReason
    count: int
    def __init__(self, reason: _Optional[_Union[_lookup_pb2.MissReason, str]] = ..., count: _Optional[int] = ...) -> None: ...

class EvictionCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: EvictionReason
    count: int
    def __init__(self, reason: _Optional[_Union[EvictionReason, str]] = ..., count: _Optional[int] = ...) -> None: ...

class ErrorEstimate(_message.Message):
    __slots__ = ("share", "share_low", "share_high", "sample_count")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SHARE_LOW_FIELD_NUMBER: _ClassVar[int]
    SHARE_HIGH_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    share: float
    share_low: float
    share_high: float
    sample_count: int
    def __init__(self, share: _Optional[float] = ..., share_low: _Optional[float] = ..., share_high: _Optional[float] = ..., sample_count: _Optional[int] = ...) -> None: ...
