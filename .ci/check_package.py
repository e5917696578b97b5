"""What a wheel and a source distribution hold, compared with the checkout that they were built from.

python .ci/check_package.py SOURCE DIST      everything inside, metadata right
python .ci/check_package.py --same WHEEL WHEEL
"""

import ast
import email
import email.message
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import parse_sdist_filename, parse_wheel_filename

# Kept out of a source distribution on purpose: nothing.
MADE_BY_BUILD = {"PKG-INFO", "setup.cfg"}


def tracked(folder: Path) -> set[str]:
    """Every file of the checkout, through its links to folders."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_symlink() and path.is_dir():
            found |= {str((path / inside.name).relative_to(folder)) for inside in path.iterdir() if inside.is_file()}
        elif path.is_file() and "__pycache__" not in path.parts and "egg-info" not in str(path):
            found.add(str(path.relative_to(folder)))
    return {name for name in found if not name.startswith("build/")}


def version_of(source: Path) -> str:
    """The one place of the version."""
    for node in ast.parse((source / "src/electrain/__init__.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise SystemExit("package: electrain/__init__.py has no __version__")


def require(expected: set[str], found: set[str], what: str) -> None:
    """Ends the check where the two sets differ."""
    if expected != found:
        raise SystemExit(
            f"package: {what}: missing {sorted(expected - found)[:9]}, unexpected {sorted(found - expected)[:9]}"
        )


def check_wheel(source: Path, path: Path) -> None:
    """All files of the package, no other, and metadata that an index accepts."""
    name, version, _, tags = parse_wheel_filename(path.name)
    assert (name, str(version), {str(tag) for tag in tags}) == ("electrain", version_of(source), {"py3-none-any"})
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        information = f"electrain-{version}.dist-info/"
        inside = {each for each in names if not each.startswith(information)}
        expected = {each.removeprefix("src/") for each in tracked(source) if each.startswith("src/")}
        require(expected, inside, path.name)
        for needed in ("py.typed", "pretraining/presets/small.toml", "finetuning/recipes/sst2.toml"):
            assert f"electrain/{needed}" in inside, needed
        assert f"{information}licenses/LICENSE" in names
        assert b"electrain = electrain.cli.app:main" in archive.read(f"{information}entry_points.txt")
        check_metadata(source, archive.read(f"{information}METADATA"))


def check_metadata(source: Path, raw: bytes) -> None:
    """Name, version, licence, ranges and extras are those of pyproject.toml, and the README is the description."""
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = Metadata.from_email(raw, validate=True)
    assert metadata.name == "electrain"
    assert str(metadata.version) == version_of(source)
    assert "version" in project["dynamic"]
    assert metadata.license_expression == "Apache-2.0"
    assert not any(one.startswith("License ::") for one in metadata.classifiers or [])
    assert str(metadata.requires_python) == project["requires-python"]
    assert metadata.classifiers == project["classifiers"]
    assert metadata.summary == project["description"]
    urls = dict(metadata.project_urls or {})
    assert urls == project.get("urls", {})
    extras = project["optional-dependencies"]
    assert set(metadata.provides_extra or []) == set(extras)
    requirements = metadata.requires_dist or []
    require(
        {str(Requirement(one)) for one in project["dependencies"]},
        {str(one) for one in requirements if one.marker is None},
        "Requires-Dist",
    )
    assert len([one for one in requirements if one.marker is not None]) == sum(map(len, extras.values()))
    assert metadata.description_content_type == "text/markdown"
    message = email.message_from_bytes(raw)
    description = message.get_payload() if metadata.description is None else metadata.description
    assert str(description).strip() == (source / "README.md").read_text("utf-8").strip()


def check_source_distribution(source: Path, path: Path) -> None:
    """Every tracked file, no link, nothing outside its folder."""
    name, version = parse_sdist_filename(path.name)
    root = f"{name}-{version}/"
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert all(one.name == root.rstrip("/") or one.name.startswith(root) for one in members)
    assert all(one.isfile() or one.isdir() for one in members), "links do not unpack everywhere"
    inside = {one.name.removeprefix(root) for one in members if one.isfile()}
    made = {one for one in inside if one in MADE_BY_BUILD or ".egg-info/" in one}
    require(tracked(source), inside - made, path.name)


def check_same(one: Path, other: Path) -> None:
    """Both wheels hold the same files with the same content."""
    contents = []
    for path in (one, other):
        with zipfile.ZipFile(path) as archive:
            contents.append({info.filename: info.CRC for info in archive.infolist()})
    require({str(pair) for pair in contents[0].items()}, {str(pair) for pair in contents[1].items()}, other.name)


if __name__ == "__main__":
    if sys.argv[1] == "--same":
        check_same(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        source, built = Path(sys.argv[1]), Path(sys.argv[2])
        check_wheel(source, next(built.glob("*.whl")))
        check_source_distribution(source, next(built.glob("*.tar.gz")))
