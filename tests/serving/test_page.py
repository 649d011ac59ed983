"""The page in a real browser: with the mouse, by keyboard alone, on a phone and on a desk."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from combining.small_models import AUDIO, model_file, videos
from conftest import SMALL_CLASSES
from serving.running import Client, npy, serving
from surroundings import for_browsers
from tagging.tagged_clips import NAMES as CLIP_NAMES
from tagging.tagged_clips import make_clips
from topgb.features import Feature, FeatureSpec
from topgb.serving.settings import Settings
from video.clips import write_clip

CHROMIUM = Path("/usr/bin/chromium")
# Only the page's own requests are to be seen.
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
TOKEN = "correct-horse"
PATIENCE = 30
NAMES = tuple(f"class <{index}> ü" for index in range(SMALL_CLASSES))
THRESHOLDS = {"goal": "f1", "common": 0.5, "values": [0.09 * (index % 9) for index in range(SMALL_CLASSES)]}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    first = model_file(folder / "first.safetensors", class_names=NAMES, extras={"thresholds": THRESHOLDS})
    second = model_file(folder / "second.safetensors", AUDIO)
    spec = FeatureSpec("video", (Feature("own", 6, "float32"),))
    own = model_file(folder / "own.safetensors", {**AUDIO, "features": ["own"]}, features=spec)
    made = make_clips(folder / "made", "sound", {"a": 3.0})
    tagger = made.model.rename(folder / "tagger.safetensors")
    with serving([first, second, own, tagger], Settings(token=TOKEN)) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; apt-get install chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=for_browsers())
        yield browser
        browser.close()


@pytest.fixture
def page(browser, client: Client):
    """The page, as a visitor with the token first sees it; nothing may be wrong on it, or come from elsewhere."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    wrong: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: hosts.add(re.sub(r"^(\w+:)(//)?([^/]*).*", r"\1\3", request.url)))
    page.goto(f"http://127.0.0.1:{client.port}/")
    yield page
    page.close()
    # Chromium logs each refusal that a test provokes.
    assert [text for text in wrong if "Failed to load resource" not in text] == []
    assert {host for host in hosts if not host.startswith(("data:", "blob:"))} == {f"http:127.0.0.1:{client.port}"}


def _enter(page) -> None:
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#model option", state="attached")


def _until(page, condition: str) -> None:
    """Wait for a condition; Playwright's own way would evaluate text in the page, which its policy forbids."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def _answered(page, models: int = 1) -> None:
    _until(page, f"document.querySelectorAll('#models article table, #models .wrong').length >= {models}")
    _until(page, "!document.getElementById('status').textContent.endsWith('…')")


def _drop(page, name: str, content: bytes, kind: str = "", place: str = "#drop") -> bool:
    """Drop a file on the page, as a mouse does; whether the browser is kept from opening it."""
    transfer = page.evaluate_handle(
        """([name, bytes, type]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type })); return data; }""",
        [name, list(content), kind],
    )
    return page.evaluate(
        """([place, dataTransfer]) => !document.querySelector(place).dispatchEvent(
        new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }))""",
        [place, transfer],
    )


def _readable(page, width: int) -> None:
    """Nothing is wider than the window but in its own scrolling box, and text stands out."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    light, dark = sorted((sum(map(int, re.findall(r"\d+", value)[:3])) for value in (ink, paper)), reverse=True)
    assert light - dark > 400
    # A finger needs 24 pixels (WCAG 2.2).
    heights = page.evaluate("[...document.querySelectorAll('a, button, select, input')].map(b => b.offsetHeight)")
    assert min(height for height in heights if height) >= 24


