"""The studio's pages in a real browser: looked at, sorted, watched, compared, and used by keyboard."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from asking import Server, picture

import thawlab
from thawlab.run import RunFolder

sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(params=[("light", 1200), ("dark", 390)], ids=["light desktop", "dark phone"])
def page(browser: Any, studio: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page that must stay quiet and ask nobody but the server."""
    scheme, width = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=f"http://127.0.0.1:{studio.port}"
    )
    opened = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda one: asked.append(one.url))
    yield opened
    assert said == []
    assert [url for url in asked if urlsplit(url).scheme in {"http", "https"} and urlsplit(url).port != studio.port] == []
    context.close()


def folder_of(root: Path, name: str) -> RunFolder:
    return RunFolder(next((root / "runs").glob(f"{name}-*")))


def check_accessible(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    grave = [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in found if entry["impact"] in {"serious", "critical"}]
    assert grave == []
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], "the page is too wide"


def listed(page: Any) -> list[str]:
    return [name.rpartition("-")[0] for name in page.locator("#rows th a").all_inner_texts()]


def test_runs_are_listed_sorted_filtered_and_compared(page: Any, studio_folder: Path) -> None:
    rows = page.locator("#rows tr")
    page.goto("/")
    sync_api.expect(rows).to_have_count(3)
    check_accessible(page)
    page.get_by_role("button", name="run", exact=True).click()
    assert listed(page) == ["alike", "faster", "plain"]
    page.get_by_role("button", name="run", exact=True).click()
    assert listed(page) == ["plain", "faster", "alike"]
    page.get_by_role("button", name="lr", exact=True).click()
    assert listed(page)[-1] == "faster"

    filter_box = page.get_by_role("searchbox")
    for text, expected in {
        "phases.0.lr=0.2": {"faster"},
        "lr=2e-1": {"faster"},
        "seed!=1 finished": {"plain", "faster"},
        "lr<0.1": set(),
        "ALIKE": {"alike"},
        "": {"alike", "faster", "plain"},
    }.items():
        filter_box.fill(text)
        assert set(listed(page)) == expected, text
    filter_box.fill("colour=red")
    sync_api.expect(page.locator("#filter-hint")).to_contain_text("No run has the key “colour”")
    filter_box.fill("")

    page.get_by_text("Columns", exact=True).click()
    check_accessible(page)
    page.get_by_label("model.backbone").check()
    sync_api.expect(page.locator("#rows td", has_text="cnn5")).to_have_count(3)
    page.keyboard.press("Escape")

    # What changes on disk is seen without a click.
    folder_of(studio_folder, "alike").set_status("failed", reason="the disk is full")
    sync_api.expect(page.locator(".badge.failed")).to_have_count(1, timeout=10_000)

    compare = page.locator("#compare")
    sync_api.expect(compare).to_be_disabled()
    for name in ("plain", "faster"):
        page.get_by_label(f"Compare {name}").check()
    compare.click()
    page.wait_for_url("**/compare?**")
    sync_api.expect(page.locator("h1")).to_contain_text("side by side")
    page.locator("table.variants thead button").first.click()
    sync_api.expect(page.locator("table.variants th[aria-sort]")).to_have_count(1)


def test_a_curve_grows_while_a_run_trains(page: Any, studio_folder: Path) -> None:
    folder = folder_of(studio_folder, "plain")
    results = folder.results.read_text()
    folder.results.unlink()
    folder.set_status("running")
    (folder.path / ".owner").write_text(f"process {os.getpid()} on {platform.node()}")
    page.goto(f"/run?name={folder.name}")
    dots = page.locator("#loss .dot.train")
    sync_api.expect(dots).to_have_count(2)
    sync_api.expect(page.locator("#state")).to_have_text("running")
    row = json.loads(folder.metrics.read_text().splitlines()[-1])
    with folder.metrics.open("a") as file:
        file.write(json.dumps({**row, "epoch": 3}) + "\n")
    sync_api.expect(dots).to_have_count(3)
    sync_api.expect(page.locator("#facts")).to_contain_text("3 of 2")
    page.get_by_text("All epochs as a table").click()
    sync_api.expect(page.locator("#epochs tr")).to_have_count(3)
    check_accessible(page)
    folder.results.write_text(results)
    folder.set_status("finished")
    sync_api.expect(page.locator("#state")).to_have_text("finished")
    sync_api.expect(page.locator("#facts")).to_contain_text("test accuracy")


