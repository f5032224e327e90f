import pytest

from thawlab.patience import tried_again


def test_what_fails_is_tried_once_more_than_there_are_pauses():
    tries = []

    def work():
        tries.append(1)
        raise OSError(len(tries))

    with pytest.raises(OSError, match="3"):
        tried_again(work, (0.0, 0.0), lambda *_: True)
    assert len(tries) == 3


def test_the_first_success_ends_the_tries_and_each_pause_is_announced():
    answers, announced = iter([ConnectionError("cut"), ConnectionError("again"), "whole"]), []

    def work():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def waits(error, pause):
        announced.append((str(error), pause))
        return True

    assert tried_again(work, (0.0, 0.01, 5.0), waits) == "whole"
    assert announced == [("cut", 0.0), ("again", 0.01)]


def test_what_no_further_try_mends_is_not_tried_again():
    tries = []

    def work():
        tries.append(1)
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        tried_again(work, (60.0,), lambda error, _: not isinstance(error, FileNotFoundError))
    assert len(tries) == 1
