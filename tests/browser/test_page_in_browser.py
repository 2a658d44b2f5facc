"""The HTML page as a person sees it: opened from the file system in a real browser, light and dark, wide and narrow."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from crossjit.effect.compilers import Compilers
from crossjit.effect.model import Effect
from crossjit.measure.model import CellMeasurement
from crossjit.model import CellResult
from crossjit.report import compilers_page, effect_page, html, measure_history, measure_page
from crossjit.settings import Settings
from tests import example_compilers, example_effects, example_measurements, example_runs
from tests.conftest import find_browser

pytestmark = pytest.mark.browser

WIDE, NARROW = 1280, 360
PATIENCE = 300_000  # milliseconds: the machine may be busy
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (WIDE, NARROW)]

Document = Callable[[Settings], str]


def run_page(results: tuple[CellResult, ...]) -> Document:
    """Return what makes the page of a run with these results."""

    def document(settings: Settings) -> str:
        run = example_runs.record(settings, results)
        if results == example_runs.results():
            example_runs.triage(run)
        return html.page(run, run.results())

    return document


def measured(found: tuple[CellMeasurement, ...]) -> Document:
    """Return what makes the page of measurements."""
    return lambda settings: measure_page.page(found, run="20261124-070000-beef", reproduce="./inv measure --arch all")


def effect(found: Effect) -> Document:
    """Return what makes the page of what a change does."""
    return lambda settings: effect_page.page(found, run="20261130-190000-beef", reproduce="./inv effect --source .")


def llvms(found: Compilers) -> Document:
    """Return what makes the page of LLVMs that are held against each other."""
    return lambda settings: compilers_page.page(found, run="20261130-190000-beef", reproduce="./inv effect --llvm 21")


EVERY_VERDICT = run_page(example_runs.results())
MEASURED = measured((*example_measurements.both(), example_measurements.vacuous()))

PAGES: dict[str, Document] = {
    "every verdict": EVERY_VERDICT,
    "green": run_page(example_runs.results()[2:3]),
    "hostile": run_page(example_runs.hostile()),
    "nothing": run_page(()),
    "measured": MEASURED,
    "measured on one arch": measured(example_measurements.both()[:1]),
    "measured by time": measured((example_measurements.timed(),)),
    "hostile measurement": measured(example_measurements.hostile()),
    "nothing measured": measured((example_measurements.vacuous(),)),
    "history": lambda settings: measure_history.page(
        "nbody", example_measurements.along_a_history(), run="20261124-070000-beef", reproduce="./inv measure --history"
    ),
    "effect": effect(example_effects.few()),
    "no effect": effect(example_effects.none()),
    "broken by a change": effect(example_effects.broken()),
    "hostile change": effect(example_effects.hostile()),
    "LLVMs": llvms(example_compilers.two()),
    "LLVMs that fail": llvms(example_compilers.four()),
    "hostile LLVMs": llvms(example_compilers.hostile()),
}

OVERFLOW = """() => [...document.querySelectorAll("*")]
    .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5
                    || (each.tagName !== "HTML" && each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 0
                        && getComputedStyle(each).display !== "inline"))
    .map(each => each.outerHTML.slice(0, 120))"""

BRIGHTNESS = r"""() => getComputedStyle(document.body).backgroundColor
    .match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)"""

FOCUS = """() => (({outlineStyle, outlineWidth}) => `${outlineWidth} ${outlineStyle}`)
    (getComputedStyle(document.activeElement))"""


@dataclass
class Seen:
    """An open page, and what it did beside being shown."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked_for: list[str] = field(default_factory=list)


Open = Callable[..., Seen]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as home:
        # Chromium keeps files in the home folder, whatever its profile is.
        environment: dict[str, str | float | bool] = {**os.environ, "HOME": home}
        launched = playwright.chromium.launch(
            executable_path=find_browser(), env=environment, args=["--disable-gpu", "--disable-quic", "--no-first-run"]
        )
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, settings: Settings, tmp_path: Path) -> Iterator[Open]:
    """Write a page and open it with no network and a browser of the given width and colours."""
    contexts = []

    def opened(document: Document, scheme: str = "light", width: int = WIDE) -> Seen:
        file = tmp_path / "report.html"
        file.write_text(document(settings), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            offline=True,
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: seen.said.append(message.text))
        seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
        seen.page.on("dialog", lambda dialog: seen.said.append(dialog.message))
        seen.page.on("request", lambda request: seen.asked_for.append(request.url))
        seen.page.goto(file.as_uri())
        return seen

    yield opened
    for context in contexts:
        context.close()


