"""The page of `thawlab serve` in a real browser."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from asking import Server, picture

# Drops files on the page as a hand would; they are given as base64.
DROP = """(target, files) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, { type: "image/png" }));
  }
  for (const kind of ["dragover", "drop"])
    target.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(params=[("light", 1200), ("dark", 390)], ids=["light desktop", "dark phone"])
def page(browser: Any, server: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page; in the end nothing was said on its console, and nothing asked of another host."""
    scheme, width = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"http://127.0.0.1:{server.port}/")
    yield page
    page.close()
    assert said == []
    own = (f"http://127.0.0.1:{server.port}/", f"blob:http://127.0.0.1:{server.port}/", "data:")
    assert [url for url in asked if not url.startswith(own)] == []


def answered(page: Any, count: int) -> Any:
    page.get_by_role("status").filter(has_text=f"{count} of {count} picture").wait_for()
    return page.locator(".picture")


def test_three_dropped_pictures_are_answered_by_both_models(page: Any, server: Server, names: Sequence[str]) -> None:
    files = [[f"{number}.png", base64.b64encode(picture(number)).decode()] for number in range(3)]
    page.locator("#drop").evaluate(DROP, files)
    cards = answered(page, 3)
    assert cards.count() == 3
    expected = server.predict([picture(0)]).json["pictures"][0]["answers"]
    first = cards.nth(0)
    assert first.locator(".name").inner_text() == "0.png"
    assert [title.inner_text() for title in first.locator("h3").all()] == list(names)
    for place, answer in enumerate(expected):
        bars = first.locator(".bars").nth(place).locator(".line")
        shown = [tuple(bar.locator("span").all_inner_texts()) for bar in bars.all()]
        assert shown == [(row["class"], f"{100 * row['probability']:.1f} %") for row in answer["predictions"]]


def test_grad_cam_fades(page: Any) -> None:
    page.locator("#files").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture(5)})
    card = answered(page, 1).first
    card.get_by_role("button", name="Why").first.click()
    heat = card.locator(".heat")
    heat.wait_for()
    assert heat.evaluate("image => image.naturalWidth") in {32, 48}  # the picture beside its overlay
    slider = card.get_by_role("slider")
    slider.focus()
    for key, opacity in (("Home", "0"), ("End", "1")):
        slider.press(key)
        assert heat.evaluate("image => getComputedStyle(image).opacity") == opacity


def test_what_is_no_picture_is_said(page: Any) -> None:
    page.locator("#files").set_input_files({"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    assert page.locator("#drop-error").inner_text() == "These files are no pictures."
    wrong = [
        {"name": name, "mimeType": "image/png", "buffer": content} for name, content in (("b.png", b"x"), ("c.png", picture(1)))
    ]
    page.locator("#files").set_input_files(wrong)
    page.get_by_role("status").filter(has_text="1 of 2 pictures answered").wait_for()
    assert "not an image" in page.locator(".picture .error").inner_text()


def test_it_can_be_used_by_everybody(page: Any) -> None:
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe  # noqa: N806 - a class
    page.locator("#files").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture(5)})
    card = answered(page, 1).first
    card.get_by_role("button", name="Why").first.click()
    card.locator(".heat").wait_for()
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa"]}
    violations = Axe().run(page, options=options).response["violations"]
    assert [(rule["id"], rule["impact"]) for rule in violations if rule["impact"] in {"serious", "critical"}] == []
    assert page.evaluate_handle("document.documentElement").evaluate("root => root.scrollWidth <= root.clientWidth")


def test_a_token_is_asked_for(browser: Any, start: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-secret-of-many-letters")
    guarded = start("--token-file", str(tmp_path / "token"), models=("one",))
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{guarded.port}/")
    page.get_by_label("This server asks for a token.").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    page.get_by_text("This token is not the right one.").wait_for()
    page.get_by_label("This server asks for a token.").fill("a-secret-of-many-letters")
    page.get_by_role("button", name="Use it").click()
    page.locator("#models .card").wait_for()
    page.locator("#files").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": picture(5)})
    answered(page, 1)
    page.close()
