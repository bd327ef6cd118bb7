"""What shows the compiler how Weir is used is Weir itself, from a copy of its source."""

from pathlib import Path

import pytest

from native import training


def test_the_demo_serves_what_it_is_asked(tmp_path: Path) -> None:
    training.copy_source(tmp_path)
    assert training.train(tmp_path, each=4) == 4 * training.CALLERS


def test_a_demo_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    training.copy_source(tmp_path)
    (tmp_path / "weir" / "up.py").write_text("raise SystemExit('weir: it is not to be')\n")
    with pytest.raises(training.CannotTrainError, match=r"^the demo did not start: weir: it is not to be$"):
        training.train(tmp_path)


def test_a_demo_that_refuses_is_one_line(tmp_path: Path) -> None:
    training.copy_source(tmp_path)
    demo = tmp_path / "weir" / "demo.py"
    demo.write_text(demo.read_text().replace('CREDIT_USD = "25.00"', 'CREDIT_USD = "0.000001"'))
    with pytest.raises(training.CannotTrainError, match=r"^the demo answered 402: "):
        training.train(tmp_path, each=4)
