import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.inference.v1 import event_pb2 as _event_pb2
from millrace.inference.v1 import generation_pb2 as _generation_pb2
from millrace.inference.v1 import inference_service_pb2 as _inference_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
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
    JOB_STATE_EXPIRED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_COMPLETED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STATE_EXPIRED: JobState

class Job(_message.Message):
    __slots__ = ("job_id", "state", "completed_item_count", "failed_item_count", "created_time", "end_time", "item_count", "kind", "labels", "start_time", "deadline_time", "expire_time", "cancel_time")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CANCEL_TIME_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: JobState
    completed_item_count: int
    failed_item_count: int
    created_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    item_count: int
    kind: str
    labels: _containers.ScalarMap[str, str]
    start_time: _timestamp_pb2.Timestamp
    deadline_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    cancel_time: _timestamp_pb2.Timestamp
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., completed_item_count: _Optional[int] = ..., failed_item_count: _Optional[int] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., item_count: _Optional[int] = ..., kind: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cancel_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class JobWork(_message.Message):
    __slots__ = ("label", "generation", "embedding", "refused", "attachment", "awaited")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    AWAITED_FIELD_NUMBER: _ClassVar[int]
    label: str
    generation: _generation_pb2.GenerationSpec
    embedding: _inference_service_pb2.EmbedRequest
    refused: _inference_service_pb2.ItemError
    attachment: bytes
    awaited: bool
    def __init__(self, label: _Optional[str] = ..., generation: _Optional[_Union[_generation_pb2.GenerationSpec, _Mapping]] = ..., embedding: _Optional[_Union[_inference_service_pb2.EmbedRequest, _Mapping]] = ..., refused: _Optional[_Union[_inference_service_pb2.ItemError, _Mapping]] = ..., attachment: _Optional[bytes] = ..., awaited: _Optional[bool] = ...) -> None: ...

class JobItem(_message.Message):
    __slots__ = ("index", "label", "state", "answer", "vectors", "error", "attachment", "receipt")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    index: int
    label: str
    state: JobState
    answer: _event_pb2.Generation
    vectors: _inference_service_pb2.EmbedResponse
    error: _inference_service_pb2.ItemError
    attachment: bytes
    receipt: _event_pb2.Receipt
    def __init__(self, index: _Optional[int] = ..., label: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., answer: _Optional[_Union[_event_pb2.Generation, _Mapping]] = ..., vectors: _Optional[_Union[_inference_service_pb2.EmbedResponse, _Mapping]] = ..., error: _Optional[_Union[_inference_service_pb2.ItemError, _Mapping]] = ..., attachment: _Optional[bytes] = ..., receipt: _Optional[_Union[_event_pb2.Receipt, _Mapping]] = ...) -> None: ...
