import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from millrace.safety.v1 import policy_pb2 as _policy_pb2
from millrace.safety.v1 import verdict_pb2 as _verdict_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Segment(_message.Message):
    __slots__ = ("role", "text")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    role: _verdict_pb2.Role
    text: str
    def __init__(self, role: _Optional[_Union[_verdict_pb2.Role, str]] = ..., text: _Optional[str] = ...) -> None: ...

class OutputPart(_message.Message):
    __slots__ = ("choice_index", "kind", "tool_call_index", "text")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    kind: _verdict_pb2.OutputKind
    tool_call_index: int
    text: str
    def __init__(self, choice_index: _Optional[int] = ..., kind: _Optional[_Union[_verdict_pb2.OutputKind, str]] = ..., tool_call_index: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class ScreenedText(_message.Message):
    __slots__ = ("verdict", "replacement")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REPLACEMENT_FIELD_NUMBER: _ClassVar[int]
    verdict: _verdict_pb2.Verdict
    replacement: str
    def __init__(self, verdict: _Optional[_Union[_verdict_pb2.Verdict, str]] = ..., replacement: _Optional[str] = ...) -> None: ...

class CheckInputRequest(_message.Message):
    __slots__ = ("request_id", "profile", "segments")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    profile: str
    segments: _containers.RepeatedCompositeFieldContainer[Segment]
    def __init__(self, request_id: _Optional[str] = ..., profile: _Optional[str] = ..., segments: _Optional[_Iterable[_Union[Segment, _Mapping]]] = ...) -> None: ...

class CheckInputResponse(_message.Message):
    __slots__ = ("request_id", "assessment", "segments", "placeholders")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASSESSMENT_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDERS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    assessment: _verdict_pb2.Assessment
    segments: _containers.RepeatedCompositeFieldContainer[ScreenedText]
    placeholders: _containers.RepeatedCompositeFieldContainer[Placeholder]
    def __init__(self, request_id: _Optional[str] = ..., assessment: _Optional[_Union[_verdict_pb2.Assessment, _Mapping]] = ..., segments: _Optional[_Iterable[_Union[ScreenedText, _Mapping]]] = ..., placeholders: _Optional[_Iterable[_Union[Placeholder, _Mapping]]] = ...) -> None: ...

class CheckOutputRequest(_message.Message):
    __slots__ = ("request_id", "profile", "parts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    profile: str
    parts: _containers.RepeatedCompositeFieldContainer[OutputPart]
    def __init__(self, request_id: _Optional[str] = ..., profile: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[OutputPart, _Mapping]]] = ...) -> None: ...

