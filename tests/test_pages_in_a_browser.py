"""The pages in Chromium: they draw, ask nothing of the network, and are used from the keyboard.

PAGES=DIR keeps the pages and screenshots there, to look at.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
import tyro
from report_records import write_records
from synthetic_run import RESNET20_LAYERS, write_run
from synthetic_sweep import LARS_AGS, write_sweep

from experiments import runs
from experiments.report.html import write_report

CHROMIUM = shutil.which("chromium")
HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror=alert(2)>"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1200, "height": 900}

pytestmark = pytest.mark.long
playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: tests/browser.sh does it"
)
if CHROMIUM is None:
    pytest.skip("there is no chromium: tests/browser.sh installs it", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Path(os.environ.get("PAGES") or tmp_path_factory.mktemp("pages")).resolve()


@pytest.fixture(scope="module")
def pages(folder):
    """Pages by name."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    root = folder / "runs"
    digits = write_records(write_run(root / "digits", epochs=30))
    resnet = write_run(root / "resnet20", layers=RESNET20_LAYERS, epochs=60, network="resnet20")
    write_records(resnet, classes=100, images=3000, side=32, channels=3)
    hostile = write_run(root / "hostile", layers=(HOSTILE, "b"), epochs=3, data=HOSTILE)
    write_records(hostile)
    (hostile / "data.json").write_text('{"classes": ["' + '","'.join([HOSTILE] * 10) + '"]}')
    older = write_run(root / "older", epochs=1, seeds=(0,))
    sweep = write_sweep(root / "sweep", LARS_AGS, epochs=12)
    made = [digits, resnet, hostile, older, sweep]
    tyro.cli(runs.main, args=[str(root), "--html", str(folder / "runs.html")])
    return {path.name: write_report(path) for path in made} | {"runs": folder / "runs.html"}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def opened(browser, pages):
    """Opens a page; at the end nothing may have gone wrong in it."""
    said, contexts = [], []

    def open_page(name, viewport=DESK, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                said.append(f"request: {request.url[:90]}")
                if not (request.url.startswith("data:") or request.url == pages[name].as_uri())
                else None
            ),
        )
        page.goto(pages[name].as_uri())
        page.wait_for_selector("section svg")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def looked_at(page, folder, name):
    """Keeps a screenshot; nothing is wider than the page."""
    page.wait_for_timeout(200)  # until everything is drawn
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    width, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= room


NAMES = ("digits", "resnet20", "hostile", "older", "sweep", "runs")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_pages_draw_in_light_and_dark_on_a_desk_and_a_phone(opened, folder, name, scheme, viewport):
    page = opened(name, viewport, color_scheme=scheme)
    looked_at(page, folder, f"{name}-{scheme}-{viewport['width']}")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(n) for n in re.findall(r"\d+", paper)]
    assert (sum(channels) > 600) == (scheme == "light")
    assert page.evaluate("window.broken") is None
    assert "[object" not in page.inner_text("body")
    assert not re.search(r"\b(NaN|undefined|Infinity)\b", page.inner_text("body"))


def test_pages_print_on_white_without_controls(opened, folder):
    page = opened("digits", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert not page.locator("#epoch").is_visible()
    assert page.locator(".histogram svg").first.is_visible()
    assert len(page.pdf(format="A4")) > 10_000


def bars(page):
    """Heights of the histograms' bars of the weights that flip."""
    return page.evaluate(
        "[...document.querySelectorAll('.histogram .kind0')].map((b) => b.getAttribute('height'))"
    )


def test_the_slider_moves_the_histograms_from_the_keyboard(opened):
    page = opened("digits")
    slider = page.locator("#epoch")
    slider.focus()
    page.keyboard.press("Home")
    assert bars(page) == []  # nothing has flipped before the first step
    assert slider.get_attribute("aria-valuetext") == "epoch 0 of 30"
    captions = page.locator(".histogram .note")
    assert captions.first.inner_text().startswith(
        "Epoch 0: flips 0.0 %, flipped, now silent 0.0 %, never flipped 100.0 %"
    )
    page.keyboard.press("ArrowRight")
    first = bars(page)
    assert first
    assert captions.last.inner_text().startswith("Epoch 1: ")
    page.keyboard.press("End")
    assert bars(page) not in ([], first)
    assert captions.first.inner_text().startswith("Epoch 30: ")


def test_a_layer_and_what_the_map_shows_are_chosen_from_the_keyboard(opened):
    page = opened("digits")
    captions = page.locator("#weights figcaption small")
    assert captions.first.inner_text().startswith("hidden1, epoch 30: ")
    page.locator("#weights select").select_option("hidden3")
    never = captions.first.inner_text()
    assert never.startswith("hidden3, epoch 30: ")
    page.locator("#weights input[type=radio]").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert captions.first.inner_text() != never


def test_a_click_on_the_heat_map_chooses_layer_and_epoch(opened):
    page = opened("digits")
    image = page.locator("#weights svg image").first
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 30 * 4.5, box["y"] + box["height"] * 0.9)
    assert page.locator("#epoch").get_attribute("aria-valuetext") == "epoch 5 of 30"
    assert page.locator("#weights select").input_value() == "hidden4"


def test_curves_are_read_by_pointer_and_arrow_keys(opened):
    page = opened("digits")
    chart, tip = page.locator("#curves [role=slider]").first, page.locator("#curves .tip").first
    chart.focus()
    page.keyboard.press("Home")
    assert chart.get_attribute("aria-valuetext").startswith("epoch 1: ")
    assert "epoch 1" in tip.inner_text()
    assert "±" in tip.inner_text()
    page.keyboard.press("End")
    assert "OvSW 96." in chart.get_attribute("aria-valuetext")
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert re.search(r"epoch 1[456]", tip.inner_text())


def test_a_line_is_hidden_and_shown_by_its_button(opened):
    page = opened("digits")
    lines = page.locator("#curves .panel").first.locator("polyline")
    assert lines.count() == 2
    button = page.get_by_role("button", name="OvSW")
    button.focus()
    page.keyboard.press("Enter")
    assert (lines.count(), button.get_attribute("aria-pressed")) == (1, "false")
    page.keyboard.press("Enter")
    assert lines.count() == 2


def test_all_controls_are_reached_by_tab(opened):
    page = opened("digits")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached >= {"epoch", "A", "BUTTON", "SELECT", "INPUT", "SUMMARY", "DIV"}


def test_numbers_in_the_page_are_those_of_the_table(opened):
    page = opened("digits")
    cells = page.locator("#results tbody tr").last.locator("td").all_inner_texts()
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ \(n = 3\)", cells[0])
    assert page.locator("#images img").count() == 2 * 7
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert set(widths) == {8}


def test_without_scripts_the_verdict_is_there(browser, pages):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["digits"].as_uri())
    assert "OvSW reaches" in page.inner_text("header")
    assert "scripts" in page.inner_text("main")
    context.close()
