"""The site builds without a warning and without a network; its links and anchors lead somewhere."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browser import EXECUTABLE, Browser

ROOT = Path(__file__).parents[2]

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'divqat[docs]'")
pytest.importorskip("mkdocstrings_handlers.python", reason="pip install 'divqat[docs]'")

# A connection, or the look-up of a name, ends the build.
_OFFLINE = """
import socket

def refuse(*arguments, **options):
    raise AssertionError(f"the build asks for {arguments}")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from mkdocs.__main__ import cli
cli()
"""


class Links(HTMLParser):
    """A page's anchors, the links it has, and what a browser loads for it by itself."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("script", "img", "iframe", "source", "video") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and given.get("rel") != "canonical":
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", _OFFLINE, "build", "--strict", "--quiet", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}


def test_every_link_leads_somewhere(pages: dict[Path, Links]) -> None:
    followed = 0
    for page, found in pages.items():
        for link in found.links:
            if urlsplit(link).scheme in ("http", "https"):
                continue
            path, anchor = urldefrag(link)
            target = (page.parent / unquote(path)).resolve() if path else page
            assert target.is_file(), (page.name, link)
            if anchor and target.suffix == ".html":
                assert unquote(anchor) in pages[target].ids, (page.name, link)
            followed += 1
    assert followed > 500


def test_a_reader_needs_no_network(pages: dict[Path, Links]) -> None:
    loaded = [(page, one) for page, found in pages.items() for one in found.loaded]
    assert len(loaded) > 50
    for page, one in loaded:
        parts = urlsplit(one)
        assert not parts.scheme or parts.scheme == "data", (page.name, one)
        assert not parts.netloc, (page.name, one)
        if not parts.scheme:
            assert (page.parent / parts.path).is_file(), (page.name, one)


def test_every_command_is_in_the_reference(site: Path) -> None:
    from fpga_flow.cli import cli

    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in cli.commands:
        assert f"Usage: divqat {name} " in text


@pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [360, 768, 1200])
def test_no_page_is_wider_than_its_window(pages: dict[Path, Links], width: int) -> None:
    with Browser() as browser:
        for page in pages:
            browser.open(page, width)
            assert browser.evaluate("document.documentElement.scrollWidth") == width, page.name
