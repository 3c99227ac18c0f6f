"""The tables of access: keys, what is kept of their secrets, users and their refresh tokens.

No row holds a secret: keys and refresh tokens are kept as digests under the pepper, passwords as argon2id hashes.
`access_state` has one row. Whoever changes a key or disables a user raises its version first, and thereby holds it
until the change is committed: versions become visible in their order, so that a reader who asks for what came after one
misses none.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from services.inference.database.schema import metadata

state = Table(
    "access_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("pepper_check", String(64), nullable=False),  # tells a wrong pepper from wrong keys; empty at first
)

keys = Table(
    "access_keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("prefix", String(16), nullable=False),
    Column("tenant", String(256), nullable=False),
    Column("principal", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("models", Text, nullable=False),  # JSON, like the next two
    Column("endpoints", Text, nullable=False),
    Column("safety_profiles", Text, nullable=False),
    Column("created_time_ms", BigInteger, nullable=False),
    Column("expire_time_ms", BigInteger),
    Column("revoke_time_ms", BigInteger),
    Column("version", BigInteger, nullable=False),
    Index(None, "version"),
    Index(None, "created_time_ms", "key_id"),
)

secrets = Table(
    "access_secrets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("expire_time_ms", BigInteger),
    Index(None, "key_id"),
)

users = Table(
    "access_users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password_hash", String(256), nullable=False),
    Column("tenant", String(256), nullable=False),
    Column("role", String(16), nullable=False),
    Column("tier", String(64), nullable=False),
    Column("created_time_ms", BigInteger, nullable=False),
    Column("disable_time_ms", BigInteger),
)

refresh_tokens = Table(
    "access_refresh_tokens",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("login_id", String(64), nullable=False),  # of all that came of one login
    Column("user_name", String(64), nullable=False),
    Column("expire_time_ms", BigInteger, nullable=False),
    Column("use_time_ms", BigInteger),
    Index(None, "login_id"),
    Index(None, "user_name"),
    Index(None, "expire_time_ms"),
)
