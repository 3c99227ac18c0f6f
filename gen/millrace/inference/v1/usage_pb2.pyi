import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageTotals(_message.Message):
    __slots__ = ("request_count", "failed_request_count", "prompt_token_count", "completion_token_count", "cache_hit_count", "cache_miss_count", "blocked_count", "cost_micro_usd", "unpriced_request_count")
    REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHE_MISS_COUNT_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    UNPRICED_REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_count: int
    failed_request_count: int
    prompt_token_count: int
    completion_token_count: int
    cache_hit_count: int
    cache_miss_count: int
    blocked_count: int
    cost_micro_usd: int
    unpriced_request_count: int
    def __init__(self, request_count: _Optional[int] = ..., failed_request_count: _Optional[int] = ..., prompt_token_count: _Optional[int] = ..., completion_token_count: _Optional[int] = ..., cache_hit_count: _Optional[int] = ..., cache_miss_count: _Optional[int] = ..., blocked_count: _Optional[int] = ..., cost_micro_usd: _Optional[int] = ..., unpriced_request_count: _Optional[int] = ...) -> None: ...

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