def test_a_file_is_dropped_and_two_models_compared(page, client: Client, tmp_path):
    _until(page, "document.activeElement.id === 'token'")
    page.fill("#token", "wrong-token")
    page.keyboard.press("Enter")
    _until(page, "document.getElementById('token-error').textContent.includes('missing or wrong')")
    _enter(page)
    page.select_option("#other", "second")
    frames = np.concatenate(videos())[:20]
    _drop(page, "my clip.npy", npy(frames))
    _answered(page, 2)
    client.headers = {"authorization": f"Bearer {TOKEN}"}
    wanted = client.tag("my clip.npy", npy(frames), {"timeline": "5"}).json
    first, second = page.locator("#models article").all()
    assert first.locator("tbody").first.locator("tr th").all_text_contents() == [
        tag["name"] for tag in wanted["videos"][0]["tags"]
    ]
    about = first.locator("p").first.text_content()
    size = client.service.models["first"].bytes
    assert re.fullmatch(rf"{size / 1000:.1f} kB, 12 classes, [\d.]+ ms and \d+ ms for the features", about)
    assert "Given from" in first.text_content()
    assert "Given from" not in second.text_content()
    rows = first.locator("tbody").first.locator("tr").all()
    for row, tag in zip(rows, wanted["videos"][0]["tags"], strict=True):
        least = THRESHOLDS["values"][tag["class"]]
        assert (
            row.locator("td").last.text_content()
            == f"{least:.3f} {'✓ given' if tag['probability'] >= least else 'below'}"
        )
    assert page.locator("#status").text_content().startswith("my clip.npy. first: class <")
    with page.expect_download() as download:
        page.click("#json")
    found = json.loads(Path(download.value.path()).read_text())
    assert (download.value.suggested_filename, found[0]) == ("my clip.npy.tags.json", wanted)
    with page.expect_download() as download:
        page.click("#csv")
    lines = Path(download.value.path()).read_text().splitlines()
    assert (lines[0], len(lines)) == ("path,model,start,end,class,name,probability", 1 + 2 * 4 * 5)
    for width in (380, 1400):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            _readable(page, width)
            page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)


def test_by_keyboard_alone_to_a_moment(page):
    _until(page, "document.activeElement.id === 'token'")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#example-list button")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#example-list') !== null"):
            break
    page.keyboard.press("Enter")
    _answered(page)
    assert page.evaluate("document.activeElement.id") == "results-title"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('table.timeline') !== null"):
            break
    label = "document.activeElement.getAttribute('aria-label')"
    assert re.fullmatch(r"class <\d+> ü, 0:00 to 0:05: [\d.]+", page.evaluate(label))
    page.keyboard.press("ArrowRight")
    assert ", 0:05 to 0:10: " in page.evaluate(label)
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    assert ", 0:25 to 0:30: " in page.evaluate(label)
    page.keyboard.press("Enter")
    _until(page, "document.getElementById('status').textContent.startsWith('0:25; the browser cannot')")
    # The grid is one stop of the Tab key.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "json"


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_video_and_a_sound_are_tagged_and_played_from_the_moment_of_a_cell(page, tmp_path, kind):
    if kind == "video":
        clip = write_clip(tmp_path / "clip.webm", seconds=6, codec="libvpx", sound="libopus", rate=48000)
    else:
        clip = write_clip(tmp_path / "clip.ogg", seconds=6, codec=None, sound="libopus", rate=48000)
    _enter(page)
    page.select_option("#model", "tagger")
    page.fill("#stretch", "2")
    _drop(page, clip.name, clip.read_bytes(), f"{kind}/{clip.suffix[1:]}")
    _answered(page)
    assert page.locator("#results-title").text_content() == f"Tags of {clip.name}"
    assert page.locator("#models article tbody").first.locator("tr th").first.text_content() in CLIP_NAMES
    assert page.locator("table.timeline thead th").all_text_contents() == ["0:00", "0:02", "0:04"]
    player = page.locator(f"#player {kind}")
    assert player.evaluate("e => e.error") is None
    _until(page, f"document.querySelector('#player {kind}').readyState >= 1")
    page.click("table.timeline tbody tr:first-child button >> nth=2")
    assert player.evaluate("e => e.currentTime") == 4
    assert page.locator("#status").text_content() == "The player is at 0:04."
    _until(page, "document.querySelectorAll('td.now').length > 0")
    now = page.locator("table.timeline tbody tr").first.locator("td")
    assert [cell.get_attribute("class") for cell in now.all()][2] == "now"
    for width in (380, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        _readable(page, width)
        page.screenshot(path=tmp_path / f"{kind}-{width}.png", full_page=True)


def test_a_file_dropped_early_and_beside_its_place_is_tagged_once_the_models_are_known(page):
    _until(page, "document.activeElement.id === 'token'")
    assert _drop(page, "early.npy", npy(np.concatenate(videos())[:20]), place="h1")
    assert page.locator("#status").text_content() == "early.npy is tagged once the models are known."
    assert page.locator("#results").is_hidden()
    _enter(page)
    _answered(page)
    assert page.locator("#results-title").text_content() == "Tags of early.npy"


def test_the_focus_goes_to_the_first_control_once_the_token_is_taken(page):
    _until(page, "document.activeElement.id === 'token'")
    _enter(page)
    _until(page, "document.activeElement.id === 'model'")


def test_a_newer_file_stops_the_requests_of_the_one_before(page):
    _enter(page)
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url.rpartition("/")[2]))
    # Held in the browser until the newer one has been answered.
    held: list = []
    page.route("**/v1/tag", lambda route: route.continue_() if held else held.append(route))
    frames = np.concatenate(videos())[:20]
    _drop(page, "older.npy", npy(frames))
    page.wait_for_timeout(1)
    while not held:
        page.wait_for_timeout(20)
    _drop(page, "newer.npy", npy(frames))
    _answered(page)
    assert failed == ["tag"]
    assert page.locator("#status").text_content().startswith("newer.npy. ")
    assert page.locator("#models .wrong").count() == 0


