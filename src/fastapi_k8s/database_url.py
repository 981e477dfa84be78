"""What DATABASE_URL may contain: the options of libpq, as far as asyncpg can fulfil them.

See https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS.
"""

import re
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

URL_HINT = "must be a URL such as postgresql://user:password@host:port/name"
MAX_PORT = 65535
HOST_PATTERN = re.compile(r"(/.+|\[[^]]+\]|[^][:]+)(:(?P<port>.*))?")
"""The folder of a Unix socket, an IPv6 address in brackets, or a name or address, with a port."""

PASSED_OPTIONS = {
    "application_name",
    "database",
    "dbname",
    "gsslib",
    "host",
    "krbsrvname",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
    "user",
}
"""Options that asyncpg implements, or sends to the server as libpq does."""

IGNORED_OPTIONS = {
    "channel_binding",
    "connect_timeout",
    "connection_limit",  # Prisma
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "pgbouncer",  # Prisma
    "pool_timeout",  # Prisma
    "socket_timeout",  # Prisma
    "sslcompression",
    "sslsni",
    "supa",  # Vercel's integration of Supabase
    "tcp_user_timeout",
    "uselibpqcompat",  # node-postgres
}
"""Options without which the connection works as intended. The service has its own timeouts.

asyncpg would send them to the server, which refuses them.
"""

ALLOWED_VALUES = {
    "client_encoding": ("auto", "utf8", "UTF8", "utf-8", "UTF-8"),
    "gssencmode": ("disable", "prefer"),
    "sslmode": ("allow", "disable", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("direct", "postgres"),
    "ssl_max_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3"),
    "target_session_attrs": (
        "any",
        "prefer-standby",
        "primary",
        "read-only",
        "read-write",
        "standby",
    ),
}
"""Options of which only these values work.

`client_encoding` and `gssencmode` are then ignored: asyncpg always uses UTF-8 and never GSSAPI
encryption.
"""

REPLACEMENTS = {
    "encoding": "remove it: the encoding is always UTF-8",
    "hostaddr": "use host",
    "require_auth": "remove it: sslmode=verify-full protects the password",
    "schema": "use options=-csearch_path%3DNAME",
    "search_path": "use options=-csearch_path%3DNAME",
    "servicefile": "set PGSERVICEFILE",
    "ssl": "use sslmode=require",
    "sslaccept": "use sslmode",
    "sslcrldir": "use sslcrl",
}
"""What to do about well-known options that asyncpg cannot fulfil."""

SYSTEM_CERTIFICATES = "system"
"""The value of `sslrootcert` for the certificate authorities that OpenSSL trusts by default."""

TLS_OPTIONS = {
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslpassword",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
}
"""Options that asyncpg ignores if it trusts the system's certificate authorities."""


@dataclass(frozen=True)
class DatabaseUrl:
    """A valid DATABASE_URL.

    `dsn` is for asyncpg. If `uses_system_certificates`, asyncpg has to verify the server's
    certificate with the certificate authorities that OpenSSL trusts by default.
    """

    dsn: str
    password: str | None
    uses_system_certificates: bool


def parse_database_url(text: str) -> DatabaseUrl:
    """Check a DATABASE_URL, and remove what asyncpg does not need.

    Raises ValueError with a sentence that never contains a value of the URL.
    """
    url = _split_url(text)
    options = _parse_options(url.query)
    # Before the names of the options, which an error shows: if the password contains an unquoted
    # question mark, the rest of it looks like an option.
    _check_hosts(url, options)
    for name, value in options.items():
        _check_option(name, value)
    uses_system_certificates = options.get("sslrootcert") == SYSTEM_CERTIFICATES
    if uses_system_certificates:
        _check_system_certificates(options)
        options = {
            name: value for name, value in options.items() if name not in {"sslrootcert", "sslmode"}
        }
    else:
        _check_certificate_files(options)
    passed_options = {name: value for name, value in options.items() if name in PASSED_OPTIONS}
    return DatabaseUrl(
        dsn=url._replace(query=urlencode(passed_options, quote_via=quote)).geturl(),
        password=_find_password(url, options),
        uses_system_certificates=uses_system_certificates,
    )


def _split_url(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
    except ValueError:
        raise ValueError(URL_HINT) from None
    if url.scheme not in {"postgresql", "postgres"} or url.fragment:
        raise ValueError(URL_HINT)
    if url.netloc.count("@") > 1:
        # asyncpg and libpq end the password at the first one.
        raise ValueError("write the @ in the password or in the user name as %40")
    return url


def _parse_options(query: str) -> dict[str, str]:
    """The options that have a value. If an option is repeated, the last one counts, as in libpq."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise ValueError("must have options in the form name=value&name=value") from None
    return {name: value for name, value in pairs if value}


def _check_option(name: str, value: str) -> None:
    if name in ALLOWED_VALUES:
        if value not in ALLOWED_VALUES[name]:
            raise ValueError(f"{name} must be one of {', '.join(ALLOWED_VALUES[name])}")
    elif name not in PASSED_OPTIONS | IGNORED_OPTIONS:
        advice = REPLACEMENTS.get(name, "remove it, or use options=-cNAME%3DVALUE for a parameter")
        raise ValueError(f"has the option {name}, which does not work here: {advice}")


def _check_hosts(url: SplitResult, options: dict[str, str]) -> None:
    """Raise ValueError unless each host is complete and has at most one valid port."""
    _, _, authority_hosts = url.netloc.rpartition("@")
    for hosts in (authority_hosts, options.get("host", "")):
        if hosts and not all(_is_host(host) for host in hosts.split(",")):
            raise ValueError(URL_HINT)
    ports = options.get("port", "")
    if ports and not all(_is_port(port) for port in ports.split(",")):
        raise ValueError("port must be a number from 1 to 65535, or one for each host")


def _is_host(text: str) -> bool:
    match = HOST_PATTERN.fullmatch(text)
    return match is not None and (not match["port"] or _is_port(match["port"]))


def _is_port(text: str) -> bool:
    return text.isdecimal() and 1 <= int(text) <= MAX_PORT


def _check_system_certificates(options: dict[str, str]) -> None:
    # The default of sslmode is verify-full here. libpq refuses all other modes too.
    if options.get("sslmode", "verify-full") != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    conflicting_options = sorted(TLS_OPTIONS & options.keys())
    if conflicting_options:
        raise ValueError(
            f"{conflicting_options[0]} does not work with sslrootcert=system:"
            " use a file as sslrootcert"
        )


def _check_certificate_files(options: dict[str, str]) -> None:
    """Load the files once. asyncpg would fail in each connection, as if PostgreSQL was down."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("sslrootcert", "sslcrl"):
        if name in options:
            try:
                context.load_verify_locations(cafile=options[name])
            except OSError as error:
                raise ValueError(f"{name} cannot be loaded: {error.strerror}") from None
    if "sslcert" in options:
        password = options.get("sslpassword", "")
        try:
            context.load_cert_chain(options["sslcert"], options.get("sslkey"), lambda: password)
        except OSError as error:
            raise ValueError(f"sslcert or sslkey cannot be loaded: {error.strerror}") from None


def _find_password(url: SplitResult, options: dict[str, str]) -> str | None:
    """The password that asyncpg would use. None if the URL has none, "" if it is empty."""
    in_authority = None if url.password is None else unquote(url.password)
    return in_authority or options.get("password", in_authority)
