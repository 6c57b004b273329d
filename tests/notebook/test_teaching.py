"""What the methods' notebooks teach with: the rule's source, three images worked through, two moons."""

from pathlib import Path

import nbformat
import pytest

from alkit.methods import METHODS
from alkit.notebook import teaching

FOLDER = Path(__file__).parents[2] / "notebooks" / "methods"
WITH_EXAMPLE = [name for name in METHODS if name not in teaching.NO_EXAMPLE]


@pytest.mark.parametrize("method", WITH_EXAMPLE)
def test_an_example_is_three_images_two_of_them_asked(method: str) -> None:
    table = teaching.example(method)
    assert list(table.index) == list(teaching.IMAGES)
    assert sorted(table["asked"]) == ["first", "second", "–"]
    assert table["utility"].notna().all()
    assert "p(1)" in table or "random" in METHODS[method].strategy or METHODS[method].needs or method[0] == "t"


def test_the_three_images_tell_rules_apart() -> None:
    """Worked by hand from the example's own probabilities."""
    table = teaching.example("margin")
    p = table[["p(1)", "p(2)", "p(3)"]]
    assert table["utility"].tolist() == pytest.approx(list(p["p(2)"] - p["p(1)"]), abs=0.002)
    assert table.loc["between two", "asked"] == "first"
    ranked = teaching.example("ranked_margin")
    by_hand = -(p["p(1)"] - p["p(2)"]) - (p["p(2)"] - p["p(3)"]) / 2
    assert ranked["utility"].tolist() == pytest.approx(list(by_hand), abs=0.002)
    assert ranked.loc["between all", "asked"] == "first"
    covered = teaching.example("coreset")
    assert covered["utility"].tolist() == pytest.approx(covered["to the nearest label"].tolist(), abs=0.001)


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].whole_pool])
def test_the_rule_is_shown_by_its_own_source(method: str) -> None:
    shown = teaching.rule(method)
    assert "def " in repr(shown)
    assert repr(shown) in shown._repr_markdown_()
    assert len(repr(shown).splitlines()) < 140


def test_two_moons_are_drawn_where_nobody_waits_for_a_study() -> None:
    assert teaching.two_moons("margin", show=False) is None
    figure = teaching.two_moons("coreset")
    assert figure is not None
    left, right = figure.axes[:2]
    assert [len(left.texts), len(right.texts)] == [10, 10]


@pytest.mark.parametrize("method", list(METHODS))
def test_every_notebook_says_what_its_method_is_good_for_and_what_to_watch(method: str) -> None:
    story = nbformat.read(FOLDER / f"{method}.ipynb", as_version=4).cells[0].source
    for part in ("Good for", "Watch for", "Parameters"):
        assert f"**{part}.**" in story, part
