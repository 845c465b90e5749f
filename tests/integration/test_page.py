"""The page of a run in a real browser: nothing missing, nothing wrong, nothing fetched, at any width."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ldoms.bench.page import write_page
from ldoms.bench.page.lines import charts_of
from ldoms.bench.record import RunRecord, Series
from ldoms.model.migration import Outcome
from records import BEGUN, plausible_record

CHROMIUM = shutil.which("chromium") or ""
WIDTHS = (400, 700, 1000, 1400)
LONG = "a-name-without-any-place-to-break-" * 8

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs chromium: run 'setup/system tests'")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=words)
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(plausible_record(), tmp_path_factory.mktemp("run"))


class Visit:
    """A page that is looked at, and whatever went wrong meanwhile."""

    def __init__(self, browser: Browser, file: Path, width: int = 1400, **context: object) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **context)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *what: object) -> None:
        self.context.close()

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return found

    def seen_drawings(self) -> list[dict[str, float]]:
        """The drawings that can be seen: sizes of each, and of what is drawn in it."""
        found: list[dict[str, float]] = self.page.evaluate(
            """() => Array.from(document.querySelectorAll("figure .drawing"), (drawing) => {
                const box = drawing.getBoundingClientRect();
                const marks = drawing.querySelectorAll(".mark-line path, .mark-rect.role-mark path");
                const inner = Array.from(marks, (mark) => mark.getBoundingClientRect());
                return {width: box.width, height: box.height, marks: marks.length,
                        widest: Math.max(0, ...inner.map((one) => one.width))};
            }).filter((one) => one.width > 0)"""
        )
        return found


def _colours(page: Page, selector: str, style: str) -> set[str]:
    found: list[str] = page.evaluate(
        "([s, p]) => Array.from(document.querySelectorAll(s), (one) => getComputedStyle(one)[p])", [selector, style]
    )
    return set(found)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_right_at_every_width(browser: Browser, page_file: Path, width: int, scheme: str) -> None:
    """No error, no message, no request but for the file itself, no scrolling sideways, every chart with its lines."""
    with Visit(browser, page_file, width, color_scheme=scheme, offline=True) as visit:
        assert visit.troubles == []
        assert visit.requests == [page_file.as_uri()]
        assert visit.overflow() <= 0
        drawings = visit.seen_drawings()
        assert len(drawings) == 1 + len(charts_of(plausible_record())), "one for the phases, one for each chart"
        for drawing in drawings:
            assert drawing["width"] > min(300, width * 0.6)
            assert drawing["height"] > 80
            assert drawing["marks"] > 0
            assert drawing["widest"] > 20
        dark = scheme == "dark"
        assert _colours(visit.page, "body", "backgroundColor") == {"rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)"}
        lines = _colours(visit.page, ".chart .mark-line path", "stroke")
        assert ("rgb(96, 165, 250)" if dark else "rgb(11, 98, 168)") in lines


def test_all_plots_stand_below_each_other(browser: Browser, page_file: Path) -> None:
    """Left and right edges agree, so that a moment has one place in all of them."""
    with Visit(browser, page_file) as visit:
        edges = visit.page.evaluate(
            """() => Array.from(document.querySelectorAll(".chart .wide"), (drawing) => {
                const box = drawing.getBoundingClientRect();
                return `${Math.round(box.left)} ${Math.round(box.right)} ${drawing.dataset.left}`;
            })"""
        )
        assert len(edges) > 3
        assert len(set(edges)) == 1


@pytest.mark.parametrize("width", [400, 1400])
def test_pointing_at_a_chart_shows_values_in_all(browser: Browser, page_file: Path, width: int) -> None:
    """At 5.3 s the value of the second that ends at 6 s; with the keys from second to second."""
    with Visit(browser, page_file, width) as visit:
        page = visit.page
        drawing = page.locator("#chart-1 .drawing.wide" if width > 600 else "#chart-1 .drawing.narrow")
        drawing.scroll_into_view_if_needed()
        box = drawing.bounding_box()
        assert box is not None
        left, plot, whole = drawing.evaluate(
            "one => [Number(one.dataset.left), Number(one.dataset.width), one.viewBox.baseVal.width]"
        )
        across = left + plot * (5.3 + 20) / 60
        page.mouse.move(box["x"] + across / whole * box["width"], box["y"] + box["height"] / 2)
        assert page.locator("#chart-1 th.now").text_content() == "+5.3 s"
        series = plausible_record().series[0]
        expected = dict(zip(series.times, series.values, strict=True))[BEGUN + 6]
        assert float(page.locator("#chart-1 td.now").text_content() or "") == pytest.approx(expected, rel=1e-3)
        assert all(page.locator("td.now").all_text_contents())
        page.mouse.move(0, 0)
        page.locator("#chart-2 .plot").focus()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert page.locator("#chart-1 th.now").text_content() == "+2.0 s"
        assert visit.troubles == []


def test_a_gap_has_no_value(browser: Browser, page_file: Path) -> None:
    """While the guest stood still, mpstat said nothing, and the cursor shows that."""
    record = plausible_record()
    chart = next(one for one in charts_of(record) if one.title == "CPUs of the guest")
    with Visit(browser, page_file) as visit:
        visit.page.locator(f"#{chart.key} .plot").focus()
        for _ in range(14):
            visit.page.keyboard.press("ArrowRight")
        assert visit.page.locator(f"#{chart.key} th.now").text_content() == "+13.0 s"
        assert set(visit.page.locator(f"#{chart.key} td.now").all_text_contents()) == {"–"}


def test_the_page_can_be_read_without_scripts(browser: Browser, page_file: Path) -> None:
    with Visit(browser, page_file, java_script_enabled=False) as visit:
        assert visit.page.locator(".chart .drawing.wide").first.is_visible()
        assert visit.page.locator(".chart .mark-line path").count() > 0
        assert not visit.page.locator(".live-only").first.is_visible()


def test_paper_is_white_and_no_table_is_cut_off(browser: Browser, page_file: Path) -> None:
    """Also where the screen is dark; 182 mm are 688 pixels."""
    with Visit(browser, page_file, 688, color_scheme="dark") as visit:
        visit.page.emulate_media(media="print", color_scheme="dark")
        assert _colours(visit.page, "body", "color") == {"rgb(27, 31, 36)"}
        assert visit.overflow() <= 0
        assert all(drawing["width"] > 500 for drawing in visit.seen_drawings())
        assert visit.page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("width", [400, 1400])
def test_hostile_and_endless_names_do_no_harm(browser: Browser, tmp_path: Path, width: int) -> None:
    """No script of theirs runs, and nothing becomes wider than the window."""
    hostile = "<img src=x onerror=document.title='taken'></script><script>document.title='taken'</script>"
    full = plausible_record(name=hostile + LONG, outcome=Outcome.FAILED)
    series = tuple(Series("guest-cpu", f"{hostile}{LONG}{at}", "%", (BEGUN, BEGUN + 1), (1, 2)) for at in range(30))
    load = dataclasses.replace(full.load, name=LONG, settings={LONG: LONG})
    record: RunRecord = dataclasses.replace(full, id=LONG, series=series, load=load, findings=(hostile, LONG))
    with Visit(browser, write_page(record, tmp_path), width) as visit:
        assert visit.page.title() != "taken"
        assert visit.troubles == []
        assert visit.overflow() <= 0
        assert len(visit.requests) == 1
