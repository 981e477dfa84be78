"""Every setting of the service. docs/configuration.md explains them."""

import re
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError
from redis.asyncio import ConnectionPool

from . import NAME
from .database_url import parse_database_url

SECRETS_DIR = Path("/run/secrets")
"""Where Docker and Kubernetes mount secrets: a file per setting, named like the setting."""

REDIS_SCHEMES = ("redis", "rediss", "unix")
DEFAULT_PORTS = {"http": 80, "https": 443}
ROOT_PATH_PATTERN = re.compile(r"(/[A-Za-z0-9._~-]+)*")
DEVELOPMENT_PASSWORDS = {"", "development", "postgres", "password", "secret", "changeme"}


class Settings(BaseSettings):
    """Settings from the environment, `.env` and `/run/secrets`, in this order of precedence.

    Times are in seconds, sizes in bytes. Raises `ValidationError` for an invalid value; the error
    never contains the value, because it may be a password.
    """

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = "development"
    api_docs: bool = Field(default_factory=lambda data: data["environment"] == "development")
    database_url: SecretStr
    database_pool_size: int = Field(10, ge=1, le=1000)
    database_pool_timeout: float = Field(2, gt=0, le=60)
    database_statement_timeout: float = Field(3, gt=0, le=600)
    redis_url: SecretStr = SecretStr("")
    redis_pool_size: int = Field(10, ge=1, le=1000)
    redis_timeout: float = Field(0.1, gt=0, le=10)
    cache_ttl: int = Field(30, ge=1, le=86_400)
    idempotency_ttl: int = Field(86_400, ge=1, le=2_592_000)
    drain_seconds: float = Field(0, ge=0, le=60)
    max_body_size: int = Field(1_048_576, ge=1)
    request_read_timeout: float = Field(30, gt=0, le=3600)
    request_timeout: float = Field(5, gt=0, le=3600)
    # NoDecode: pydantic-settings would expect a JSON array in the environment.
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    root_path: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = Field("", validate_default=True)
    jwt_jwks_url: str = ""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    app_version: str = ""
    git_sha: str = "unknown"

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        url = parse_database_url(value.get_secret_value())
        _check_password(url.password, info)
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        text = value.get_secret_value()
        if not text:  # no cache
            return value
        try:
            url = urlsplit(text)
            pool = ConnectionPool.from_url(text)
            # redis-py checks the options only when it creates a connection object. This creates
            # one, and does not connect.
            pool.make_connection()  # type: ignore[no-untyped-call]
            is_valid = url.scheme in REDIS_SCHEMES and url.port != 0
        except (ValueError, TypeError):
            is_valid = False
        if not is_valid:
            raise ValueError("must be a URL such as redis://user:password@host:port/name")
        # redis-py ignores an empty password in front of the host.
        _check_password(pool.connection_kwargs.get("password", url.password), info)
        return value

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        # Uvicorn responds to every request with 400 if there is another character in the prefix.
        if not ROOT_PATH_PATTERN.fullmatch(value):
            raise ValueError(
                "must be a path such as /api, without a trailing slash,"
                " of ASCII letters, digits and the characters . _ ~ -"
            )
        return value

    @field_validator("jwt_issuer", "jwt_jwks_url")
    @classmethod
    def _check_jwt_url(cls, value: str, info: ValidationInfo) -> str:
        is_production = info.data.get("environment") == "production"
        # Without TLS, an attacker could replace the keys in a response, and sign tokens.
        schemes = ("https",) if is_production else ("https", "http")
        if value and not _is_url(value, schemes):
            raise ValueError("must be a URL with https://, or in development with http://")
        return value

    @field_validator("jwt_issuer")
    @classmethod
    def _check_extra(cls, value: str) -> str:
        if value and not all(find_spec(package) for package in ("jwt", "cryptography")):
            raise ValueError(
                f"needs the extra `auth`: install {NAME}[auth],"
                " or build the image with `make docker-build EXTRAS=auth`"
            )
        return value

    @field_validator("jwt_audience")
    @classmethod
    def _check_jwt_audience(cls, value: str, info: ValidationInfo) -> str:
        # The issuer is missing here if it is not valid.
        if bool(value) != bool(info.data.get("jwt_issuer", value)):
            raise ValueError("must be set if JWT_ISSUER is set, and only then")
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_cors_origins(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [origin.strip() for origin in value.split(",") if origin.strip()]
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_cors_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _is_origin(origin):
                raise ValueError(
                    "must be origins as browsers send them, separated by commas, such as"
                    " https://app.example.com: lower case, no path, no trailing slash,"
                    " no default port; or * for every origin"
                )
        return value


def load_settings() -> Settings:
    """Read the settings.

    Prints one line per invalid setting to standard error and exits with code 2 if there is any.
    """
    try:
        return Settings(_secrets_dir=SECRETS_DIR if SECRETS_DIR.is_dir() else None)
    except ValidationError as error:
        # A default that depends on an invalid setting is another error, of this type.
        messages = [
            _describe_error(details)
            for details in error.errors()
            if details["type"] != "default_factory_not_called"
        ]
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        messages = [f".env or {SECRETS_DIR}: {error}"]
    print(f"{NAME}: invalid settings:", *messages, sep="\n  ", file=sys.stderr)
    sys.exit(2)


def _describe_error(details: ErrorDetails) -> str:
    """The name of a setting and what is wrong with it."""
    name = str(details["loc"][0]).upper()
    return f"{name}: {details['msg'].removeprefix('Value error, ')}"


def _check_password(password: str | None, info: ValidationInfo) -> None:
    """In production, raise ValueError for an empty or a well-known password."""
    if info.data.get("environment") != "production":
        return
    # None passes: other ways to authenticate need no password in the URL.
    if password in DEVELOPMENT_PASSWORDS:
        raise ValueError("has an empty password, or a password for development, in production")


def _is_url(text: str, schemes: Collection[str]) -> bool:
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and url.port != 0
    except ValueError:
        return False
    return url.scheme in schemes and has_host and text.isascii() and text.split() == [text]


def _is_origin(text: str) -> bool:
    """Whether a browser could send this as `Origin` (RFC 6454, section 6.2)."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return False
    return (
        text == f"{url.scheme}://{url.netloc}"
        and bool(url.hostname)
        and "@" not in url.netloc
        and text.isascii()
        and text == text.lower()
        and (port is None or port != DEFAULT_PORTS.get(url.scheme))
    )
