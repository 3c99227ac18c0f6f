import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from millrace.inference.v1 import generation_pb2 as _generation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_TOOL_CALLS: _ClassVar[FinishReason]
    FINISH_REASON_CONTENT_FILTER: _ClassVar[FinishReason]
    FINISH_REASON_DEADLINE: _ClassVar[FinishReason]

class SafetyDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAFETY_DIRECTION_UNSPECIFIED: _ClassVar[SafetyDirection]
    SAFETY_DIRECTION_INPUT: _ClassVar[SafetyDirection]
    SAFETY_DIRECTION_OUTPUT: _ClassVar[SafetyDirection]

class SafetyVerdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAFETY_VERDICT_UNSPECIFIED: _ClassVar[SafetyVerdict]
    SAFETY_VERDICT_ALLOW: _ClassVar[SafetyVerdict]
    SAFETY_VERDICT_FLAG: _ClassVar[SafetyVerdict]
    SAFETY_VERDICT_REDACT: _ClassVar[SafetyVerdict]
    SAFETY_VERDICT_BLOCK: _ClassVar[SafetyVerdict]

class CacheOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CACHE_OUTCOME_UNSPECIFIED: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_EXACT: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_SEMANTIC: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_STALE: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_MISS: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_BYPASS: _ClassVar[CacheOutcome]
    CACHE_OUTCOME_UNAVAILABLE: _ClassVar[CacheOutcome]

class UsageSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_SOURCE_UNSPECIFIED: _ClassVar[UsageSource]
    USAGE_SOURCE_REPORTED: _ClassVar[UsageSource]
    USAGE_SOURCE_COUNTED: _ClassVar[UsageSource]
    USAGE_SOURCE_ESTIMATED: _ClassVar[UsageSource]

class AttemptOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTEMPT_OUTCOME_UNSPECIFIED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_OK: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_FAILED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_CANCELLED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_SKIPPED: _ClassVar[AttemptOutcome]
    ATTEMPT_OUTCOME_LOST: _ClassVar[AttemptOutcome]

class LimitUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_UNIT_UNSPECIFIED: _ClassVar[LimitUnit]
    LIMIT_UNIT_REQUESTS: _ClassVar[LimitUnit]
    LIMIT_UNIT_TOKENS: _ClassVar[LimitUnit]
    LIMIT_UNIT_MICRO_USD: _ClassVar[LimitUnit]

class LimitWindow(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_WINDOW_UNSPECIFIED: _ClassVar[LimitWindow]
    LIMIT_WINDOW_AT_ONCE: _ClassVar[LimitWindow]
    LIMIT_WINDOW_MINUTE: _ClassVar[LimitWindow]
    LIMIT_WINDOW_DAY: _ClassVar[LimitWindow]
    LIMIT_WINDOW_MONTH: _ClassVar[LimitWindow]
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_TOOL_CALLS: FinishReason
FINISH_REASON_CONTENT_FILTER: FinishReason
FINISH_REASON_DEADLINE: FinishReason
SAFETY_DIRECTION_UNSPECIFIED: SafetyDirection
SAFETY_DIRECTION_INPUT: SafetyDirection
SAFETY_DIRECTION_OUTPUT: SafetyDirection
SAFETY_VERDICT_UNSPECIFIED: SafetyVerdict
SAFETY_VERDICT_ALLOW: SafetyVerdict
SAFETY_VERDICT_FLAG: SafetyVerdict
SAFETY_VERDICT_REDACT: SafetyVerdict
SAFETY_VERDICT_BLOCK: SafetyVerdict
CACHE_OUTCOME_UNSPECIFIED: CacheOutcome
CACHE_OUTCOME_EXACT: CacheOutcome
CACHE_OUTCOME_SEMANTIC: CacheOutcome
CACHE_OUTCOME_STALE: CacheOutcome
CACHE_OUTCOME_MISS: CacheOutcome
CACHE_OUTCOME_BYPASS: CacheOutcome
CACHE_OUTCOME_UNAVAILABLE: CacheOutcome
USAGE_SOURCE_UNSPECIFIED: UsageSource
USAGE_SOURCE_REPORTED: UsageSource
USAGE_SOURCE_COUNTED: UsageSource
USAGE_SOURCE_ESTIMATED: UsageSource
ATTEMPT_OUTCOME_UNSPECIFIED: AttemptOutcome
ATTEMPT_OUTCOME_OK: AttemptOutcome
ATTEMPT_OUTCOME_FAILED: AttemptOutcome
ATTEMPT_OUTCOME_CANCELLED: AttemptOutcome
ATTEMPT_OUTCOME_SKIPPED: AttemptOutcome
ATTEMPT_OUTCOME_LOST: AttemptOutcome
LIMIT_UNIT_UNSPECIFIED: LimitUnit
LIMIT_UNIT_REQUESTS: LimitUnit
LIMIT_UNIT_TOKENS: LimitUnit
LIMIT_UNIT_MICRO_USD: LimitUnit
LIMIT_WINDOW_UNSPECIFIED: LimitWindow
LIMIT_WINDOW_AT_ONCE: LimitWindow
LIMIT_WINDOW_MINUTE: LimitWindow
LIMIT_WINDOW_DAY: LimitWindow
LIMIT_WINDOW_MONTH: LimitWindow

class Started(_message.Message):
    __slots__ = ("request_id", "model", "route_reason", "created_time", "cache", "limits")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REASON_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    route_reason: str
    created_time: _timestamp_pb2.Timestamp
    cache: CacheEvent
    limits: _containers.RepeatedCompositeFieldContainer[LimitState]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., route_reason: _Optional[str] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cache: _Optional[_Union[CacheEvent, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[LimitState, _Mapping]]] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("choice_index", "text", "reasoning", "refusal", "tool_calls", "logprobs", "completion_token_count")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    text: str
    reasoning: str
    refusal: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[ToolCallDelta]
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    completion_token_count: int
    def __init__(self, choice_index: _Optional[int] = ..., text: _Optional[str] = ..., reasoning: _Optional[str] = ..., refusal: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[ToolCallDelta, _Mapping]]] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ..., completion_token_count: _Optional[int] = ...) -> None: ...

