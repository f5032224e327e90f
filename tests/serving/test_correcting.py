from __future__ import annotations

from pathlib import Path

import pytest

from thawlab.errors import ThawlabError
from thawlab.run import RunFolder
from thawlab.serving.correcting import corrections_of, table_of


def sourced(root: Path, source: str, corrections: str | None = None) -> RunFolder:
    """Return a run of the folder whose recipe names another source."""
    folder = RunFolder(next((root / "runs").glob("plain-*")))
    more = "" if corrections is None else f'\ncorrections = "{corrections}"'
    text = folder.recipe_file.read_text().replace('source = "photos"', f'source = "{source}"{more}')
    folder.recipe_file.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("photos", "photos-corrections.csv"),
        ("./photos", "photos-corrections.csv"),
        ("labels.csv", "labels-corrections.csv"),
        ("digits", "runs/digits-corrections.csv"),
        ("shapes:100x16x3", "runs/shapes-100x16x3-corrections.csv"),
        ("digits:../../elsewhere", "runs/digits-..-..-elsewhere-corrections.csv"),
    ],
)
def test_the_table_lies_beside_the_data(studio_folder: Path, source: str, place: str) -> None:
    (studio_folder / "labels.csv").write_text("path,label\n")
    found = table_of(sourced(studio_folder, source), studio_folder / "runs")
    assert found.resolve() == studio_folder / place
    assert found.parent.is_dir()


def test_the_table_that_a_run_was_trained_with_is_added_to(studio_folder: Path) -> None:
    folder = sourced(studio_folder, "photos", "mine.csv")
    assert table_of(folder, studio_folder / "runs") == studio_folder / "photos-corrections.csv"
    (studio_folder / "mine.csv").write_text("id,decision,label,split,given,time\nant/00.png,keep,,val,ant,\n")
    found = corrections_of(folder, studio_folder / "runs")
    assert found.file == str(studio_folder / "mine.csv")
    assert [(row.id, row.decision) for row in found.decided] == [("ant/00.png", "keep")]


def test_without_its_data_there_is_no_place(studio_folder: Path) -> None:
    with pytest.raises(ThawlabError, match="not here any more"):
        table_of(sourced(studio_folder, "gone"), studio_folder / "runs")
