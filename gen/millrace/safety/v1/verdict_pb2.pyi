import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_ALLOW: _ClassVar[Verdict]
    VERDICT_FLAG: _ClassVar[Verdict]
    VERDICT_REDACT: _ClassVar[Verdict]
    VERDICT_BLOCK: _ClassVar[Verdict]

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_INPUT: _ClassVar[Direction]
    DIRECTION_OUTPUT: _ClassVar[Direction]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]
    ROLE_TOOL: _ClassVar[Role]
    ROLE_DOCUMENT: _ClassVar[Role]

class OutputKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_KIND_UNSPECIFIED: _ClassVar[OutputKind]
    OUTPUT_KIND_TEXT: _ClassVar[OutputKind]
    OUTPUT_KIND_REASONING: _ClassVar[OutputKind]
    OUTPUT_KIND_REFUSAL: _ClassVar[OutputKind]
    OUTPUT_KIND_TOOL_ARGUMENTS: _ClassVar[OutputKind]
    OUTPUT_KIND_TOOL_NAME: _ClassVar[OutputKind]

class ExecutionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXECUTION_STATE_UNSPECIFIED: _ClassVar[ExecutionState]
    EXECUTION_STATE_OK: _ClassVar[ExecutionState]
    EXECUTION_STATE_SKIPPED: _ClassVar[ExecutionState]
    EXECUTION_STATE_TIMED_OUT: _ClassVar[ExecutionState]
    EXECUTION_STATE_FAILED: _ClassVar[ExecutionState]
VERDICT_UNSPECIFIED: Verdict
VERDICT_ALLOW: Verdict
VERDICT_FLAG: Verdict
VERDICT_REDACT: Verdict
VERDICT_BLOCK: Verdict
DIRECTION_UNSPECIFIED: Direction
DIRECTION_INPUT: Direction
DIRECTION_OUTPUT: Direction
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
ROLE_TOOL: Role
ROLE_DOCUMENT: Role
OUTPUT_KIND_UNSPECIFIED: OutputKind
OUTPUT_KIND_TEXT: OutputKind
OUTPUT_KIND_REASONING: OutputKind
OUTPUT_KIND_REFUSAL: OutputKind
OUTPUT_KIND_TOOL_ARGUMENTS: OutputKind
OUTPUT_KIND_TOOL_NAME: OutputKind
EXECUTION_STATE_UNSPECIFIED: ExecutionState
EXECUTION_STATE_OK: ExecutionState
EXECUTION_STATE_SKIPPED: ExecutionState
EXECUTION_STATE_TIMED_OUT: ExecutionState
EXECUTION_STATE_FAILED: ExecutionState

class Span(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("category", "score", "detector", "direction", "action", "span", "segment_index", "choice_index", "kind", "tool_call_index", "placeholder")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDER_FIELD_NUMBER: _ClassVar[int]
    category: str
    score: float
    detector: str
    direction: Direction
    action: Verdict
    span: Span
    segment_index: int
    choice_index: int
    kind: OutputKind
    tool_call_index: int
    placeholder: str
    def __init__(self, category: _Optional[str] = ..., score: _Optional[float] = ..., detector: _Optional[str] = ..., direction: _Optional[_Union[Direction, str]] = ..., action: _Optional[_Union[Verdict, str]] = ..., span: _Optional[_Union[Span, _Mapping]] = ..., segment_index: _Optional[int] = ..., choice_index: _Optional[int] = ..., kind: _Optional[_Union[OutputKind, str]] = ..., tool_call_index: _Optional[int] = ..., placeholder: _Optional[str] = ...) -> None: ...

class CategoryScore(_message.Message):
    __slots__ = ("category", "score", "flagged")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    category: str
    score: float
    flagged: bool
    def __init__(self, category: _Optional[str] = ..., score: _Optional[float] = ..., flagged: _Optional[bool] = ...) -> None: ...

class DetectorRun(_message.Message):
    __slots__ = ("detector", "state", "duration", "failed_open")
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    FAILED_OPEN_FIELD_NUMBER: _ClassVar[int]
    detector: str
    state: ExecutionState
    duration: _duration_pb2.Duration
    failed_open: bool
    def __init__(self, detector: _Optional[str] = ..., state: _Optional[_Union[ExecutionState, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failed_open: _Optional[bool] = ...) -> None: ...

class Assessment(_message.Message):
    __slots__ = ("verdict", "findings", "finding_count", "scores", "runs", "profile", "policy_version")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    finding_count: int
    scores: _containers.RepeatedCompositeFieldContainer[CategoryScore]
    runs: _containers.RepeatedCompositeFieldContainer[DetectorRun]
    profile: str
    policy_version: str
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., finding_count: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[CategoryScore, _Mapping]]] = ..., runs: _Optional[_Iterable[_Union[DetectorRun, _Mapping]]] = ..., profile: _Optional[str] = ..., policy_version: _Optional[str] = ...) -> None: ...
