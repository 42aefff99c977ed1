from __future__ import annotations

from dashboards.figures.labels import Label, Place, arrange

FITS = 100  # a name of ten letters is a tenth of the plot


def test_a_name_runs_away_from_the_nearer_edge() -> None:
    places = [Place(0.0, 0.5, "x" * 10), Place(1.0, 0.5, "y" * 10)]
    assert arrange(places, [0, 1], FITS, 5) == [Label(0, rightwards=True), Label(1, rightwards=False)]


def test_of_names_that_would_overlap_the_first_is_written() -> None:
    places = [Place(0.5, 0.5, "x" * 60), Place(0.5, 0.51, "y" * 60)]
    assert arrange(places, [1, 0], FITS, 5) == []  # neither fits on any side
    places = [Place(0.02, 0.5, "x" * 30), Place(0.1, 0.51, "y" * 30)]
    assert arrange(places, [1, 0], FITS, 5) == [Label(1, rightwards=True)]


def test_the_side_that_covers_fewer_points_is_taken() -> None:
    crowd = [Place(0.45 + at / 100, 0.5, "") for at in range(5)]
    places = [Place(0.4, 0.5, "x" * 20), *crowd]
    assert arrange(places, [0], FITS, 5) == [Label(0, rightwards=False)]


def test_no_more_names_than_asked_for() -> None:
    places = [Place(0.1, at / 10, "x") for at in range(8)]
    assert len(arrange(places, list(range(8)), FITS, 3)) == 3
