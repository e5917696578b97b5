"""Text that is on every machine with Python: docstrings of installed packages, topics of the standard library."""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from electrain.data.text.text_files import RawText, in_pieces

_SKIPPED_FOLDERS = {"test", "tests", "idlelib", "__pycache__", "site-packages", "dist-packages"}
_MAXIMUM_SOURCE_BYTES = 2 << 20  # larger files are tables written by programs; parsing them takes much memory
_MINIMUM_CHARACTERS = 200  # shorter docstrings are headings rather than texts


def read_documentation() -> Iterator[RawText]:
    """Yields the topics of `help()`, then one document per Python file: its docstrings. Nothing is imported.

    The order is that of file names: standard library first, then the installed packages.
    """
    library = Path(sysconfig.get_path("stdlib"))
    packages = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    seen: set[int] = set()  # hashes of the texts: packages bring copies of each other's files
    for text, source in _texts(library, sorted(packages)):
        if len(text) >= _MINIMUM_CHARACTERS and hash(text) not in seen:
            seen.add(hash(text))
            yield from in_pieces(text, source)


def _texts(library: Path, packages: list[Path]) -> Iterator[tuple[str, str]]:
    topics = _parse(library / "pydoc_data" / "topics.py")
    for statement in topics.body if topics else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for name, text in ast.literal_eval(statement.value).items():
                yield text, f"topic {name}"
    for folder in [library, *packages]:
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if not _SKIPPED_FOLDERS.intersection(relative.parts):
                yield _read_docstrings(path), str(relative)


def _read_docstrings(path: Path) -> str:
    tree = _parse(path)
    if tree is None:
        return ""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return "\n\n".join(filter(None, (ast.get_docstring(one) for one in ast.walk(tree) if isinstance(one, documented))))


def _parse(path: Path) -> ast.Module | None:
    try:
        if path.stat().st_size > _MAXIMUM_SOURCE_BYTES:
            return None
        source = path.read_text("utf-8")
        if '"""' not in source and "'''" not in source:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None