class ToolCallDelta(_message.Message):
    __slots__ = ("index", "id", "name", "arguments_json")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_JSON_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    name: str
    arguments_json: str
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., arguments_json: _Optional[str] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token", "logprob", "token_bytes", "top")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    token: str
    logprob: float
    token_bytes: bytes
    top: _containers.RepeatedCompositeFieldContainer[TopLogprob]
    def __init__(self, token: _Optional[str] = ..., logprob: _Optional[float] = ..., token_bytes: _Optional[bytes] = ..., top: _Optional[_Iterable[_Union[TopLogprob, _Mapping]]] = ...) -> None: ...

class TopLogprob(_message.Message):
    __slots__ = ("token", "logprob", "token_bytes")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    token: str
    logprob: float
    token_bytes: bytes
    def __init__(self, token: _Optional[str] = ..., logprob: _Optional[float] = ..., token_bytes: _Optional[bytes] = ...) -> None: ...

class ChoiceFinished(_message.Message):
    __slots__ = ("choice_index", "finish_reason", "stop_sequence")
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    choice_index: int
    finish_reason: FinishReason
    stop_sequence: str
    def __init__(self, choice_index: _Optional[int] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., stop_sequence: _Optional[str] = ...) -> None: ...

class SafetyEvent(_message.Message):
    __slots__ = ("direction", "verdict", "findings", "profile", "policy_version", "choice_index", "unscreened")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHOICE_INDEX_FIELD_NUMBER: _ClassVar[int]
    UNSCREENED_FIELD_NUMBER: _ClassVar[int]
    direction: SafetyDirection
    verdict: SafetyVerdict
    findings: _containers.RepeatedCompositeFieldContainer[SafetyFinding]
    profile: str
    policy_version: str
    choice_index: int
    unscreened: bool
    def __init__(self, direction: _Optional[_Union[SafetyDirection, str]] = ..., verdict: _Optional[_Union[SafetyVerdict, str]] = ..., findings: _Optional[_Iterable[_Union[SafetyFinding, _Mapping]]] = ..., profile: _Optional[str] = ..., policy_version: _Optional[str] = ..., choice_index: _Optional[int] = ..., unscreened: _Optional[bool] = ...) -> None: ...

class SafetyFinding(_message.Message):
    __slots__ = ("category", "score", "detector", "start", "end", "message_index", "action")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    category: str
    score: float
    detector: str
    start: int
    end: int
    message_index: int
    action: SafetyVerdict
    def __init__(self, category: _Optional[str] = ..., score: _Optional[float] = ..., detector: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., message_index: _Optional[int] = ..., action: _Optional[_Union[SafetyVerdict, str]] = ...) -> None: ...

