"""What can be set about who may call: MILLRACE_INFERENCE_ACCESS_*."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, model_validator

from services.inference.access.secret import is_secret
from services.inference.access.tokens import ISSUER

# RFC 7518, section 3.2: a key of HMAC with SHA-256 has as many bits as the hash at least.
JWT_SECRET_BYTES_MIN = 32
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class AccessSettings(BaseModel):
    """Who may call inference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["open", "required"] = Field(
        default="open", description="`required` refuses calls without a good key or token; `open` takes them."
    )
    pepper: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Secret under which keys are hashed, 32 characters or more, the same on every replica; unset: made "
        "once and kept in the file below.",
    )
    pepper_path: Path = Field(
        default=Path(".millrace/pepper"), description="Where a pepper that was made here is kept."
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="A key with role admin that is in no database, to begin with (`millrace keys secret`).",
    )
    first_key_path: Path | None = Field(
        default=None, description="Where an admin key is written, once, if there is no key yet; unset: none is made."
    )
    poll_s: float = Field(
        default=0.5, ge=0.05, le=1, description="Seconds between looks for keys that other replicas made or revoked."
    )
    outage_s: float = Field(
        default=900.0, ge=0, description="Seconds that known keys go on while the database is away; then 503."
    )
    services: list[str] = Field(
        default=[], description="Names in client certificates (SAN, else CN) whose holders are services."
    )
    login_ttl_s: int = Field(default=900, ge=30, le=86_400, description="Life of a token that a login gives.")
    refresh_ttl_s: int = Field(default=2_592_000, ge=60, description="Life of a refresh token.")
    login_attempts_max: int = Field(default=5, ge=1, description="Attempts to log in per minute and user name.")
    login_address_attempts_max: int = Field(default=30, ge=1, description="Attempts to log in per minute and address.")
    jwt_issuer: str = Field(default="", description="Issuer (`iss`) of tokens that others make; unset: none is taken.")
    jwt_audience: str = Field(default="", description="Audience (`aud`) that such a token must name.")
    jwt_secret: SecretStr | None = Field(
        default=None, description="Shared secret of HS256 tokens, 32 bytes or more; not together with JWKS."
    )
    jwt_jwks_file: FilePath | None = Field(default=None, description="Public keys (JWKS) of RS256 and ES256 tokens.")
    jwt_jwks_url: str = Field(default="", description="The same from an https URL; fetched again for an unknown `kid`.")
    jwt_jwks_ttl_s: float = Field(default=600.0, ge=1, description="Age at which public keys are fetched again.")
    jwt_leeway_s: float = Field(default=30.0, ge=0, le=300, description="Difference of clocks that is forgiven.")
    jwt_tenant_claim: str = Field(default="tenant", description="Claim that names the tenant.")
    jwt_role_claim: str = Field(default="role", description="Claim that names the role, or several.")
    jwt_scope_claim: str = Field(
        default="scope", description="Claim with scopes such as `model:gpt-*`, `endpoint:embed`, `profile:strict`."
    )

    @model_validator(mode="after")
    def _keys_are_keys(self) -> Self:
        if self.admin_key is not None and not is_secret(self.admin_key.get_secret_value()):
            raise ValueError("ADMIN_KEY is not a key: make one with `millrace keys secret`")
        return self

    @model_validator(mode="after")
    def _jwt_is_whole(self) -> Self:
        sources = [self.jwt_secret is not None, self.jwt_jwks_file is not None, bool(self.jwt_jwks_url)]
        if not self.jwt_issuer and not any(sources):
            return self
        if not self.jwt_issuer or not self.jwt_audience or sum(sources) != 1:
            raise ValueError("JWT_ISSUER needs JWT_AUDIENCE and one of JWT_SECRET, JWT_JWKS_FILE and JWT_JWKS_URL")
        if self.jwt_issuer == ISSUER:
            raise ValueError(f"JWT_ISSUER must not be {ISSUER!r}: that is who signs logins here")
        if self.jwt_secret and len(self.jwt_secret.get_secret_value().encode()) < JWT_SECRET_BYTES_MIN:
            raise ValueError(f"JWT_SECRET must have {JWT_SECRET_BYTES_MIN} bytes or more")
        if self.jwt_jwks_url:
            parts = urlsplit(self.jwt_jwks_url)
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
                raise ValueError("JWT_JWKS_URL must be https; http only on this machine")
        return self
