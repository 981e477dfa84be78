"""The report of `make bench`, and the page that it writes."""

from tools.benchmarks.containers import Image
from tools.benchmarks.measurement import Case, Comparison
from tools.benchmarks.page import PAGE, replace_sections
from tools.benchmarks.report import case_table
from tools.benchmarks.service import SECTIONS
from tools.benchmarks.telemetry import SECTIONS as TRACE_SECTIONS

CONTAINER = Image("image", label="test", core=0).container()


def test_the_page_has_every_section_that_the_benchmark_writes() -> None:
    text = PAGE.read_text()
    names = [*SECTIONS, *TRACE_SECTIONS]
    sections = {name: f"new text of {name}" for name in names}
    changed_text = replace_sections(text, sections)
    for name in names:
        assert (
            f"<!-- bench {name} -->\nnew text of {name}\n<!-- end bench {name} -->" in changed_text
        )


def test_only_the_text_of_the_section_is_replaced() -> None:
    text = (
        "a\n<!-- bench x -->\nold\n<!-- end bench x -->\nb\n<!-- bench y -->\n<!-- end bench y -->"
    )
    expected_text = text.replace("old", r"\1 new")
    assert replace_sections(text, {"x": r"\1 new"}) == expected_text


def test_a_share_compares_the_rounds_of_two_cases_and_is_met_by_the_median() -> None:
    cases = [
        Case("base", CONTAINER),
        Case("good", CONTAINER, comparison=Comparison("base", target=0.80)),
        Case("bad", CONTAINER, comparison=Comparison("base", target=0.81)),
        Case("other", CONTAINER, comparison=Comparison("base")),
    ]
    samples = {
        "base": [100.0, 80, 90],
        "good": [100.0, 100, 180],
        "bad": [100.0, 100, 180],
        "other": [50.0, 80, 90],
    }
    assert case_table(cases, samples).splitlines()[2:] == [
        "| base | 90 (80 to 100) | | | | |",
        "| good | 100 (100 to 180) | base | 0.80 (0.50 to 1.00) | ≥ 0.80 | yes |",
        "| bad | 100 (100 to 180) | base | 0.80 (0.50 to 1.00) | ≥ 0.81 | no |",
        "| other | 80 (50 to 90) | base | 1.00 (1.00 to 2.00) | | |",
    ]
