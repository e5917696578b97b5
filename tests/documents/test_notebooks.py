"""The notebooks were executed as they stand, show nothing of the machine, and run again at a reduced size."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# What each assigns in its first cell, and a value with which it takes seconds.
REDUCED = {
    "own_language.ipynb": {"STEPS": "10", "CHARACTERS": "300_000"},
    "reviews_with_500_labels.ipynb": {"STEPS": "10", "EPOCHS": "1", "LABELS": "100"},
}
MOST_BYTES = 200_000
# Absolute paths, and where packages are installed; a link to another page is none.
_PATHS = re.compile(r"(?<![\w:/.])/(?:home|root|tmp|work|usr|opt|Users|var|mnt|data)/|[A-Z]:\\|site-packages")


def notebook(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EXAMPLES / name).read_text("utf-8"))
    return content


def code_cells(name: str) -> list[dict[str, Any]]:
    return [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.ipynb")} == set(REDUCED)


@pytest.mark.parametrize("name", REDUCED)
def test_it_was_executed_from_first_to_last(name: str) -> None:
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html", "text/plain"} <= kinds, "a plot and tables"
    assert (EXAMPLES / name).stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", REDUCED)
def test_it_shows_nothing_of_the_machine(name: str) -> None:
    shown = [
        "".join(text)
        for cell in code_cells(name)
        for output in cell["outputs"]
        for text in [
            output.get("text", ""),
            *(part for kind, part in output.get("data", {}).items() if "png" not in kind),
        ]
    ]
    assert not [text for text in shown if _PATHS.search(text)]


@pytest.mark.parametrize("name", REDUCED)
def test_its_links_lead_somewhere(name: str) -> None:
    for cell in notebook(name)["cells"]:
        for target in re.findall(
            r"\]\(([^)#]+?)\)", "".join(cell["source"]) if cell["cell_type"] == "markdown" else ""
        ):
            assert target.startswith("https://") or (EXAMPLES / target).exists(), target


@pytest.mark.slow
@pytest.mark.parametrize("name", REDUCED)
def test_it_runs_again(name: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    found = nbformat.read(EXAMPLES / name, as_version=4)
    first = next(cell for cell in found.cells if cell.cell_type == "code")
    for variable, value in REDUCED[name].items():
        first.source, count = re.subn(rf"(?m)^{variable} = \S+", f"{variable} = {value}", first.source)
        assert count == 1, variable
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(found, kernel_name="python3", timeout=600, resources=place).execute()
    for cell in found.cells:
        for output in cell.get("outputs", []):
            assert "image/png" not in output.get("data", {}) or len(output["data"]["image/png"]) > 1000
    assert any(tmp_path.rglob("report.html"))
