import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CacheStats(_message.Message):
    __slots__ = ("store", "store_available", "entry_count", "size_bytes", "hit_count_by_kind", "shared_hit_count", "miss_count_by_reason", "false_hit_count", "saved", "semantic_error")
    class HitCountByKindEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class MissCountByReasonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    STORE_FIELD_NUMBER: _ClassVar[int]
    STORE_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HIT_COUNT_BY_KIND_FIELD_NUMBER: _ClassVar[int]
    SHARED_HIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    MISS_COUNT_BY_REASON_FIELD_NUMBER: _ClassVar[int]
    FALSE_HIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_ERROR_FIELD_NUMBER: _ClassVar[int]
    store: str
    store_available: bool
    entry_count: int
    size_bytes: int
    hit_count_by_kind: _containers.ScalarMap[str, int]
    shared_hit_count: int
    miss_count_by_reason: _containers.ScalarMap[str, int]
    false_hit_count: int
    saved: CacheSavings
    semantic_error: CacheErrorEstimate
    def __init__(self, store: _Optional[str] = ..., store_available: _Optional[bool] = ..., entry_count: _Optional[int] = ..., size_bytes: _Optional[int] = ..., hit_count_by_kind: _Optional[_Mapping[str, int]] = ..., shared_hit_count: _Optional[int] = ..., miss_count_by_reason: _Optional[_Mapping[str, int]] = ..., false_hit_count: _Optional[int] = ..., saved: _Optional[_Union[CacheSavings, _Mapping]] = ..., semantic_error: _Optional[_Union[CacheErrorEstimate, _Mapping]] = ...) -> None: ...

class CacheSavings(_message.Message):
    __slots__ = ("prompt_token_count", "completion_token_count", "cost_micro_usd", "generation_time")
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TIME_FIELD_NUMBER: _ClassVar[int]
    prompt_token_count: int
    completion_token_count: int
    cost_micro_usd: int
    generation_time: _duration_pb2.Duration
    def __init__(self, prompt_token_count: _Optional[int] = ..., completion_token_count: _Optional[int] = ..., cost_micro_usd: _Optional[int] = ..., generation_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class CacheErrorEstimate(_message.Message):
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
