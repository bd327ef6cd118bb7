"""The bench's figures from measures made by hand: ratios round by round, bounds both ways, the table in its place."""

from pathlib import Path

import pytest

from bench import figures, plan, report, results
from bench.contest import Measure
from bench.results import Results


def _results(*measures: tuple[str, str, dict[str, float]]) -> Results:
    """Two measures a round."""
    found = Results("2026-01-01T00:00:00Z", "a machine", {"Weir": "1"}, [])
    found.measures += [
        Measure(scenario, name, number // 2, values) for number, (scenario, name, values) in enumerate(measures)
    ]
    return found


def test_a_ratio_is_taken_in_each_round_before_the_median() -> None:
    found = _results(
        (plan.MAIN, "Weir", {"cpu_us": 60.0}),
        (plan.MAIN, "nginx", {"cpu_us": 10.0}),
        (plan.MAIN, "Weir", {"cpu_us": 300.0}),
        (plan.MAIN, "nginx", {"cpu_us": 60.0}),
        (plan.MAIN, "Weir", {"cpu_us": 90.0}),
        (plan.MAIN, "nginx", {"cpu_us": 10.0}),
    )
    (figure, value), *more = figures.found(found)
    assert not more
    assert value == (6.0, 5.0, 9.0)
    assert figure.verdict(value.middle) == "aim reached"


def test_verdicts_of_figures_that_should_be_low_and_of_those_that_should_be_high() -> None:
    low, high = figures.FIGURES[0], figures.FIGURES[1]
    assert [low.verdict(value) for value in (6, 6.1, 10, 10.1)] == [
        "aim reached", "reached", "reached", "NOT reached",
    ]  # fmt: skip
    assert [high.verdict(value) for value in (100, 99, 50, 49)] == [
        "aim reached", "reached", "reached", "NOT reached",
    ]  # fmt: skip


def test_the_few_and_the_many_keys_are_compared_by_their_medians() -> None:
    found = _results(
        (plan.MANY, "10 keys", {"p50_ms": 1.0}),
        (plan.MANY, "1,000 keys", {"p50_ms": 3.0}),
        (plan.MANY, "10 keys", {"p50_ms": 2.0}),
        (plan.MANY, "1,000 keys", {"p50_ms": 2.0}),
        (plan.MANY, "10 keys", {"p50_ms": 2.0}),
        (plan.MANY, "1,000 keys", {"p50_ms": 2.2}),
    )
    (_, value), *_ = figures.found(found)
    assert value == (1.1, 1.0, 3.0)


def test_the_table_goes_between_its_marks_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DOCS", tmp_path)
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nlast year\n{report.END}\nafter\n")
    report.into_docs(_results((plan.START, "Weir", {"start_s": 0.5, "rss_mb": 50.0})))
    before, _, rest = page.read_text().partition(report.BEGIN)
    table, _, after = rest.partition(report.END)
    assert (before, after) == ("before\n", "\nafter\n")
    assert "last year" not in table
    assert "| cold start to the first metered answer | 0.50 s " in table


def test_results_come_back_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    found = _results((plan.START, "Weir", {"start_s": 0.5}))
    assert results.load(results.save(found)) == found


def test_a_round_that_one_of_two_could_not_finish_is_in_no_ratio() -> None:
    found = _results(
        (plan.MAIN, "Weir", {"cpu_us": 60.0}),
        (plan.MAIN, "other", {}),
        (plan.MAIN, "Weir", {"cpu_us": 80.0}),
        (plan.MAIN, "nginx", {"cpu_us": 10.0}),
    )
    (_, value), *_ = figures.found(found)
    assert value == (8.0, 8.0, 8.0)
