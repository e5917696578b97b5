"""A hook of MkDocs: the programs and notebooks of examples/ become files of the site.

In docs/ they are linked as ../examples/NAME, which is where they stand in the repository.
"""

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

EXAMPLES = Path(__file__).parents[1] / "examples"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the examples to the files of the site."""
    for path in sorted(EXAMPLES.iterdir()):
        if path.suffix in (".py", ".ipynb"):
            files.append(File.generated(config, f"examples/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lets the links of a page lead to these files."""
    return markdown.replace("](../examples/", "](examples/")
