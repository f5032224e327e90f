from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from thawlab.report.style import BLUE, FOREGROUND, GREEN, GRID, MUTED, ORANGE, figure, for_file, for_page, to_svg

STAND_INS = (FOREGROUND, MUTED, GRID, BLUE, ORANGE, GREEN)


@pytest.fixture(scope="module")
def svg() -> str:
    with figure(4, 2, "example") as drawing:
        axes = drawing.add_subplot()
        for level, colour in enumerate(STAND_INS):
            axes.plot([0, 1], [level, level], color=colour)
        axes.set_title("a title")
        return to_svg(drawing)


def test_the_stand_ins_are_six_different_colours_and_all_are_drawn(svg: str) -> None:
    assert len(set(STAND_INS)) == 6
    assert all(colour in svg for colour in STAND_INS)


@pytest.mark.parametrize("finish", [for_page, for_file])
def test_no_stand_in_is_left(svg: str, finish: object) -> None:
    finished = finish(svg)  # type: ignore[operator]
    assert not [colour for colour in STAND_INS if colour in finished.lower()]


def test_on_a_page_the_colours_are_the_pages(svg: str) -> None:
    page = for_page(svg)
    assert set(re.findall(r"var\((--[a-z]+)\)", page)) == {"--fg", "--muted", "--line", "--accent", "--second", "--third"}


def test_in_a_file_the_colours_are_colours(svg: str) -> None:
    file = for_file(svg)
    assert "var(" not in file
    assert "#1f6feb" in file


def test_both_are_xml_with_one_svg_element(svg: str) -> None:
    for finished in (for_page(svg), for_file(svg)):
        assert ET.fromstring(finished).tag == "{http://www.w3.org/2000/svg}svg"


def test_on_a_page_the_figure_takes_the_width_it_is_given_within_limits(svg: str) -> None:
    root = ET.fromstring(for_page(svg))
    assert "width" not in root.attrib
    assert "height" not in root.attrib
    assert root.attrib["aria-hidden"] == "true"
    assert re.fullmatch(r"min-width:30\dpx;max-width:46\dpx", root.attrib["style"])  # 4 inches are 288 points
    assert root.attrib["viewBox"].startswith("0 0 288")


def test_text_stays_text_in_the_pages_font(svg: str) -> None:
    assert "a title</text>" in svg
    families = set(re.findall(r"font(?:-family)?: (?:[\w.]+ )*?(system-ui[^;\"]*|[^;\"]*)", svg))
    assert families == {"system-ui, sans-serif"}


def test_the_same_figure_is_the_same_text_and_ids_of_two_figures_differ(svg: str) -> None:
    def draw(name: str) -> str:
        with figure(4, 2, name) as drawing:
            drawing.add_subplot().plot([0, 1], [0, 1], "o")
            return to_svg(drawing)

    assert draw("one") == draw("one")
    clips = [set(re.findall(r'<clipPath id="(\w+)"', text)) for text in (draw("one"), draw("two"), svg)]
    assert all(clips)
    assert not clips[0] & clips[1]


def test_nothing_points_to_the_network(svg: str) -> None:
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", for_file(svg))
    assert "http" not in without_names