class CheckOutputResponse(_message.Message):
    __slots__ = ("request_id", "assessment", "parts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASSESSMENT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    assessment: _verdict_pb2.Assessment
    parts: _containers.RepeatedCompositeFieldContainer[ScreenedText]
    def __init__(self, request_id: _Optional[str] = ..., assessment: _Optional[_Union[_verdict_pb2.Assessment, _Mapping]] = ..., parts: _Optional[_Iterable[_Union[ScreenedText, _Mapping]]] = ...) -> None: ...

class StreamStart(_message.Message):
    __slots__ = ("request_id", "profile", "choice_count")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    profile: str
    choice_count: int
    def __init__(self, request_id: _Optional[str] = ..., profile: _Optional[str] = ..., choice_count: _Optional[int] = ...) -> None: ...

class OutputDelta(_message.Message):
    __slots__ = ("choice_index", "kind", "tool_call_index", "text", "end_of_part", "end_of_choice")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    END_OF_PART_FIELD_NUMBER: _ClassVar[int]
    END_OF_CHOICE_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    kind: _verdict_pb2.OutputKind
    tool_call_index: int
    text: str
    end_of_part: bool
    end_of_choice: bool
    def __init__(self, choice_index: _Optional[int] = ..., kind: _Optional[_Union[_verdict_pb2.OutputKind, str]] = ..., tool_call_index: _Optional[int] = ..., text: _Optional[str] = ..., end_of_part: _Optional[bool] = ..., end_of_choice: _Optional[bool] = ...) -> None: ...

class StreamCheckOutputRequest(_message.Message):
    __slots__ = ("start", "deltas")
    START_FIELD_NUMBER: _ClassVar[int]
    DELTAS_FIELD_NUMBER: _ClassVar[int]
    start: StreamStart
    deltas: _containers.RepeatedCompositeFieldContainer[OutputDelta]
    def __init__(self, start: _Optional[_Union[StreamStart, _Mapping]] = ..., deltas: _Optional[_Iterable[_Union[OutputDelta, _Mapping]]] = ...) -> None: ...

class ReleasedText(_message.Message):
    __slots__ = ("choice_index", "kind", "tool_call_index", "text", "released_through")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RELEASED_THROUGH_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    kind: _verdict_pb2.OutputKind
    tool_call_index: int
    text: str
    released_through: int
    def __init__(self, choice_index: _Optional[int] = ..., kind: _Optional[_Union[_verdict_pb2.OutputKind, str]] = ..., tool_call_index: _Optional[int] = ..., text: _Optional[str] = ..., released_through: _Optional[int] = ...) -> None: ...

class Judgement(_message.Message):
    __slots__ = ("finding",)
    FINDING_FIELD_NUMBER: _ClassVar[int]
    finding: _verdict_pb2.Finding
    def __init__(self, finding: _Optional[_Union[_verdict_pb2.Finding, _Mapping]] = ...) -> None: ...

class ChoiceDone(_message.Message):
    __slots__ = ("choice_index", "verdict")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    verdict: _verdict_pb2.Verdict
    def __init__(self, choice_index: _Optional[int] = ..., verdict: _Optional[_Union[_verdict_pb2.Verdict, str]] = ...) -> None: ...

class StreamCompleted(_message.Message):
    __slots__ = ("assessment",)
    ASSESSMENT_FIELD_NUMBER: _ClassVar[int]
    assessment: _verdict_pb2.Assessment
    def __init__(self, assessment: _Optional[_Union[_verdict_pb2.Assessment, _Mapping]] = ...) -> None: ...

class OutputEvent(_message.Message):
    __slots__ = ("released", "judgement", "choice_done", "completed")
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    CHOICE_DONE_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    released: ReleasedText
    judgement: Judgement
    choice_done: ChoiceDone
    completed: StreamCompleted
    def __init__(self, released: _Optional[_Union[ReleasedText, _Mapping]] = ..., judgement: _Optional[_Union[Judgement, _Mapping]] = ..., choice_done: _Optional[_Union[ChoiceDone, _Mapping]] = ..., completed: _Optional[_Union[StreamCompleted, _Mapping]] = ...) -> None: ...

class Awaited(_message.Message):
    __slots__ = ("choice_index", "kind", "least_through", "most_through", "stops", "gather_max")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEAST_THROUGH_FIELD_NUMBER: _ClassVar[int]
    MOST_THROUGH_FIELD_NUMBER: _ClassVar[int]
    STOPS_FIELD_NUMBER: _ClassVar[int]
    GATHER_MAX_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    kind: _verdict_pb2.OutputKind
    least_through: int
    most_through: int
    stops: str
    gather_max: _duration_pb2.Duration
    def __init__(self, choice_index: _Optional[int] = ..., kind: _Optional[_Union[_verdict_pb2.OutputKind, str]] = ..., least_through: _Optional[int] = ..., most_through: _Optional[int] = ..., stops: _Optional[str] = ..., gather_max: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class StreamCheckOutputResponse(_message.Message):
    __slots__ = ("events", "awaited")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    AWAITED_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[OutputEvent]
    awaited: _containers.RepeatedCompositeFieldContainer[Awaited]
    def __init__(self, events: _Optional[_Iterable[_Union[OutputEvent, _Mapping]]] = ..., awaited: _Optional[_Iterable[_Union[Awaited, _Mapping]]] = ...) -> None: ...

class Placeholder(_message.Message):
    __slots__ = ("token", "original", "category")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ORIGINAL_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    token: str
    original: str
    category: str
    def __init__(self, token: _Optional[str] = ..., original: _Optional[str] = ..., category: _Optional[str] = ...) -> None: ...

class RedactRequest(_message.Message):
    __slots__ = ("request_id", "texts", "categories", "placeholders")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDERS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    categories: _containers.RepeatedScalarFieldContainer[str]
    placeholders: _containers.RepeatedCompositeFieldContainer[Placeholder]
    def __init__(self, request_id: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., categories: _Optional[_Iterable[str]] = ..., placeholders: _Optional[_Iterable[_Union[Placeholder, _Mapping]]] = ...) -> None: ...

class RedactResponse(_message.Message):
    __slots__ = ("request_id", "texts", "placeholders")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDERS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    placeholders: _containers.RepeatedCompositeFieldContainer[Placeholder]
    def __init__(self, request_id: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., placeholders: _Optional[_Iterable[_Union[Placeholder, _Mapping]]] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("request_id", "texts", "placeholders")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    PLACEHOLDERS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    placeholders: _containers.RepeatedCompositeFieldContainer[Placeholder]
    def __init__(self, request_id: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., placeholders: _Optional[_Iterable[_Union[Placeholder, _Mapping]]] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("request_id", "texts", "restored_count")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    RESTORED_COUNT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    restored_count: int
    def __init__(self, request_id: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., restored_count: _Optional[int] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies", "version", "detectors")
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DETECTORS_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Policy]
    version: str
    detectors: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Detector]
    def __init__(self, policies: _Optional[_Iterable[_Union[_policy_pb2.Policy, _Mapping]]] = ..., version: _Optional[str] = ..., detectors: _Optional[_Iterable[_Union[_policy_pb2.Detector, _Mapping]]] = ...) -> None: ...
