"""The code that travels with a model: the modules that serve it, as a package of their own.

pipeline.serving and what it imports -> classifier_3f2a91c0/. Named after its content, so that an
application may have a package `pipeline`, and two versions of a model live in one process.
"""

import ast
import hashlib
from pathlib import Path

_HERE = Path(__file__).parents[1]
_NAME = _HERE.name
_STARTS = ("serving/__init__.py", "serving/pyfunc.py")
ENTRY = "serving.pyfunc"
"""The module in it that MLflow loads a model with."""


def pack(folder: Path) -> Path:
    """Write the package into a folder; returns its path.

    Args:
        folder: Exists.
    """
    files = closure()
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.as_posix().encode() + b"\0" + (_HERE / file).read_bytes() + b"\0")
    package = folder / f"classifier_{digest.hexdigest()[:8]}"
    for file in files:
        target = package / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed((_HERE / file).read_text(encoding="utf-8"), package.name))
    return package


def closure() -> list[Path]:
    """The files that serving a model needs, relative to this package, sorted."""
    found: set[Path] = set()
    waiting = {Path(start) for start in _STARTS}
    while waiting:
        file = waiting.pop()
        found.add(file)
        tree = ast.parse((_HERE / file).read_text(encoding="utf-8"))
        named = {name for node in _imports(tree) for name in _modules(node)}
        waiting |= {file for name in named for file in _files(name)} - found
    return sorted(found)


def _imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """What a module imports from this package when it runs, wherever in it."""
    for_types = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    ]
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] == _NAME
        and node not in for_types
    ]


def _modules(node: ast.ImportFrom) -> set[str]:
    """Names that may be modules: what is imported from, and what of it."""
    return {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}


def _files(name: str) -> set[Path]:
    """Files that are run when a module is imported: its packages' and its own, if it is one."""
    parts = name.split(".")[1:]
    faces = [Path(*parts[:length]) / "__init__.py" for length in range(len(parts) + 1)]
    candidates = [*faces, Path(*parts).with_suffix(".py") if parts else faces[0]]
    return {file for file in candidates if (_HERE / file).is_file()}


def _renamed(source: str, name: str) -> str:
    """A module that imports from the package of another name."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _NAME:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line.replace(f"from {_NAME}", f"from {name}", 1)
    return "".join(lines)
