from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from thawlab import progress


@pytest.fixture
def aloud() -> None:
    progress.silence(False)


@pytest.mark.usefixtures("aloud")
def test_lines_go_to_standard_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("reading")
    assert capsys.readouterr() == ("", "reading\n")


def test_silence_silences_lines_and_tasks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    progress.say("reading")
    with progress.task("reading", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("aloud")
def test_a_log_gets_plain_lines_with_count_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    with progress.task("decoding", 4000) as advance:
        advance(1000)
        advance(3000)
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == "" and "\r" not in err
    assert first.startswith("decoding: 1,000/4,000 images, ") and first.endswith(" s left")
    assert "images/s" in first
    assert second.startswith("decoding: 4,000/4,000 images") and second.endswith(", 0 s left")


@pytest.mark.usefixtures("aloud")
def test_rate_and_time_left_follow_the_clock(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 120.0, 120.0])  # started, asked whether to speak, describing
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.task("training", 1000, "steps") as advance:
        advance(200)
    assert capsys.readouterr().err == "training: 200/1,000 steps, 10 steps/s, 80 s left\n"


@pytest.mark.usefixtures("aloud")
def test_a_log_is_not_filled_by_frequent_reports(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.task("decoding", 1000) as advance:
        for _ in range(1000):
            advance(1)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_on_standard_error_that_goes_away() -> None:
    leader, follower = pty.openpty()
    program = (
        "import time\nfrom thawlab import progress\n"
        "with progress.task('decoding', 4000) as advance:\n"
        "    for _ in range(4):\n        advance(1000); time.sleep(0.15)\n"
        "print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        stderr=follower,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        text=True,
        check=True,
    )
    os.close(follower)
    shown = io.BytesIO()
    try:
        while piece := os.read(leader, 65536):
            shown.write(piece)
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(leader)
    text = shown.getvalue().decode()
    assert done.stdout == "done\n"
    assert "decoding" in text and "/4,000" in text and "images/s" in text
    assert text.rstrip().endswith("\x1b[2K")  # the last thing written clears the bar's line
