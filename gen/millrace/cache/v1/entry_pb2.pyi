import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Namespace(_message.Message):
    __slots__ = ("tenant", "user")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class EntryKey(_message.Message):
    __slots__ = ("namespace", "model", "request_digest", "canonical_version", "context_digest")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CANONICAL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    namespace: Namespace
    model: str
    request_digest: bytes
    canonical_version: int
    context_digest: bytes
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., model: _Optional[str] = ..., request_digest: _Optional[bytes] = ..., canonical_version: _Optional[int] = ..., context_digest: _Optional[bytes] = ...) -> None: ...

class Savings(_message.Message):
    __slots__ = ("prompt_token_count", "completion_token_count", "cost_micro_usd", "generation_time")
    PROMPT_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_MICRO_USD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TIME_FIELD_NUMBER: _ClassVar[int]
    prompt_token_count: int
    completion_token_count: int
    cost_micro_usd: int
    generation_time: _duration_pb2.Duration
    def __init__(self, prompt_token_count: _Optional[int] = ..., completion_token_count: _Optional[int] = ..., cost_micro_usd: _Optional[int] = ..., generation_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class EntryDraft(_message.Message):
    __slots__ = ("key", "schema_tag", "compare_text", "ttl", "stale_for", "tags")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_TAG_FIELD_NUMBER: _ClassVar[int]
    COMPARE_TEXT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    STALE_FOR_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    key: EntryKey
    schema_tag: str
    compare_text: str
    ttl: _duration_pb2.Duration
    stale_for: _duration_pb2.Duration
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[_Union[EntryKey, _Mapping]] = ..., schema_tag: _Optional[str] = ..., compare_text: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stale_for: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("entry_id", "schema_tag", "chunks", "model", "create_time", "expire_time", "tags", "savings")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_TAG_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SAVINGS_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    schema_tag: str
    chunks: _containers.RepeatedScalarFieldContainer[bytes]
    model: str
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    tags: _containers.RepeatedScalarFieldContainer[str]
    savings: Savings
    def __init__(self, entry_id: _Optional[str] = ..., schema_tag: _Optional[str] = ..., chunks: _Optional[_Iterable[bytes]] = ..., model: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tags: _Optional[_Iterable[str]] = ..., savings: _Optional[_Union[Savings, _Mapping]] = ...) -> None: ...
