"""The page as Chromium shows it: both themes, a telephone's width, keyboard, accessibility tree."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import EXECUTABLE, Browser
from synthetic_run import attack_row, build, put, put_bitstream, put_evidence, victim_rows

from fpga_flow.report import build_report, collect, write, write_comparison

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed")
EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>" + "long" * 30
THEMES = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])

# The lowest contrast of any text with what is behind it, and that text.
_CONTRAST = """(() => {
  const parse = s => {
    const srgb = s.startsWith('color(');
    const n = s.match(/[\\d.]+/g).map(Number);
    const [r, g, b, a = 1] = srgb ? n : [n[0] / 255, n[1] / 255, n[2] / 255, n[3]];
    return [r, g, b, a];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const behind = e => {
    if (!e) return [1, 1, 1];
    const own = parse(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(e.parentElement));
  };
  let lowest = [99, '', 0], count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, words = walker.currentNode.textContent.trim();
    const drawn = e.closest('svg');
    if (!words || ['TITLE', 'DESC', 'title', 'desc'].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ground = behind(drawn ? drawn.parentElement : e);
    const ink = over(parse(drawn ? style.fill : style.color), ground);
    const [dark, bright] = [light(ink), light(ground)].sort((a, b) => a - b);
    const ratio = (bright + 0.05) / (dark + 0.05);
    count += 1;
    if (ratio < lowest[0]) lowest = [ratio, words, e.tagName];
  }
  return [...lowest, count];
})()"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every part, whose names are an attacker's where names may be anything."""
    run = build(tmp_path_factory.mktemp("browser") / "run")
    put_evidence(run)
    put_bitstream(run)
    put(run / "train" / "victims.json", [*victim_rows(1), victim_rows(1)[0] | {"variant": EVIL}])
    put(run / "attack" / "evil.json", attack_row(EVIL, pool=EVIL, surrogate=EVIL))
    put(run / "config.toml", f"[run]\nname = '''{EVIL}'''\n")
    build_report(run)
    return run / "report" / "index.html"


@pytest.fixture(scope="module")
def compared(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that compares such a run with another."""
    folder = tmp_path_factory.mktemp("compared")
    other = build(folder / "run", attacked=False)
    write(collect(other), other / "report" / "results.json")
    write_comparison([shown.parents[1], other], folder / "out")
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


def opened(browser: Browser, page: Path, width: int = 1200, dark: bool = False) -> Browser:
    """The page with all that is folded unfolded."""
    browser.open(page, width, dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    return browser


@pytest.mark.slow  # drives Chromium
@THEMES
@pytest.mark.parametrize("width", [360, 768, 1200])
def test_nothing_sticks_out_of_the_window(
    browser: Browser, shown: Path, width: int, dark: bool
) -> None:
    opened(browser, shown, width, dark)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


@THEMES
def test_nothing_is_loaded_logged_or_executed(browser: Browser, shown: Path, dark: bool) -> None:
    opened(browser, shown, dark=dark)
    asked = [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]
    assert shown.resolve().as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert len([url for url in asked if url.startswith("file")]) == 1
    for method in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
        assert browser.happened(method) == []
    assert browser.evaluate("typeof window.hacked") == "undefined"
    assert browser.evaluate("document.scripts.length") == 0


@THEMES
def test_a_comparison_fits_is_read_and_loads_nothing(
    browser: Browser, compared: Path, dark: bool
) -> None:
    opened(browser, compared, 360, dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    ratio, words, tag, texts = browser.evaluate(_CONTRAST)
    assert texts > 100
    assert ratio >= 4.5, (words, tag)
    asked = [event["request"]["url"] for event in browser.happened("Network.requestWillBeSent")]
    assert asked == [compared.resolve().as_uri()]
    assert browser.happened("Log.entryAdded") == []
    assert browser.evaluate("typeof window.hacked") == "undefined"


def test_the_browser_refuses_what_the_policy_forbids(browser: Browser, shown: Path) -> None:
    browser.open(shown)
    browser.evaluate("void (new Image().src = 'http://localhost:9/x.png')")
    browser.evaluate("void fetch('http://localhost:9/').catch(() => 0)")
    refused = [entry["entry"]["text"] for entry in browser.happened("Log.entryAdded")]
    for kind in ("Loading the image", "Connecting to"):
        assert any(kind in text and "Content Security Policy" in text for text in refused), kind


@THEMES
def test_every_text_can_be_read(browser: Browser, shown: Path, dark: bool) -> None:
    opened(browser, shown, dark=dark)
    ratio, words, tag, texts = browser.evaluate(_CONTRAST)
    assert texts > 1000
    assert ratio >= 4.5, (words, tag)


def test_the_skip_link_comes_first_and_leads_into_the_results(
    browser: Browser, shown: Path
) -> None:
    browser.open(shown)
    browser.press("Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.id") == "main"


def test_every_stop_of_the_tab_key_is_marked(browser: Browser, shown: Path) -> None:
    browser.open(shown)
    stops = browser.evaluate(
        "[...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility()).length"
    )
    assert stops > 20
    reached = set()
    for _ in range(stops):
        browser.press("Tab", 9)
        at, outline = browser.evaluate(
            "(e => [[...document.querySelectorAll('*')].indexOf(e), "
            "getComputedStyle(e).outlineStyle + getComputedStyle(e).outlineWidth])"
            "(document.activeElement)"
        )
        assert outline in ("solid3px", "auto1px"), browser.evaluate(
            "document.activeElement.outerHTML.slice(0, 200)"
        )
        reached.add(at)
    assert len(reached) == stops


def test_what_is_folded_opens_by_key_and_wide_tables_scroll_by_key(
    browser: Browser, shown: Path
) -> None:
    browser.open(shown, 360)
    browser.evaluate("document.querySelector('details:not([open]) > summary').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.parentElement.open") is True
    wide = (
        "[...document.querySelectorAll('.scroll')].find(e => e.checkVisibility() && "
        "e.scrollWidth > e.clientWidth)"
    )
    browser.evaluate(f"window.wide = {wide}; wide.focus(); 1")
    for _ in range(3):
        browser.press("ArrowRight", 39)
    # Scrolling is smooth: it comes to pass, or pytest's own limit ends the wait.
    moved = "const look = () => wide.scrollLeft > 0 ? done(true) : requestAnimationFrame(look)"
    assert browser.evaluate(f"new Promise(done => {{ {moved}; look(); }})")


@pytest.mark.slow  # drives Chromium
def test_a_screen_reader_finds_landmarks_headings_and_named_pictures(
    browser: Browser, shown: Path
) -> None:
    opened(browser, shown)
    nodes = [
        node for node in browser("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
    ]
    roles = Counter(node["role"]["value"] for node in nodes)
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert roles[landmark] == 1, landmark
    # Drawings and photographs; older versions of Chromium call both "img".
    pictures = [node for node in nodes if node["role"]["value"] in ("image", "img")]
    assert len(pictures) > 10
    named = (*pictures, *(n for n in nodes if n["role"]["value"] in ("region", "table", "link")))
    assert all(node["name"]["value"].strip() for node in named)
    assert roles["table"] > 20
    assert browser.evaluate("document.documentElement.lang") == "en"
