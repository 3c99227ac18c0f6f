import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.inference.v1 import usage_pb2 as _usage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LiveSnapshot(_message.Message):
    __slots__ = ("snapshot_time", "replica", "requests_per_second", "errors_per_second", "duration", "ttft", "tokens_per_second", "running_count", "cache", "safety", "models", "dependencies")
    SNAPSHOT_TIME_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ERRORS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TTFT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    SAFETY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    snapshot_time: _timestamp_pb2.Timestamp
    replica: str
    requests_per_second: float
    errors_per_second: float
    duration: LivePercentiles
    ttft: LivePercentiles
    tokens_per_second: float
    running_count: int
    cache: LiveCache
    safety: LiveSafety
    models: _containers.RepeatedCompositeFieldContainer[LiveModel]
    dependencies: _containers.RepeatedCompositeFieldContainer[LiveDependency]
    def __init__(self, snapshot_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., replica: _Optional[str] = ..., requests_per_second: _Optional[float] = ..., errors_per_second: _Optional[float] = ..., duration: _Optional[_Union[LivePercentiles, _Mapping]] = ..., ttft: _Optional[_Union[LivePercentiles, _Mapping]] = ..., tokens_per_second: _Optional[float] = ..., running_count: _Optional[int] = ..., cache: _Optional[_Union[LiveCache, _Mapping]] = ..., safety: _Optional[_Union[LiveSafety, _Mapping]] = ..., models: _Optional[_Iterable[_Union[LiveModel, _Mapping]]] = ..., dependencies: _Optional[_Iterable[_Union[LiveDependency, _Mapping]]] = ...) -> None: ...

class LivePercentiles(_message.Message):
    __slots__ = ("p50", "p95", "p99")
    P50_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    p50: _duration_pb2.Duration
    p95: _duration_pb2.Duration
    p99: _duration_pb2.Duration
    def __init__(self, p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LiveCache(_message.Message):
    __slots__ = ("hits_per_second", "hit_ratio", "saved_micro_usd")
    HITS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    HIT_RATIO_FIELD_NUMBER: _ClassVar[int]
    SAVED_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    hits_per_second: float
    hit_ratio: float
    saved_micro_usd: int
    def __init__(self, hits_per_second: _Optional[float] = ..., hit_ratio: _Optional[float] = ..., saved_micro_usd: _Optional[int] = ...) -> None: ...

class LiveSafety(_message.Message):
    __slots__ = ("flag_count", "redact_count", "block_count")
    FLAG_COUNT_FIELD_NUMBER: _ClassVar[int]
    REDACT_COUNT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_COUNT_FIELD_NUMBER: _ClassVar[int]
    flag_count: int
    redact_count: int
    block_count: int
    def __init__(self, flag_count: _Optional[int] = ..., redact_count: _Optional[int] = ..., block_count: _Optional[int] = ...) -> None: ...

class LiveModel(_message.Message):
    __slots__ = ("model", "requests_per_second", "duration_p95", "targets")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    DURATION_P95_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    model: str
    requests_per_second: float
    duration_p95: _duration_pb2.Duration
    targets: _containers.RepeatedCompositeFieldContainer[LiveTarget]
    def __init__(self, model: _Optional[str] = ..., requests_per_second: _Optional[float] = ..., duration_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., targets: _Optional[_Iterable[_Union[LiveTarget, _Mapping]]] = ...) -> None: ...

class LiveTarget(_message.Message):
    __slots__ = ("target", "breaker_state", "waiting_count", "running_count", "kv_cache_used_ratio")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    BREAKER_STATE_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_USED_RATIO_FIELD_NUMBER: _ClassVar[int]
    target: str
    breaker_state: _usage_pb2.BreakerState
    waiting_count: int
    running_count: int
    kv_cache_used_ratio: float
    def __init__(self, target: _Optional[str] = ..., breaker_state: _Optional[_Union[_usage_pb2.BreakerState, str]] = ..., waiting_count: _Optional[int] = ..., running_count: _Optional[int] = ..., kv_cache_used_ratio: _Optional[float] = ...) -> None: ...

class LiveDependency(_message.Message):
    __slots__ = ("name", "available")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    name: str
    available: bool
    def __init__(self, name: _Optional[str] = ..., available: _Optional[bool] = ...) -> None: ...