def is_only_a_sign(node: dict[str, Any]) -> bool:
    """Whether axe could not tell the contrast of a sign such as ✗; it has the colour of the word beside it."""
    return all((check["data"] or {}).get("messageKey") == "nonBmp" for check in node["any"])


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_it_looks_right(open_page: Open, tmp_path: Path, name: str, scheme: str, width: int) -> None:
    seen = open_page(PAGES[name], scheme, width)
    page = seen.page
    for state in ("folded", "unfolded"):
        if state == "unfolded":
            unfold(page)
        picture = page.screenshot(full_page=True, path=tmp_path / f"{name} {scheme} {width} {state}.png")
        assert struct.unpack(">I", picture[16:20]) == (width,), "a page that is wider than the window scrolls sideways"
        assert page.evaluate(OVERFLOW) == []
    brightness = page.evaluate(BRIGHTNESS)
    assert brightness < 120 if scheme == "dark" else brightness > 640
    assert seen.said == []
    assert [url for url in seen.asked_for if not url.startswith("data:")] == [page.url]
    assert page.title().endswith(f"crossjit run {page.locator('header code').first.inner_text()}")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_it_is_accessible(open_page: Open, name: str, scheme: str, width: int) -> None:
    page = open_page(PAGES[name], scheme, width).page
    unfold(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert [node for each in found.response["incomplete"] for node in each["nodes"] if not is_only_a_sign(node)] == []
    assert len(found.response["passes"]) > 20, "axe has looked at nothing"


def test_axe_would_find_something(open_page: Open) -> None:
    page = open_page(EVERY_VERDICT).page
    page.evaluate("document.querySelector('.quiet').style.color = '#dddddd'")
    page.evaluate("document.querySelector('th').removeAttribute('scope'); document.documentElement.lang = ''")
    found = {each["id"] for each in Axe().run(page).response["violations"]}
    assert {"color-contrast", "html-has-lang"} <= found


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page = open_page(EVERY_VERDICT).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#cells"
    assert page.evaluate(FOCUS) == "3px solid"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.failure') !== null"):
            break
    details = "document.activeElement.closest('details').open"
    assert page.evaluate(details) is False
    page.keyboard.press("Enter")
    assert page.evaluate(details) is True
    assert "Fatal Python error: Segmentation fault" in page.evaluate("document.activeElement.parentElement.innerText")


def test_links_lead_to_what_they_name(open_page: Open) -> None:
    page = open_page(EVERY_VERDICT, width=NARROW).page
    page.get_by_role("link", name="3.15/aarch64/jit: fail").click()
    section = page.locator("section.cell", has=page.get_by_role("heading", name="3.15/aarch64/jit"))
    assert section.evaluate("each => Math.abs(each.getBoundingClientRect().top) < 200")
    assert page.url.endswith("#cell-3.15-aarch64-jit")


def test_a_page_of_a_full_run_opens(open_page: Open, tmp_path: Path) -> None:
    seen = open_page(run_page(example_runs.full_run(bad=300)), width=NARROW)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000
    assert seen.page.locator("h1").inner_text().endswith("2 of 3 cells failed, 1 did not finish")
    unfold(seen.page)
    assert seen.page.evaluate("document.documentElement.scrollWidth") == NARROW
    assert seen.said == []


def test_the_chart_is_sorted_without_a_script(open_page: Open) -> None:
    page = open_page(MEASURED).page
    lines = page.locator(".lines > li")

    def first() -> str:
        tops = [(line.bounding_box() or {"y": 1e9})["y"] for line in lines.all()]
        return lines.nth(tops.index(min(tops))).locator(".name").inner_text()

    assert first() == "megamorphic_calls"
    page.get_by_role("radio", name="name", exact=True).focus()
    page.keyboard.press("Space")
    assert first() == "argparse_many_optionals"
    page.get_by_role("radio", name="worst on aarch64").check()
    assert first() == "megamorphic_calls"
    page.get_by_role("radio", name="JIT share").check()
    assert first() not in ("megamorphic_calls", "argparse_many_optionals")


def test_marks_of_the_chart_stand_at_their_ratios(open_page: Open) -> None:
    page = open_page(MEASURED).page

    def middle(selector: str) -> float:
        return float(
            page.locator(selector).first.evaluate(
                "each => { const box = each.getBoundingClientRect(); return box.left + box.width / 2; }"
            )
        )

    row = ".lines > li:has(.name:text-is('{}')) .plot {}"
    one = middle(".heads .plot text:text-is('1')")
    assert middle(row.format("richards", "circle")) < middle(row.format("nbody", "circle")) < one - 50
    assert middle(row.format("megamorphic_calls", "circle")) > one + 50
    assert abs(middle(row.format("richards", "circle")) - middle(row.format("richards", "rect.s2"))) < 1
    for name in ("richards", "megamorphic_calls"):
        ends = [middle(row.format(name, f"line.{style}")) for style in ("s1", "s2")]
        assert ends == pytest.approx([(one + middle(row.format(name, "circle"))) / 2] * 2, abs=1), (
            "a line begins at 1.0"
        )
