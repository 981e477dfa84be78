"""Every setting. docs/configuration.md explains each, and a test holds the two together."""

import sys
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError
from redis.asyncio import ConnectionPool

from . import NAME

SECRETS = Path("/run/secrets")
SCHEMES = {"database_url": ("postgresql", "postgres"), "redis_url": ("redis", "rediss", "unix")}
SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
DEVELOPMENT_PASSWORDS = {"", "development", "postgres", "password", "secret", "changeme"}


class Settings(BaseSettings):
    """From the environment, `.env` and `/run/secrets`. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = "development"
    database_url: SecretStr
    database_pool_size: int = Field(10, ge=1, le=1000)
    database_acquire_timeout: float = Field(2, gt=0, le=60)
    database_statement_timeout: float = Field(5, gt=0, le=600)
    redis_url: SecretStr = SecretStr("")
    redis_timeout: float = Field(0.1, gt=0, le=10)
    cache_ttl: int = Field(30, ge=1, le=86_400)
    idempotency_ttl: int = Field(86_400, ge=1, le=2_592_000)
    drain_seconds: float = Field(0, ge=0, le=60)
    max_body_size: int = Field(1_048_576, ge=1)
    cors_origins: str = ""
    root_path: str = Field("", pattern="^(/.*[^/])?$")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    app_version: str = ""
    git_sha: str = "unknown"

    @field_validator("database_url", "redis_url")
    @classmethod
    def _is_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        schemes, text = SCHEMES[str(info.field_name)], value.get_secret_value()
        if info.field_name == "redis_url" and not text:
            return value
        try:
            url = urlsplit(text)
            usable = url.scheme in schemes and url.port != 0
            if usable and schemes is SCHEMES["redis_url"]:
                ConnectionPool.from_url(text).make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError):
            usable = False
        if not usable:  # what was given stays unsaid: it may hold a password
            raise ValueError(f"must be a URL such as {schemes[0]}://user:password@host:port/name")
        if not SSL_MODES.issuperset(parse_qs(url.query).get("sslmode", [])):
            raise ValueError(f"sslmode must be one of {', '.join(sorted(SSL_MODES))}")
        if info.data.get("environment") == "production" and url.password in DEVELOPMENT_PASSWORDS:
            raise ValueError("has no password, or a password for development, in production")
        return value


def load_settings() -> Settings:
    """Read the settings, or print a line for each wrong one and leave with exit code 2."""
    try:
        return Settings(_secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except ValidationError as error:
        problems = [f"{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors()]
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        problems = [f".env or {SECRETS}: {error}"]
    print(f"{NAME}: these settings are wrong:", *problems, sep="\n  ", file=sys.stderr)
    sys.exit(2)
