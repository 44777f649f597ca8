"""Addresses of databases and servers: hide secrets, and check that a database answers.

URL -> URL without its password; URL -> why it cannot be reached.
"""

from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pipeline.errors import HIDDEN, redacted, shortened

_SECRETS = ("password", "passwd", "pwd", "sslpassword")
_TIMEOUT_S = 10
_DATABASES = ("sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle")


def public(address: str) -> str:
    """Replace every password in an address with `***`."""
    if "://" not in address and "@" in address:
        return f"{HIDDEN}@{address.rpartition('@')[2]}"
    return redacted(address)


def of_file(path: Path) -> str:
    """Return the address of an SQLite file, whose path may contain `?` and `%`."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def without_secrets(text: str, address: str) -> str:
    """Remove an address's secrets from a message."""
    try:
        url = make_url(address)
    except ArgumentError:
        return text.replace(address, public(address))
    text = text.replace(address, public(address))
    query = url.normalized_query.items()
    listed = [value for name, values in query if name.lower() in _SECRETS for value in values]
    for secret in filter(None, [url.password, *listed]):
        text = text.replace(str(secret), HIDDEN)
    return text


def is_database(address: str) -> bool:
    """Check for a database address, as opposed to a server's or a folder's."""
    try:
        return make_url(address).get_backend_name() in _DATABASES
    except ArgumentError:
        return False


def unreachable(address: str) -> str:
    """Explain why a database does not answer, without passwords; empty if it does."""
    url = make_url(address)
    postgresql = url.get_backend_name() == "postgresql"
    arguments = {"connect_timeout": _TIMEOUT_S} if postgresql else {}
    try:
        engine = create_engine(url, connect_args=arguments)
        with engine.connect():
            pass
        engine.dispose()
    except (ImportError, NoSuchModuleError) as error:
        driver = "pip install 'psycopg[binary]'" if postgresql else "install that module"
        return without_secrets(
            f"its driver is not installed ({shortened(str(error))}): {driver}", address
        )
    except SQLAlchemyError as error:
        cause = error.__cause__ or error
        return without_secrets(shortened(str(cause)), address)
    return ""
