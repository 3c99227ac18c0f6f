from google.protobuf import any_pb2 as _any_pb2
from millrace.inference.v1 import event_pb2 as _event_pb2
from millrace.inference.v1 import generation_pb2 as _generation_pb2
from millrace.inference.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _generation_pb2.GenerationSpec
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_generation_pb2.GenerationSpec, _Mapping]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: _event_pb2.Generation
    def __init__(self, generation: _Optional[_Union[_event_pb2.Generation, _Mapping]] = ...) -> None: ...

class StreamGenerateRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _generation_pb2.GenerationSpec
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_generation_pb2.GenerationSpec, _Mapping]] = ...) -> None: ...

class StreamGenerateResponse(_message.Message):
    __slots__ = ("sequence", "started", "delta", "choice_finished", "safety", "cache", "attempt", "completed")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FINISHED_FIELD_NUMBER: _ClassVar[int]
    SAFETY_FIELD_NUMBER: _ClassVar[int]
    CACHE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    started: _event_pb2.Started
    delta: _event_pb2.Delta
    choice_finished: _event_pb2.ChoiceFinished
    safety: _event_pb2.SafetyEvent
    cache: _event_pb2.CacheEvent
    attempt: _event_pb2.AttemptEvent
    completed: _event_pb2.Completed
    def __init__(self, sequence: _Optional[int] = ..., started: _Optional[_Union[_event_pb2.Started, _Mapping]] = ..., delta: _Optional[_Union[_event_pb2.Delta, _Mapping]] = ..., choice_finished: _Optional[_Union[_event_pb2.ChoiceFinished, _Mapping]] = ..., safety: _Optional[_Union[_event_pb2.SafetyEvent, _Mapping]] = ..., cache: _Optional[_Union[_event_pb2.CacheEvent, _Mapping]] = ..., attempt: _Optional[_Union[_event_pb2.AttemptEvent, _Mapping]] = ..., completed: _Optional[_Union[_event_pb2.Completed, _Mapping]] = ...) -> None: ...

class BatchGenerateRequest(_message.Message):
    __slots__ = ("request_id", "specs")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPECS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    specs: _containers.RepeatedCompositeFieldContainer[_generation_pb2.GenerationSpec]
    def __init__(self, request_id: _Optional[str] = ..., specs: _Optional[_Iterable[_Union[_generation_pb2.GenerationSpec, _Mapping]]] = ...) -> None: ...

class BatchGenerateResponse(_message.Message):
    __slots__ = ("request_id", "items")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[BatchItem]
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[BatchItem, _Mapping]]] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("generation", "error")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    generation: _event_pb2.Generation
    error: ItemError
    def __init__(self, generation: _Optional[_Union[_event_pb2.Generation, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("request_id", "model", "texts", "dimension_count", "end_user_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    END_USER_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    dimension_count: int
    end_user_id: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., dimension_count: _Optional[int] = ..., end_user_id: _Optional[str] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("request_id", "model", "embeddings", "usage", "receipt")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    embeddings: _containers.RepeatedCompositeFieldContainer[Embedding]
    usage: _event_pb2.Usage
    receipt: _event_pb2.Receipt
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., embeddings: _Optional[_Iterable[_Union[Embedding, _Mapping]]] = ..., usage: _Optional[_Union[_event_pb2.Usage, _Mapping]] = ..., receipt: _Optional[_Union[_event_pb2.Receipt, _Mapping]] = ...) -> None: ...

class Embedding(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class CountTokensRequest(_message.Message):
    __slots__ = ("request_id", "spec")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    spec: _generation_pb2.GenerationSpec
    def __init__(self, request_id: _Optional[str] = ..., spec: _Optional[_Union[_generation_pb2.GenerationSpec, _Mapping]] = ...) -> None: ...

class CountTokensResponse(_message.Message):
    __slots__ = ("request_id", "prompt_token_count", "context_token_count_max")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKEN_COUNT_MAX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    prompt_token_count: int
    context_token_count_max: int
    def __init__(self, request_id: _Optional[str] = ..., prompt_token_count: _Optional[int] = ..., context_token_count_max: _Optional[int] = ...) -> None: ...

class ModerateRequest(_message.Message):
    __slots__ = ("request_id", "texts")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ...) -> None: ...

class ModerateResponse(_message.Message):
    __slots__ = ("request_id", "model", "results")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    results: _containers.RepeatedCompositeFieldContainer[ModerationResult]
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ModerationResult, _Mapping]]] = ...) -> None: ...

class ModerationResult(_message.Message):
    __slots__ = ("flagged", "categories")
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    flagged: bool
    categories: _containers.RepeatedCompositeFieldContainer[ModerationCategory]
    def __init__(self, flagged: _Optional[bool] = ..., categories: _Optional[_Iterable[_Union[ModerationCategory, _Mapping]]] = ...) -> None: ...

class ModerationCategory(_message.Message):
    __slots__ = ("name", "flagged", "score")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    flagged: bool
    score: float
    def __init__(self, name: _Optional[str] = ..., flagged: _Optional[bool] = ..., score: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...

class ReportFalseHitRequest(_message.Message):
    __slots__ = ("request_id", "entry_id", "text", "end_user_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    END_USER_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    entry_id: str
    text: str
    end_user_id: str
    def __init__(self, request_id: _Optional[str] = ..., entry_id: _Optional[str] = ..., text: _Optional[str] = ..., end_user_id: _Optional[str] = ...) -> None: ...

class ReportFalseHitResponse(_message.Message):
    __slots__ = ("request_id", "removed")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    removed: bool
    def __init__(self, request_id: _Optional[str] = ..., removed: _Optional[bool] = ...) -> None: ...
