"""The libraries that electrain needs: which versions it accepts, which are installed, and what the extras are for."""

import importlib.metadata
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

# What the extras of pyproject.toml are for; that of developers is left out.
PURPOSES = {
    "tasks": "scores of fine-tuned translation, summarization and tagging",
    "chinese": "masking whole Chinese words",
    "serve": "answering requests over HTTP, and the page",
    "export": "writing and asking ONNX models",
    "track": "curves in TensorBoard",
    "docs": "building the documents as a site",
}
# Modules that are not called like their package.
_MODULES = {"scikit-learn": "sklearn"}
_PROJECT = Path(__file__).parents[4] / "pyproject.toml"


@dataclass(frozen=True)
class Package:
    """A library beside the versions that are accepted."""

    name: str
    accepted: str  # such as ">=2.11"
    installed: str  # "" if it is missing
    state: str  # ok | too old | too new | missing | broken
    reason: str = ""  # why it cannot be imported

    @property
    def module(self) -> str:
        """The name to import."""
        return _MODULES.get(self.name, self.name.replace("-", "_"))

    def to_dict(self) -> dict[str, str]:
        """As the answer holds it."""
        return {name: value for name, value in asdict(self).items() if name != "reason" or value}


def requirements() -> dict[str, list[Requirement]]:
    """What electrain needs, under "", and what each of its extras adds. Empty if nothing tells it."""
    try:
        declared = importlib.metadata.requires("electrain") or []
    except importlib.metadata.PackageNotFoundError:
        return _of_checkout()
    found: dict[str, list[Requirement]] = {"": []}
    for line in declared:
        requirement = Requirement(line)
        marker = requirement.marker
        extras = [extra for extra in PURPOSES if marker is not None and marker.evaluate({"extra": extra})]
        for name in extras if marker is not None and not marker.evaluate({"extra": ""}) else [""]:
            found.setdefault(name, []).append(requirement)
    return found


def _of_checkout() -> dict[str, list[Requirement]]:
    """Of a checkout that was not installed."""
    try:
        project = tomllib.loads(_PROJECT.read_text("utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return {"": []}
    extras = {name: project["optional-dependencies"].get(name, []) for name in PURPOSES}
    return {
        name: [Requirement(line) for line in lines] for name, lines in ({"": project["dependencies"]} | extras).items()
    }


def package_of(requirement: Requirement) -> Package:
    """The installed version, and whether it is accepted; nothing is imported."""
    accepted = str(requirement.specifier)
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Package(requirement.name, accepted, "", "missing")
    state = "ok"
    if not requirement.specifier.contains(_public(installed), prereleases=True):
        lower = [Version(one.version) for one in requirement.specifier if one.operator in (">=", ">", "~=")]
        state = "too old" if any(_public(installed) < one for one in lower) else "too new"
    return Package(requirement.name, accepted, installed, state)


def _public(version: str) -> Version:
    """The version without what a build adds, such as +cpu; 0 if it cannot be understood."""
    try:
        return Version(Version(version).public)
    except InvalidVersion:
        return Version("0")
