import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from millrace.safety.v1 import verdict_pb2 as _verdict_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FailureMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_MODE_UNSPECIFIED: _ClassVar[FailureMode]
    FAILURE_MODE_OPEN: _ClassVar[FailureMode]
    FAILURE_MODE_CLOSED: _ClassVar[FailureMode]
FAILURE_MODE_UNSPECIFIED: FailureMode
FAILURE_MODE_OPEN: FailureMode
FAILURE_MODE_CLOSED: FailureMode

class CategoryAction(_message.Message):
    __slots__ = ("category", "action", "anonymise")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ANONYMISE_FIELD_NUMBER: _ClassVar[int]
    category: str
    action: _verdict_pb2.Verdict
    anonymise: bool
    def __init__(self, category: _Optional[str] = ..., action: _Optional[_Union[_verdict_pb2.Verdict, str]] = ..., anonymise: _Optional[bool] = ...) -> None: ...

class PolicyRule(_message.Message):
    __slots__ = ("direction", "detector", "threshold", "action", "category_actions", "on_failure", "deadline", "anonymise", "retrieved")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    ANONYMISE_FIELD_NUMBER: _ClassVar[int]
    RETRIEVED_FIELD_NUMBER: _ClassVar[int]
    direction: _verdict_pb2.Direction
    detector: str
    threshold: float
    action: _verdict_pb2.Verdict
    category_actions: _containers.RepeatedCompositeFieldContainer[CategoryAction]
    on_failure: FailureMode
    deadline: _duration_pb2.Duration
    anonymise: bool
    retrieved: RetrievedRule
    def __init__(self, direction: _Optional[_Union[_verdict_pb2.Direction, str]] = ..., detector: _Optional[str] = ..., threshold: _Optional[float] = ..., action: _Optional[_Union[_verdict_pb2.Verdict, str]] = ..., category_actions: _Optional[_Iterable[_Union[CategoryAction, _Mapping]]] = ..., on_failure: _Optional[_Union[FailureMode, str]] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., anonymise: _Optional[bool] = ..., retrieved: _Optional[_Union[RetrievedRule, _Mapping]] = ...) -> None: ...

class RetrievedRule(_message.Message):
    __slots__ = ("threshold", "action", "category_actions", "anonymise")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    ANONYMISE_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    action: _verdict_pb2.Verdict
    category_actions: _containers.RepeatedCompositeFieldContainer[CategoryAction]
    anonymise: bool
    def __init__(self, threshold: _Optional[float] = ..., action: _Optional[_Union[_verdict_pb2.Verdict, str]] = ..., category_actions: _Optional[_Iterable[_Union[CategoryAction, _Mapping]]] = ..., anonymise: _Optional[bool] = ...) -> None: ...

class Detector(_message.Message):
    __slots__ = ("name", "backend", "model", "categories", "optional_categories")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    name: str
    backend: str
    model: str
    categories: _containers.RepeatedScalarFieldContainer[str]
    optional_categories: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., backend: _Optional[str] = ..., model: _Optional[str] = ..., categories: _Optional[_Iterable[str]] = ..., optional_categories: _Optional[_Iterable[str]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("profile", "description", "version", "rules", "hold_code_point_max", "strictness", "hold_max")
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    HOLD_CODE_POINT_MAX_FIELD_NUMBER: _ClassVar[int]
    STRICTNESS_FIELD_NUMBER: _ClassVar[int]
    HOLD_MAX_FIELD_NUMBER: _ClassVar[int]
    profile: str
    description: str
    version: str
    rules: _containers.RepeatedCompositeFieldContainer[PolicyRule]
    hold_code_point_max: int
    strictness: int
    hold_max: _duration_pb2.Duration
    def __init__(self, profile: _Optional[str] = ..., description: _Optional[str] = ..., version: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[PolicyRule, _Mapping]]] = ..., hold_code_point_max: _Optional[int] = ..., strictness: _Optional[int] = ..., hold_max: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