class CacheEvent(_message.Message):
    __slots__ = ("outcome", "similarity", "age", "entry_id", "reason")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    outcome: CacheOutcome
    similarity: float
    age: _duration_pb2.Duration
    entry_id: str
    reason: str
    def __init__(self, outcome: _Optional[_Union[CacheOutcome, str]] = ..., similarity: _Optional[float] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., entry_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AttemptEvent(_message.Message):
    __slots__ = ("attempt",)
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    attempt: Attempt
    def __init__(self, attempt: _Optional[_Union[Attempt, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "engine", "target", "outcome", "error_reason", "duration", "ttft", "hedged", "queue_time", "usage", "usage_source", "cost_micro_usd")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TTFT_FIELD_NUMBER: _ClassVar[int]
    HEDGED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    USAGE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    number: int
    engine: str
    target: str
    outcome: AttemptOutcome
    error_reason: str
    duration: _duration_pb2.Duration
    ttft: _duration_pb2.Duration
    hedged: bool
    queue_time: _duration_pb2.Duration
    usage: Usage
    usage_source: UsageSource
    cost_micro_usd: int
    def __init__(self, number: _Optional[int] = ..., engine: _Optional[str] = ..., target: _Optional[str] = ..., outcome: _Optional[_Union[AttemptOutcome, str]] = ..., error_reason: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttft: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hedged: _Optional[bool] = ..., queue_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., usage_source: _Optional[_Union[UsageSource, str]] = ..., cost_micro_usd: _Optional[int] = ...) -> None: ...

class Completed(_message.Message):
    __slots__ = ("usage", "receipt")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    usage: Usage
    receipt: Receipt
    def __init__(self, usage: _Optional[_Union[Usage, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_token_count", "completion_token_count", "cached_prompt_token_count", "reasoning_token_count", "estimated")
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CACHED_PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    prompt_token_count: int
    completion_token_count: int
    cached_prompt_token_count: int
    reasoning_token_count: int
    estimated: bool
    def __init__(self, prompt_token_count: _Optional[int] = ..., completion_token_count: _Optional[int] = ..., cached_prompt_token_count: _Optional[int] = ..., reasoning_token_count: _Optional[int] = ..., estimated: _Optional[bool] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("request_id", "model", "engine", "target", "target_model", "attempts", "cache", "safety", "cost_micro_usd", "duration", "ttft", "system_fingerprint", "usage", "limits")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODEL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    SAFETY_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TTFT_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    engine: str
    target: str
    target_model: str
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    cache: CacheEvent
    safety: _containers.RepeatedCompositeFieldContainer[SafetyEvent]
    cost_micro_usd: int
    duration: _duration_pb2.Duration
    ttft: _duration_pb2.Duration
    system_fingerprint: str
    usage: Usage
    limits: _containers.RepeatedCompositeFieldContainer[LimitState]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., engine: _Optional[str] = ..., target: _Optional[str] = ..., target_model: _Optional[str] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., cache: _Optional[_Union[CacheEvent, _Mapping]] = ..., safety: _Optional[_Iterable[_Union[SafetyEvent, _Mapping]]] = ..., cost_micro_usd: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., ttft: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., system_fingerprint: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[LimitState, _Mapping]]] = ...) -> None: ...

class LimitState(_message.Message):
    __slots__ = ("name", "unit", "window", "limit", "remaining", "reset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    name: str
    unit: LimitUnit
    window: LimitWindow
    limit: int
    remaining: int
    reset: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., unit: _Optional[_Union[LimitUnit, str]] = ..., window: _Optional[_Union[LimitWindow, str]] = ..., limit: _Optional[int] = ..., remaining: _Optional[int] = ..., reset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("request_id", "model", "route_reason", "created_time", "choices", "usage", "receipt")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROUTE_REASON_FIELD_NUMBER: _ClassVar[int]
    CREATED_TIME_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    route_reason: str
    created_time: _timestamp_pb2.Timestamp
    choices: _containers.RepeatedCompositeFieldContainer[Choice]
    usage: Usage
    receipt: Receipt
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., route_reason: _Optional[str] = ..., created_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., choices: _Optional[_Iterable[_Union[Choice, _Mapping]]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ("index", "text", "reasoning", "refusal", "tool_calls", "finish_reason", "stop_sequence", "logprobs")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STOP_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    index: int
    text: str
    reasoning: str
    refusal: str
    tool_calls: _containers.RepeatedCompositeFieldContainer[_generation_pb2.ToolCall]
    finish_reason: FinishReason
    stop_sequence: str
    logprobs: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    def __init__(self, index: _Optional[int] = ..., text: _Optional[str] = ..., reasoning: _Optional[str] = ..., refusal: _Optional[str] = ..., tool_calls: _Optional[_Iterable[_Union[_generation_pb2.ToolCall, _Mapping]]] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., stop_sequence: _Optional[str] = ..., logprobs: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ...) -> None: ...