def test_a_finished_run_has_samples_answers_and_a_report(page: Any, studio_folder: Path) -> None:
    folder = folder_of(studio_folder, "plain")
    page.goto(f"/run?name={folder.name}")
    sync_api.expect(page.locator("#samples li").first).to_contain_text("ant")
    page.locator("#files").set_input_files([{"name": "one.png", "mimeType": "image/png", "buffer": picture(3)}])
    sync_api.expect(page.locator("#pictures .bars li")).to_have_count(3, timeout=60_000)
    page.get_by_text("Its recipe").click()
    sync_api.expect(page.locator("#recipe")).to_contain_text("model.backbone")
    check_accessible(page)
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report")
    page.locator("table.sortable th button").first.click()
    sync_api.expect(page.locator("table.sortable th[aria-sort]")).to_have_count(1)


def test_five_labels_are_corrected_by_keyboard_and_trained_with(page: Any, studio_folder: Path) -> None:
    folder = folder_of(studio_folder, "plain")
    page.goto(f"/correct?name={folder.name}")
    image, given, predicted = (page.locator(one) for one in ("#image", "#given", "#predicted"))
    sync_api.expect(image).to_have_js_property("naturalHeight", 20)
    check_accessible(page)
    files, labels = [], []

    def here() -> None:
        files.append(page.locator("#file").inner_text().rpartition(" (")[0])
        labels.append((given.inner_text(), predicted.inner_text().split()[0]))

    here()
    page.keyboard.press("k")
    sync_api.expect(page.locator("#said")).to_contain_text("label kept")
    here()
    page.keyboard.press("r")
    sync_api.expect(page.get_by_role("dialog")).to_be_visible()
    check_accessible(page)
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.keyboard.press("1")  # what the classifier says stands first
    here()
    page.keyboard.press("r")
    page.keyboard.type(labels[2][1][:2])
    page.keyboard.press("Enter")
    here()
    page.keyboard.press("e")
    here()
    page.keyboard.press("u")
    sync_api.expect(page.locator("#count")).to_contain_text("5 of")
    # Back to the last one, which is judged again.
    page.keyboard.press("z")
    sync_api.expect(page.locator("#file")).to_contain_text(files[4])
    sync_api.expect(page.locator("#decision")).to_contain_text("unsure")
    page.keyboard.press("x")  # means nothing
    page.keyboard.press("e")
    page.keyboard.press("ArrowLeft")
    sync_api.expect(page.locator("#file")).to_contain_text(files[4])

    table = studio_folder / "photos-corrections.csv"
    wanted = [
        ("keep", ""),
        ("relabel", labels[1][1]),
        ("relabel", labels[2][1]),
        ("exclude", ""),
        ("unsure", ""),
        ("exclude", ""),
    ]
    expected = [[name, *rest] for name, rest in zip([*files, files[4]], wanted, strict=True)]
    sync_api.expect(page.locator("#table")).to_have_text(str(table))
    page.reload()
    sync_api.expect(page.locator("#count")).to_contain_text("5 of")
    sync_api.expect(page.locator("#reason")).to_contain_text("6 of")
    with table.open(newline="") as file:
        assert [row[:3] for row in list(csv.reader(file))[1:]] == expected

    run = thawlab.train(folder.recipe_file, runs=studio_folder / "runs", **{"data.corrections": str(table)})
    held = [name for split in ("val", "test") for name in run.predictions(split).ids.tolist()]
    assert set(files[:3]) <= set(held)
    assert not {files[3], files[4]} & set(held)


@pytest.mark.parametrize("of_study", [False, True])
def test_a_token_is_asked_for_once(browser: Any, studio_folder: Path, start: Any, of_study: bool) -> None:
    token, name = "a-secret-that-is-long-enough", folder_of(studio_folder, "plain").name
    if of_study:
        (studio_folder / "runs" / "rates").mkdir()
        (studio_folder / "runs" / "rates" / "study.json").write_text("{}")
        folder_of(studio_folder, "plain").path.rename(studio_folder / "runs" / "rates" / name)
        name = f"rates/{name}"
    (studio_folder / "token").write_text(token)
    server = start("--runs", str(studio_folder / "runs"), "--token-file", str(studio_folder / "token"), verb="studio", models=())
    page = browser.new_page(base_url=f"http://127.0.0.1:{server.port}")
    page.goto(f"/run?name={quote(name)}")
    page.get_by_label("This server asks for a token").fill("another-secret")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#token-error")).to_contain_text("not the right one")
    page.get_by_label("This server asks for a token").fill(token)
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#loss .dot.train")).to_have_count(2)
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report?pass=*")
    sync_api.expect(page.locator("h1")).to_have_text("plain")
    page.go_back()
    page.get_by_role("link", name="Correct labels").click()
    sync_api.expect(page.locator("#image")).to_have_js_property("naturalHeight", 20)
    page.close()
