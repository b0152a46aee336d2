"""The picture of attention."""

from experiments.pages import png_of
from experiments.pages.attention import draw_attention

ODD = "$\\frac{B-</a>"  # neither TeX nor HTML


def example(**changes):
    return {"source": ["ein", ODD, "\n"], "written": ["a", "\n"], "attention": [[0.1, 0.7, 0.2], [0, 0, 1]]} | changes


def test_rows_are_written_symbols_and_columns_those_of_the_source():
    figure = draw_attention([example(), example(written=["one"], attention=[[1, 0, 0]]), example()])
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == 3
    assert panels[0].images[0].get_array().tolist() == [[0.1, 0.7, 0.2], [0, 0, 1]]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["ein", ODD, "⏎"]
    assert [label.get_text() for label in panels[1].get_yticklabels()] == ["one"]
    assert png_of(figure).startswith(b"\x89PNG")
