"""Heights of frames that no script measures: the numbers of the layout, added up by hand.

`test_displays` holds them against pages in a browser; here they are without one.
"""

import pytest
from fakes import fake_run, fake_t5

from harness.views.frame_height import estimate, figure_height, maps_height
from harness.views.selection import Selection

TEXT_COLUMN = 900 - 56


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("run"), lengths=[5, 8, 1])


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return fake_t5(tmp_path_factory.mktemp("t5"))


def beyond_controls(run, part, prompt=0, level="token"):
    """The height of a page of one part, less what every page has and a bar of controls (66 pixels) is."""
    kept = Selection((prompt,), tuple(run.all_heads), "")
    return estimate(run, [part], kept, level) - estimate(run, ["controls"], kept, level) + 66


def test_a_figure_wider_than_the_column_shrinks_with_its_height():
    """The column less 26 pixels of the figure's frame: 818."""
    assert figure_height("", 2 * (TEXT_COLUMN - 26), 1000) == figure_height("", TEXT_COLUMN - 26, 500)
    assert figure_height("", 400, 500) == figure_height("", TEXT_COLUMN - 26, 500)


def test_two_maps_of_few_heads_stand_side_by_side_and_the_third_below():
    """370 pixels each; a row is as high as its map of the most layers: 24 for each and for the names, and 100."""
    height = maps_height("", [(3, 4)], [])
    assert maps_height("", [(2, 4), (3, 4)], []) == height
    assert maps_height("", [(2, 4), (3, 4), (5, 4)], []) == height + 100 + 24 * 6


def test_lines_are_as_high_as_the_longer_text(run, t5):
    assert [beyond_controls(run, "headview", prompt) for prompt in (0, 1)] == [180 + 14 + 23 * 5, 180 + 14 + 23 * 8]
    assert [t5.data[name].values[0] for name in ("length", "source_length")] == [4, 9]
    assert beyond_controls(t5, "headview") == 180 + 14 + 23 * 9


def test_pictures_of_stacks_stand_side_by_side_while_they_fit(run, t5):
    """A picture of 4 heads has 0.32 of the column, so two stand in a row; one of 3 layers is 3 × 80 + 18 high, and
    each has a margin of 12 and, where there are several stacks, a name of 24. Cross pictures are as much lower as what
    is written is shorter than what is read: four tokens of nine."""
    assert beyond_controls(run, "modelview") == 96 + 3 * 80 + 18 + 12
    encoder, cross = 3 * 80 + 18 + 36, 72 + 18 + 36
    assert beyond_controls(t5, "modelview") == 96 + encoder + cross  # the decoder beside the encoder
