"""The documents become a site without a warning, whose links lead somewhere and which loads nothing from elsewhere."""

import logging
import re
import socket
from pathlib import Path

import pytest
from test_documents import anchors, links_of

import electrain

pytest.importorskip("mkdocs", reason='the site needs pip install "electrain[docs]"')
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[2]
# What a browser fetches by itself when it opens a page.
FETCHED = r"<(?:script|img|iframe|source|audio|video)[^>]*\ssrc=\"?([^\" >]+)|<link[^>]*\shref=\"?([^\" >]+)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)

    def refuse(*_: object) -> None:
        raise OSError("the site is built without a network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    logging.getLogger("mkdocs").removeHandler(handler)
    assert not warnings
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()


def test_the_site_has_every_example_and_leads_to_it(site: Path) -> None:
    page = (site / "examples.html").read_text("utf-8")
    for example in sorted((ROOT / "examples").glob("*.*")):
        assert f'href="examples/{example.name}"' in page
        assert (site / "examples" / example.name).read_bytes() == example.read_bytes()


def test_the_reference_describes_every_public_name(site: Path) -> None:
    page = (site / "reference.html").read_text("utf-8")
    assert [name for name in electrain.__all__ if name[0] != "_" and f'id="electrain.{name}"' not in page] == []


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        for found in re.findall(FETCHED, page.read_text("utf-8")):
            target = "".join(found)
            assert not re.match(r"(?:https?:)?//", target), f"{page.name} loads {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text("utf-8")), style.name


def test_the_navigation_names_every_page_but_those_left_out_on_purpose() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named <= pages
    assert pages - named <= {"newcomers-hour.md"}


@pytest.mark.parametrize("name", ["README.md", "README.zh.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_headings_that_links_name_are_there(name: str) -> None:
    """Within docs/, the site's builder checks this."""
    path = ROOT / name
    for target, anchor in links_of(path) if path.exists() else []:
        if anchor:
            assert anchor in anchors(path.parent / target if target else path), f"{target}#{anchor}"


def test_pictures_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture.stat().st_size > 100_000] == []
