from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from thawlab.comparison.comparison import Comparison
from thawlab.probing.result import Probe
from thawlab.report.comparison_page import write_comparison
from thawlab.report.page import write_report
from thawlab.report.probe_page import write_probe
from thawlab.run import RunFolder

NASTY = ["<img src=x onerror=console.error(1)>", "y" * 200, "ant", "bee"]


@pytest.fixture(scope="module")
def report(make_run: Callable[..., RunFolder]) -> Path:
    return write_report(make_run(NASTY, 12))


@pytest.fixture(scope="module")
def probe_page(probed: Probe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_probe(probed, tmp_path_factory.mktemp("probe") / "probe.html")


@pytest.fixture(scope="module")
def comparison(compared: Callable[..., Comparison], tmp_path_factory: pytest.TempPathFactory) -> Path:
    skills = {
        f"phases.0.lr={lr} model.dropout=[{dropout}]": 0.3 + lr + dropout
        for lr in (0.1, 0.2, 0.4)
        for dropout in (0.1, 0.2)
        if (lr, dropout) != (0.4, 0.2)
    }
    found = compared(skills, 2, "What <i>helps</i>?", dict(zip(skills, NASTY, strict=False)))
    found = replace(found, pairs=found.pairs * 6)  # more than are open at once
    return write_comparison(found, tmp_path_factory.mktemp("page") / "comparison.html")


def opened(browser: Any, file: Path, scheme: str, width: int) -> tuple[Any, list[str], list[str]]:
    """Open a page, and return it with what it says on its console, nothing at first, and the addresses that it asks for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert said == []
    return page, said, asked


def check_readable(page: Any, scheme: str, width: int) -> None:
    """Check that a page fits and can be read."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"
    light = scheme == "light"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if light else "rgb(17, 21, 26)")
    text = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert text == ("rgb(29, 35, 43)" if light else "rgb(230, 235, 240)"), "figures follow the page's colours"
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(text => "
        "parseFloat(getComputedStyle(text).fontSize) * text.ownerSVGElement.getScreenCTM().a))"
    )
    assert smallest >= 8


def opened_quietly(browser: Any, file: Path, scheme: str, width: int) -> tuple[Any, list[str]]:
    """Open a page, check that it asks for nothing, fits and can be read, and return it with what it says on its console."""
    page, said, asked = opened(browser, file, scheme, width)
    assert [url for url in asked if url != file.as_uri() and not url.startswith("data:")] == []
    check_readable(page, scheme, width)
    return page, said


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens_from_its_file_quietly_and_its_table_sorts(browser: Any, report: Path, scheme: str, width: int) -> None:
    page, said = opened_quietly(browser, report, scheme, width)

    def column(number: int) -> list[str]:
        return page.locator(f"table.sortable tbody td:nth-child({number})").all_inner_texts()

    names = column(1)
    buttons = page.locator("table.sortable th button")
    buttons.nth(0).click()
    first = column(1)
    buttons.nth(0).click()
    assert column(1) == first[::-1] != first
    assert sorted(first) == sorted(names)
    buttons.nth(3).click()
    recalls = [float(value.split()[0]) for value in column(4)]
    assert recalls == sorted(recalls, reverse=True)
    assert page.locator("table.sortable th[aria-sort]").count() == 1
    assert page.locator("table.sortable th").nth(3).get_attribute("aria-sort") == "descending"
    assert said == []
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_opens_quietly_and_accessibly_and_its_variants_sort(
    browser: Any, comparison: Path, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, said, asked = opened(browser, comparison, scheme, width)
    assert asked == [comparison.as_uri()]
    for details in page.locator("details").all():
        details.locator("summary").click()
    check_readable(page, scheme, width)

    titles = page.locator("table.variants thead th").all_inner_texts()
    column = titles.index("test accuracy")
    values = page.locator(f"table.variants tbody tr > :nth-child({column + 1})")
    given = [float(value.split()[0]) for value in values.all_inner_texts()]
    page.locator("table.variants thead button").nth(column).click()
    falling = [float(value.split()[0]) for value in values.all_inner_texts()]
    assert falling == sorted(given, reverse=True) != given
    assert said == []

    found = axe.run(page).response["violations"]
    grave = [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in found if entry["impact"] in {"serious", "critical"}]
    assert grave == []
    page.close()


def test_a_cell_of_the_confusion_matrix_opens_the_images_behind_it(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.goto(report.as_uri())
    cells = page.locator(".matrix [data-cell]")
    assert cells.count() > 0
    for index in range(cells.count()):
        count = int(cells.nth(index).inner_text())
        cells.nth(index).focus()
        page.keyboard.press("Enter")
        assert page.locator("dialog[open] img").count() == count
        assert page.evaluate(
            "[...document.querySelectorAll('dialog img')].every(image => image.complete && image.naturalWidth > 0)"
        )
        page.keyboard.press("Escape")
        assert page.locator("dialog[open]").count() == 0
    links = page.locator("button.link")
    links.first.click()
    assert page.locator("dialog[open] h2").inner_text().count("taken for") == 1
    page.locator("dialog .close").click()
    assert page.locator("dialog[open]").count() == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Any, report: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = browser.new_page(color_scheme=scheme)
    page.goto(report.as_uri())
    page.locator("button.link").first.click()
    for _ in ("with the dialog open", "without"):
        found = axe.run(page).response["violations"]
        grave = [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in found if entry["impact"] in {"serious", "critical"}]
        assert grave == []
        page.keyboard.press("Escape")
    page.close()


@pytest.mark.parametrize("width", [1100, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_probe_opens_quietly_and_axe_finds_no_serious_violation(
    browser: Any, probe_page: Path, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, said = opened_quietly(browser, probe_page, scheme, width)
    page.locator("summary").click()
    found = axe.run(page).response["violations"]
    assert [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in found if entry["impact"] in {"serious", "critical"}] == []
    assert said == []
    page.close()
