"""Check that a database suits this version of MLflow or Optuna, without changing it.

address + tool -> what is wrong. Both tools adopt foreign databases, and MLflow silently migrates
old ones, which older MLflow versions then cannot read.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline.storage import addresses

_VERSION_TABLE = "alembic_version"


@dataclass(frozen=True)
class Tool:
    """A program with tables in a database, versioned by Alembic.

    Attributes:
        name: Display name.
        package: Distribution name.
        scripts: Folder of the migrations, inside the package.
        tables: Some tables that always exist.
        upgrade: Command that upgrades an older database; `{address}` is replaced.
        setting: Setting that names the database.
    """

    name: str
    package: str
    scripts: str
    tables: frozenset[str]
    upgrade: str
    setting: str


MLFLOW = Tool(
    *("MLflow", "mlflow", "store/db_migrations", frozenset({"experiments", "runs"})),
    *("mlflow db upgrade {address}", "tracking.uri"),
)
OPTUNA = Tool(
    *("Optuna", "optuna", "storages/_rdb/alembic", frozenset({"studies", "trials"})),
    *("optuna storage upgrade --storage {address}", "sweep.storage"),
)


_REVISION = re.compile(r"^revision(?:: str)? = [\"'](\w[\w.]*)[\"']", re.MULTILINE)
_BELOW = re.compile(r"^down_revision.*$", re.MULTILINE)
_NAME = re.compile(r"[\"'](\w[\w.]*)[\"']")


def unfit(address: str, tool: Tool) -> str:
    """Explain why a tool cannot use a database, with a remedy; empty if it can.

    Args:
        address: SQLAlchemy URL of a database that answers.
        tool: The program that should use it.
    """
    engine = create_engine(address)
    try:
        with engine.connect() as connection:
            return _unfit(connection, address, tool)
    except SQLAlchemyError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        return addresses.without_secrets(f"{cause}: is it a database?", address)
    finally:
        engine.dispose()


def _unfit(connection: Connection, address: str, tool: Tool) -> str:
    tables = set(inspect(connection).get_table_names())
    own = tables >= tool.tables
    elsewhere = f"choose another address for {tool.setting}"
    if not tables:
        return ""
    if _VERSION_TABLE not in tables:
        # A server's database may be shared; a file belongs to one program.
        foreign = not own and make_url(address).get_backend_name() == "sqlite"
        return f"it holds another program's tables ({min(tables)} ...): {elsewhere}" * foreign
    query = text(f"SELECT version_num FROM {_VERSION_TABLE}")
    revisions = [str(revision) for (revision,) in connection.execute(query)]
    if not revisions:
        return ""
    supported, newest = _migrations(tool)
    here = f"{tool.name} {importlib.metadata.version(tool.package)}"
    if revisions == [newest]:
        return ""
    if set(revisions) <= supported:
        return (
            f"it was created by an older version than {here}, which could not read it any more "
            f"after an upgrade: back it up, then run "
            f"{tool.upgrade.format(address=addresses.public(address))}"
        )
    for other in (MLFLOW, OPTUNA):
        if other is not tool and set(revisions) <= _migrations(other)[0]:
            return f"it belongs to {other.name}, and {tool.name} needs its own: {elsewhere}"
    if own:
        return (
            f"it was created by a newer version than {here}: use the environment that created it, "
            f"or {elsewhere}"
        )
    return f"it holds another program's tables ({min(tables)} ...): {elsewhere}"


def _migrations(tool: Tool) -> tuple[set[str], str | None]:
    """List the migrations that the installed tool supports, and the newest.

    From the text of its scripts: alembic imports them all, which takes a second.
    """
    spec = importlib.util.find_spec(tool.package)
    assert spec is not None
    assert spec.submodule_search_locations
    scripts = Path(spec.submodule_search_locations[0], tool.scripts, "versions").glob("*.py")
    texts = [path.read_text(encoding="utf-8") for path in scripts]
    revisions = {match[1] for text in texts for match in _REVISION.finditer(text)}
    below = {
        name for text in texts for line in _BELOW.findall(text) for name in _NAME.findall(line)
    }
    return revisions, next(iter(revisions - below), None)
