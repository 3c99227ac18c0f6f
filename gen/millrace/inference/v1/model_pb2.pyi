import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelCapability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_CAPABILITY_UNSPECIFIED: _ClassVar[ModelCapability]
    MODEL_CAPABILITY_CHAT: _ClassVar[ModelCapability]
    MODEL_CAPABILITY_COMPLETION: _ClassVar[ModelCapability]
    MODEL_CAPABILITY_EMBEDDING: _ClassVar[ModelCapability]
    MODEL_CAPABILITY_TOOLS: _ClassVar[ModelCapability]
    MODEL_CAPABILITY_IMAGE_INPUT: _ClassVar[ModelCapability]
    MODEL_CAPABILITY_STRUCTURED_OUTPUT: _ClassVar[ModelCapability]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_UNAVAILABLE: _ClassVar[ModelState]
    MODEL_STATE_IDLE: _ClassVar[ModelState]
MODEL_CAPABILITY_UNSPECIFIED: ModelCapability
MODEL_CAPABILITY_CHAT: ModelCapability
MODEL_CAPABILITY_COMPLETION: ModelCapability
MODEL_CAPABILITY_EMBEDDING: ModelCapability
MODEL_CAPABILITY_TOOLS: ModelCapability
MODEL_CAPABILITY_IMAGE_INPUT: ModelCapability
MODEL_CAPABILITY_STRUCTURED_OUTPUT: ModelCapability
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_UNAVAILABLE: ModelState
MODEL_STATE_IDLE: ModelState

class Model(_message.Message):
    __slots__ = ("name", "description", "owner", "created_time", "capabilities", "context_token_count_max", "state", "targets", "loaded_share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKEN_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    LOADED_SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    owner: str
    created_time: _timestamp_pb2.Timestamp
    capabilities: _containers.RepeatedScalarFieldContainer[ModelCapability]
    context_token_count_max: int
    state: ModelState
    targets: _containers.RepeatedScalarFieldContainer[str]
    loaded_share: float
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., owner: _Optional[str] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., capabilities: _Optional[_Iterable[_Union[ModelCapability, str]]] = ..., context_token_count_max: _Optional[int] = ..., state: _Optional[_Union[ModelState, str]] = ..., targets: _Optional[_Iterable[str]] = ..., loaded_share: _Optional[float] = ...) -> None: ...
