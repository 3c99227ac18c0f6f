import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.inference.v1 import event_pb2 as _event_pb2
from millrace.inference.v1 import generation_pb2 as _generation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_COMPLETED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_COMPLETED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState

class Job(_message.Message):
    __slots__ = ("job_id", "state", "specs", "completed_item_count", "failed_item_count", "created_time", "end_time", "items")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SPECS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: JobState
    specs: _containers.RepeatedCompositeFieldContainer[_generation_pb2.GenerationSpec]
    completed_item_count: int
    failed_item_count: int
    created_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    items: _containers.RepeatedCompositeFieldContainer[JobItem]
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., specs: _Optional[_Iterable[_Union[_generation_pb2.GenerationSpec, _Mapping]]] = ..., completed_item_count: _Optional[int] = ..., failed_item_count: _Optional[int] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., items: _Optional[_Iterable[_Union[JobItem, _Mapping]]] = ...) -> None: ...

class JobItem(_message.Message):
    __slots__ = ("index", "generation", "error_reason")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    generation: _event_pb2.Generation
    error_reason: str
    def __init__(self, index: _Optional[int] = ..., generation: _Optional[_Union[_event_pb2.Generation, _Mapping]] = ..., error_reason: _Optional[str] = ...) -> None: ...
