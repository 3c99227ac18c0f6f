import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.inference.v1 import cache_stats_pb2 as _cache_stats_pb2
from millrace.inference.v1 import event_pb2 as _event_pb2
from millrace.inference.v1 import usage_pb2 as _usage_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListLimitsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListLimitsResponse(_message.Message):
    __slots__ = ("limits",)
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[_event_pb2.LimitState]
    def __init__(self, limits: _Optional[_Iterable[_Union[_event_pb2.LimitState, _Mapping]]] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("totals", "totals_by_model", "latency", "uptime", "running_count", "targets", "ledger", "cache")
    class TotalsByModelEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _usage_pb2.UsageTotals
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ...) -> None: ...
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_BY_MODEL_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    totals: _usage_pb2.UsageTotals
    totals_by_model: _containers.MessageMap[str, _usage_pb2.UsageTotals]
    latency: _usage_pb2.LatencySummary
    uptime: _duration_pb2.Duration
    running_count: int
    targets: _containers.RepeatedCompositeFieldContainer[_usage_pb2.TargetStats]
    ledger: _usage_pb2.LedgerStats
    cache: _cache_stats_pb2.CacheStats
    def __init__(self, totals: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ..., totals_by_model: _Optional[_Mapping[str, _usage_pb2.UsageTotals]] = ..., latency: _Optional[_Union[_usage_pb2.LatencySummary, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., running_count: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[_usage_pb2.TargetStats, _Mapping]]] = ..., ledger: _Optional[_Union[_usage_pb2.LedgerStats, _Mapping]] = ..., cache: _Optional[_Union[_cache_stats_pb2.CacheStats, _Mapping]] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("start_time", "end_time", "key_id", "tenant", "principal", "model", "bucket_width", "group_by")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUCKET_WIDTH_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    key_id: str
    tenant: str
    principal: str
    model: str
    bucket_width: _duration_pb2.Duration
    group_by: _containers.RepeatedScalarFieldContainer[_usage_pb2.UsageGroup]
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key_id: _Optional[str] = ..., tenant: _Optional[str] = ..., principal: _Optional[str] = ..., model: _Optional[str] = ..., bucket_width: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., group_by: _Optional[_Iterable[_Union[_usage_pb2.UsageGroup, str]]] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("totals", "totals_by_model", "lines")
    class TotalsByModelEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _usage_pb2.UsageTotals
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ...) -> None: ...
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_BY_MODEL_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    totals: _usage_pb2.UsageTotals
    totals_by_model: _containers.MessageMap[str, _usage_pb2.UsageTotals]
    lines: _containers.RepeatedCompositeFieldContainer[_usage_pb2.UsageLine]
    def __init__(self, totals: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ..., totals_by_model: _Optional[_Mapping[str, _usage_pb2.UsageTotals]] = ..., lines: _Optional[_Iterable[_Union[_usage_pb2.UsageLine, _Mapping]]] = ...) -> None: ...

class ListHistoryRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "tenant", "principal", "key_id", "model", "start_time", "end_time")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    tenant: str
    principal: str
    key_id: str
    model: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., tenant: _Optional[str] = ..., principal: _Optional[str] = ..., key_id: _Optional[str] = ..., model: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListHistoryResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("request_id", "created_time", "model", "totals", "error_reason", "trace_id", "entry_id", "kind", "tenant", "principal", "key_id", "key_name", "route_reason", "engine", "target", "target_model", "outcome", "finish_reason", "cache_outcome", "safety_verdict", "duration", "ttft", "usage_source", "cost_micro_usd", "attempts", "prompt", "completion")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_NAME_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REASON_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODEL_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    CACHE_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SAFETY_VERDICT_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TTFT_FIELD_NUMBER: _ClassVar[int]
    USAGE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    created_time: _timestamp_pb2.Timestamp
    model: str
    totals: _usage_pb2.UsageTotals
    error_reason: str
    trace_id: str
    entry_id: str
    kind: str
    tenant: str
    principal: str
    key_id: str
    key_name: str
    route_reason: str
    engine: str
    target: str
    target_model: str
    outcome: _usage_pb2.RequestOutcome
    finish_reason: _event_pb2.FinishReason
    cache_outcome: _event_pb2.CacheOutcome
    safety_verdict: _event_pb2.SafetyVerdict
    duration: _duration_pb2.Duration
    ttft: _duration_pb2.Duration
    usage_source: _event_pb2.UsageSource
    cost_micro_usd: int
    attempts: _containers.RepeatedCompositeFieldContainer[_event_pb2.Attempt]
    prompt: str
    completion: str
    def __init__(self, request_id: _Optional[str] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[str] = ..., totals: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ..., error_reason: _Optional[str] = ..., trace_id: _Optional[str] = ..., entry_id: _Optional[str] = ..., kind: _Optional[str] = ..., tenant: _Optional[str] = ..., principal: _Optional[str] = ..., key_id: _Optional[str] = ..., key_name: _Optional[str] = ..., route_reason: _Optional[str] = ..., engine: _Optional[str] = ..., target: _Optional[str] = ..., target_model: _Optional[str] = ..., outcome: _Optional[_Union[_usage_pb2.RequestOutcome, str]] = ..., finish_reason: _Optional[_Union[_event_pb2.FinishReason, str]] = ..., cache_outcome: _Optional[_Union[_event_pb2.CacheOutcome, str]] = ..., safety_verdict: _Optional[_Union[_event_pb2.SafetyVerdict, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttft: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., usage_source: _Optional[_Union[_event_pb2.UsageSource, str]] = ..., cost_micro_usd: _Optional[int] = ..., attempts: _Optional[_Iterable[_Union[_event_pb2.Attempt, _Mapping]]] = ..., prompt: _Optional[str] = ..., completion: _Optional[str] = ...) -> None: ...