def test_a_file_that_the_browser_cannot_play_is_not_said_to_have_moved(page):
    _enter(page)
    _drop(page, "frames.npy", npy(np.concatenate(videos())[:20]), "video/mp4")
    _answered(page)
    _until(page, "document.querySelector('#player video').error !== null")
    page.click("table.timeline button >> nth=0")
    assert page.locator("#status").text_content() == "0:00; the browser cannot play this file."


def test_tables_and_cells_are_named_once_and_seen_in_forced_colours(page, tmp_path):
    _enter(page)
    _drop(page, "frames.npy", npy(np.concatenate(videos())[:20]))
    _answered(page)
    assert page.locator("#models caption").all_text_contents() == ["Tags by first"]
    assert page.evaluate("[...document.querySelectorAll('th')].filter(e => !e.textContent).length") == 0
    cells = page.evaluate("[...document.querySelectorAll('.timeline button')].map(e => [e.title, e.ariaLabel])")
    assert {title == label for title, label in cells} == {True}
    page.emulate_media(forced_colors="active")
    bars = page.evaluate(
        "[...document.querySelectorAll('.track')].map("
        "e => [e, e.firstChild].map(p => getComputedStyle(p).backgroundColor))"
    )
    assert {track == bar for track, bar in bars} == {False}
    shades = page.evaluate(
        "[...document.querySelectorAll('.timeline button')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(shades)) > 1
    page.screenshot(path=tmp_path / "forced.png", full_page=True)


def test_errors_stand_where_they_happened(page, client: Client, tmp_path):
    _enter(page)
    page.select_option("#model", "own")
    page.select_option("#other", "first")
    page.set_input_files("#file", {"name": "x.npy", "mimeType": "", "buffer": npy(np.zeros((4, 40), np.uint8))})
    _answered(page, 2)
    own, first = page.locator("#models article").all()
    assert "this model takes" in own.locator("[role=alert]").text_content()
    assert first.locator("[role=alert]").count() == 0
    assert first.locator("tbody tr").count() > 0
    page.screenshot(path=tmp_path / "errors.png", full_page=True)
    page.set_input_files("#file", {"name": "<img src=x>.npy", "mimeType": "", "buffer": b"garbage"})
    _until(page, "document.querySelectorAll('#models [role=alert]').length === 2")
    assert page.locator("#models img").count() == 0
    assert page.locator("#csv").is_disabled()


def test_the_documentation_in_the_browser(page, client: Client, tmp_path):
    page.goto(f"http://127.0.0.1:{client.port}/docs")
    page.wait_for_selector("section h2")
    headings = page.locator("section h2").all_text_contents()
    assert "POST /v1/predict" in headings
    text = page.locator("section", has_text="POST /v1/predict").text_content()
    for part in ("features", "list of", 'encoding"float" or "bytes"', "threshold", "Refusals"):
        assert part in text, text
    # Each term has something said of it.
    assert (
        page.evaluate("[...document.querySelectorAll('dt')].filter(e => e.nextElementSibling?.tagName !== 'DD').length")
        == 0
    )
    for width in (380, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / "docs.png", full_page=True)
