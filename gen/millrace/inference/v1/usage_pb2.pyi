import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageGroup(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_GROUP_UNSPECIFIED: _ClassVar[UsageGroup]
    USAGE_GROUP_MODEL: _ClassVar[UsageGroup]
    USAGE_GROUP_KEY: _ClassVar[UsageGroup]
    USAGE_GROUP_PRINCIPAL: _ClassVar[UsageGroup]
    USAGE_GROUP_TENANT: _ClassVar[UsageGroup]

class RequestOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REQUEST_OUTCOME_UNSPECIFIED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_OK: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_FAILED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_BLOCKED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_CANCELLED: _ClassVar[RequestOutcome]
    REQUEST_OUTCOME_LOST: _ClassVar[RequestOutcome]

class BreakerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BREAKER_STATE_UNSPECIFIED: _ClassVar[BreakerState]
    BREAKER_STATE_CLOSED: _ClassVar[BreakerState]
    BREAKER_STATE_OPEN: _ClassVar[BreakerState]
    BREAKER_STATE_HALF_OPEN: _ClassVar[BreakerState]
USAGE_GROUP_UNSPECIFIED: UsageGroup
USAGE_GROUP_MODEL: UsageGroup
USAGE_GROUP_KEY: UsageGroup
USAGE_GROUP_PRINCIPAL: UsageGroup
USAGE_GROUP_TENANT: UsageGroup
REQUEST_OUTCOME_UNSPECIFIED: RequestOutcome
REQUEST_OUTCOME_OK: RequestOutcome
REQUEST_OUTCOME_FAILED: RequestOutcome
REQUEST_OUTCOME_BLOCKED: RequestOutcome
REQUEST_OUTCOME_CANCELLED: RequestOutcome
REQUEST_OUTCOME_LOST: RequestOutcome
BREAKER_STATE_UNSPECIFIED: BreakerState
BREAKER_STATE_CLOSED: BreakerState
BREAKER_STATE_OPEN: BreakerState
BREAKER_STATE_HALF_OPEN: BreakerState

class UsageTotals(_message.Message):
    __slots__ = ("request_count", "failed_request_count", "prompt_token_count", "completion_token_count", "cache_hit_count", "cache_miss_count", "blocked_count", "cost_micro_usd", "unpriced_request_count", "cached_prompt_token_count")
    REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISS_COUNT_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    UNPRICED_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_count: int
    failed_request_count: int
    prompt_token_count: int
    completion_token_count: int
    cache_hit_count: int
    cache_miss_count: int
    blocked_count: int
    cost_micro_usd: int
    unpriced_request_count: int
    cached_prompt_token_count: int
    def __init__(self, request_count: _Optional[int] = ..., failed_request_count: _Optional[int] = ..., prompt_token_count: _Optional[int] = ..., completion_token_count: _Optional[int] = ..., cache_hit_count: _Optional[int] = ..., cache_miss_count: _Optional[int] = ..., blocked_count: _Optional[int] = ..., cost_micro_usd: _Optional[int] = ..., unpriced_request_count: _Optional[int] = ..., cached_prompt_token_count: _Optional[int] = ...) -> None: ...

class UsageLine(_message.Message):
    __slots__ = ("start_time", "end_time", "tenant", "principal", "key_id", "key_name", "model", "totals")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    tenant: str
    principal: str
    key_id: str
    key_name: str
    model: str
    totals: UsageTotals
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ..., principal: _Optional[str] = ..., key_id: _Optional[str] = ..., key_name: _Optional[str] = ..., model: _Optional[str] = ..., totals: _Optional[_Union[UsageTotals, _Mapping]] = ...) -> None: ...

class LedgerStats(_message.Message):
    __slots__ = ("totals", "request_count_by_key", "api_key_count", "latency")
    class RequestCountByKeyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_COUNT_BY_KEY_FIELD_NUMBER: _ClassVar[int]
    API_KEY_COUNT_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    totals: UsageTotals
    request_count_by_key: _containers.ScalarMap[str, int]
    api_key_count: int
    latency: LatencySummary
    def __init__(self, totals: _Optional[_Union[UsageTotals, _Mapping]] = ..., request_count_by_key: _Optional[_Mapping[str, int]] = ..., api_key_count: _Optional[int] = ..., latency: _Optional[_Union[LatencySummary, _Mapping]] = ...) -> None: ...

class LatencySummary(_message.Message):
    __slots__ = ("duration_p50", "duration_p95", "ttft_p50", "ttft_p95")
    DURATION_P50_FIELD_NUMBER: _ClassVar[int]
    DURATION_P95_FIELD_NUMBER: _ClassVar[int]
    TTFT_P50_FIELD_NUMBER: _ClassVar[int]
    TTFT_P95_FIELD_NUMBER: _ClassVar[int]
    duration_p50: _duration_pb2.Duration
    duration_p95: _duration_pb2.Duration
    ttft_p50: _duration_pb2.Duration
    ttft_p95: _duration_pb2.Duration
    def __init__(self, duration_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., duration_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttft_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttft_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TargetStats(_message.Message):
    __slots__ = ("target", "target_model", "breaker_state", "retry_delay", "running_count", "waiting_count", "call_count", "failed_call_count", "retry_count", "hedge_count", "skipped_call_count", "ttft_average", "ttft_p95")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODEL_FIELD_NUMBER: _ClassVar[int]
    BREAKER_STATE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    RUNNING_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAITING_COUNT_FIELD_NUMBER: _ClassVar[int]
    CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    RETRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    HEDGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_CALL_COUNT_FIELD_NUMBER: _ClassVar[int]
    TTFT_AVERAGE_FIELD_NUMBER: _ClassVar[int]
    TTFT_P95_FIELD_NUMBER: _ClassVar[int]
    target: str
    target_model: str
    breaker_state: BreakerState
    retry_delay: _duration_pb2.Duration
    running_count: int
    waiting_count: int
    call_count: int
    failed_call_count: int
    retry_count: int
    hedge_count: int
    skipped_call_count: int
    ttft_average: _duration_pb2.Duration
    ttft_p95: _duration_pb2.Duration
    def __init__(self, target: _Optional[str] = ..., target_model: _Optional[str] = ..., breaker_state: _Optional[_Union[BreakerState, str]] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., running_count: _Optional[int] = ..., waiting_count: _Optional[int] = ..., call_count: _Optional[int] = ..., failed_call_count: _Optional[int] = ..., retry_count: _Optional[int] = ..., hedge_count: _Optional[int] = ..., skipped_call_count: _Optional[int] = ..., ttft_average: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttft_p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
