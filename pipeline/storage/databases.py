"""Whether a database is one that this version of MLflow or Optuna can use; nothing is changed.

address + tool -> what is wrong with it, in words. Both tools adopt databases of others, and MLflow
migrates old ones in silence, after which the MLflow that made them reads them no more.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from pipeline.storage import addresses

_VERSION_TABLE = "alembic_version"


@dataclass(frozen=True)
class Tool:
    """A program that keeps its tables in a database, and numbers their form with Alembic.

    Attributes:
        name: As people know it.
        package: Its distribution.
        scripts: Folder of the forms it knows, inside the package.
        tables: Some that it always makes.
        upgrade: Command that brings an older database up to date; `{address}` stands for it.
        setting: That names the database.
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


def unfit(address: str, tool: Tool) -> str:
    """Why a database is not one for a tool, with what to do; empty if it is, or is empty.

    Args:
        address: As SQLAlchemy takes it; that the database answers is taken for granted.
        tool: That is to use it.
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
        # A server's database may be shared; a file is a program's own.
        foreign = not own and make_url(address).get_backend_name() == "sqlite"
        return f"it holds another program's tables ({min(tables)} ...): {elsewhere}" * foreign
    query = text(f"SELECT version_num FROM {_VERSION_TABLE}")
    found = [str(revision) for (revision,) in connection.execute(query)]
    if not found:
        return ""
    known, newest = _forms(tool)
    here = f"{tool.name} {importlib.metadata.version(tool.package)}"
    shown = addresses.shown(address)
    if found == [newest]:
        return ""
    if set(found) <= known:
        return (
            f"an older {tool.name} made it than {here}, and would read it no more once it is "
            f"upgraded: back it up, then run {tool.upgrade.format(address=shown)}"
        )
    for other in (MLFLOW, OPTUNA):
        if other is not tool and set(found) <= _forms(other)[0]:
            return f"it is {other.name}'s, and {tool.name} needs one of its own: {elsewhere}"
    if own:
        return (
            f"a newer {tool.name} made it than {here}: use the environment that made it, or "
            f"{elsewhere}"
        )
    return f"it holds another program's tables ({min(tables)} ...): {elsewhere}"


def _forms(tool: Tool) -> tuple[set[str], str | None]:
    """The forms of tables that the installed tool knows, and the newest."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    spec = importlib.util.find_spec(tool.package)
    assert spec is not None
    assert spec.submodule_search_locations
    config = Config()
    folder = Path(spec.submodule_search_locations[0], tool.scripts)
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    return {script.revision for script in scripts.walk_revisions()}, scripts.get_current_head()
