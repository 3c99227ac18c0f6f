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

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("totals", "totals_by_model", "latency", "uptime", "running_count", "targets")
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
    totals: _usage_pb2.UsageTotals
    totals_by_model: _containers.MessageMap[str, _usage_pb2.UsageTotals]
    latency: _usage_pb2.LatencySummary
    uptime: _duration_pb2.Duration
    running_count: int
    targets: _containers.RepeatedCompositeFieldContainer[_usage_pb2.TargetStats]
    def __init__(self, totals: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ..., totals_by_model: _Optional[_Mapping[str, _usage_pb2.UsageTotals]] = ..., latency: _Optional[_Union[_usage_pb2.LatencySummary, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., running_count: _Optional[int] = ..., targets: _Optional[_Iterable[_Union[_usage_pb2.TargetStats, _Mapping]]] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("start_time", "end_time", "key_id")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    key_id: str
    def __init__(self, start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key_id: _Optional[str] = ...) -> None: ...

class GetUsageResponse(_message.Message):
    __slots__ = ("totals", "totals_by_model")
    class TotalsByModelEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _usage_pb2.UsageTotals
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ...) -> None: ...
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_BY_MODEL_FIELD_NUMBER: _ClassVar[int]
    totals: _usage_pb2.UsageTotals
    totals_by_model: _containers.MessageMap[str, _usage_pb2.UsageTotals]
    def __init__(self, totals: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ..., totals_by_model: _Optional[_Mapping[str, _usage_pb2.UsageTotals]] = ...) -> None: ...

class ListHistoryRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListHistoryResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[HistoryEntry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[HistoryEntry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class HistoryEntry(_message.Message):
    __slots__ = ("request_id", "created_time", "model", "totals", "error_reason", "trace_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    created_time: _timestamp_pb2.Timestamp
    model: str
    totals: _usage_pb2.UsageTotals
    error_reason: str
    trace_id: str
    def __init__(self, request_id: _Optional[str] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[str] = ..., totals: _Optional[_Union[_usage_pb2.UsageTotals, _Mapping]] = ..., error_reason: _Optional[str] = ..., trace_id: _Optional[str] = ...) -> None: ...
