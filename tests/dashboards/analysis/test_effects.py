from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from dashboards.analysis import axes
from dashboards.analysis.effects import cell_means, interactions, main_effects

# R's `warpbreaks` example is a 2 x 3 design with 9 replicates: aov(breaks ~ wool * tension) prints
# wool F = 3.765 (p 0.058213), tension F = 8.498 (p 0.000693), wool:tension F = 4.189 (p 0.021044).
WARPBREAKS = {
    ("A", "L"): [26, 30, 54, 25, 70, 52, 51, 26, 67],
    ("A", "M"): [18, 21, 29, 17, 12, 18, 35, 30, 36],
    ("A", "H"): [36, 21, 24, 18, 10, 43, 28, 15, 26],
    ("B", "L"): [27, 14, 29, 19, 29, 31, 41, 20, 44],
    ("B", "M"): [42, 26, 19, 16, 39, 28, 21, 39, 29],
    ("B", "H"): [20, 21, 24, 17, 13, 15, 15, 16, 28],
}


def warpbreaks() -> tuple[pd.DataFrame, pd.DataFrame]:
    arms = ["".join(key) for key in WARPBREAKS]
    design = pd.DataFrame(list(WARPBREAKS), columns=["wool", "tension"], index=arms)
    return design, pd.DataFrame(list(WARPBREAKS.values()), index=arms, dtype=float)


def test_it_is_the_linear_model_with_seeds_as_blocks() -> None:
    design, values = warpbreaks()
    long = values.stack().rename("y").rename_axis(["arm", "seed"]).reset_index().join(design, on="arm")
    expected = anova_lm(ols("y ~ C(seed) + C(wool) + C(tension)", long).fit(), typ=2)
    main = main_effects(design, values).drop_duplicates("axis").set_index("axis")
    assert main.loc["wool", "p"] == pytest.approx(expected.loc["C(wool)", "PR(>F)"])
    assert main.loc["tension", "p"] == pytest.approx(expected.loc["C(tension)", "PR(>F)"])
    total = ((long["y"] - long["y"].mean()) ** 2).sum()
    assert main.loc["tension", "share"] == pytest.approx(expected.loc["C(tension)", "sum_sq"] / total)
    crossed = anova_lm(ols("y ~ C(seed) + C(wool) * C(tension)", long).fit(), typ=2)
    (pair,) = interactions(design, values).to_dict("records")
    assert pair["p"] == pytest.approx(crossed.loc["C(wool):C(tension)", "PR(>F)"])
    assert pair["balance"] == "fully crossed, balanced: 9 trials per combination"


def test_shares_are_r_s() -> None:
    """Sums of squares do not depend on blocks in a balanced design: R prints 451, 2034, 1003 of 9232."""
    design, values = warpbreaks()
    main = main_effects(design, values).drop_duplicates("axis").set_index("axis")
    assert main.loc["wool", "share"] == pytest.approx(450.7 / 9232.8, rel=1e-3)
    assert main.loc["tension", "share"] == pytest.approx(2034.3 / 9232.8, rel=1e-3)
    assert interactions(design, values)["share"][0] == pytest.approx(1002.8 / 9232.8, rel=1e-3)


def test_level_means_of_a_balanced_design_are_plain_means() -> None:
    design, values = warpbreaks()
    main = main_effects(design, values)
    for row in main.to_dict("records"):
        plain = values[design[row["axis"]] == row["level"]].to_numpy().mean()
        assert row["mean"] == pytest.approx(plain)
        assert row["low"] < row["mean"] < row["high"]


def test_level_means_of_an_unbalanced_design_are_adjusted() -> None:
    """The effect of `a` is 10 and of `b` 100; level y of `a` was mostly run at the better level of `b`."""
    arms = {"x1": ("x", "1"), "x2": ("x", "2"), "y2": ("y", "2")}
    design = pd.DataFrame.from_dict(arms, orient="index", columns=["a", "b"])
    noise = np.array([0.0, 0.3, -0.2, 0.1])
    values = pd.DataFrame([0 + noise, 100 + noise[::-1], 110 + noise * 2], index=list(arms))
    main = main_effects(design, values).set_index(["axis", "level"])
    assert main.loc[("a", "y"), "mean"] - main.loc[("a", "x"), "mean"] == pytest.approx(10, abs=0.5)
    assert main["adjusted"].all()


def test_axes_that_cannot_be_separated_are_looked_at_alone() -> None:
    design = pd.DataFrame({"a": ["x", "y"], "b": ["1", "2"]}, index=["p", "q"])
    values = pd.DataFrame([[1.0, 2.0, 1.5], [5.0, 6.5, 5.5]], index=["p", "q"])
    main = main_effects(design, values)
    assert not main["adjusted"].any()
    assert (main["p"] < 0.05).all()
    assert interactions(design, values)["balance"][0].startswith("2 of 4 combinations were not run")


def test_one_seed_and_one_axis_leaves_no_noise_to_test_against() -> None:
    design = pd.DataFrame({"a": ["x", "y"]}, index=["p", "q"])
    main = main_effects(design, pd.DataFrame([[1.0], [5.0]], index=["p", "q"]))
    assert list(main["mean"]) == [1.0, 5.0]
    assert main[["low", "high", "p", "share"]].isna().all(axis=None)


def test_nothing_measured_is_empty() -> None:
    design = pd.DataFrame({"a": ["x", "y"]}, index=["p", "q"])
    assert main_effects(design, pd.DataFrame(np.nan, index=["p", "q"], columns=[0, 1])).empty


def test_cell_means_keep_the_order_and_leave_gaps() -> None:
    design, values = warpbreaks()
    table = cell_means(design, values.drop(index="BH").reindex(values.index), "wool", "tension")
    assert list(table.columns) == ["L", "M", "H"]
    assert np.isnan(table.loc["B", "H"])
    assert table.loc["A", "L"] == pytest.approx(np.mean(WARPBREAKS[("A", "L")]))


def test_the_design_is_read_from_settings_and_resolved_specs() -> None:
    arms = pd.DataFrame(
        {
            "block": ["none", "rnl", "rnl"],
            "settings": [{}, {"block": {"name": "rnl"}, "block.kernel": [3, 1, 1]}, {"insertion": {"res3": [0, 1]}}],
            "spec": [
                {"block": {"name": "none"}, "insertion": {}},
                {"block": {"name": "rnl", "kernel": [3, 1, 1]}, "insertion": {"res3": [0]}},
                {"block": {"name": "rnl", "kernel": [1, 3, 3]}, "insertion": {"res3": [0, 1]}},
            ],
        },
        index=["a", "b", "c"],
    )
    table = axes.design(arms)
    assert list(table["block.kernel"]) == [None, "3×1×1", "1×3×3"]
    assert list(table["insertion"]) == ["nowhere", "res3", "res3[0,1]"]
    (family,) = axes.families(arms).items()
    assert family[0] == "rnl"
    assert list(family[1].columns) == ["block.kernel", "insertion"]


def test_an_unbalanced_design_is_tested_by_type_two_whatever_the_order_of_its_axes() -> None:
    levels = [("a", "x"), ("a", "y"), ("a", "z"), ("b", "y"), ("b", "z"), ("c", "z"), ("c", "x")]
    design = pd.DataFrame(levels, columns=["one", "two"], index=[f"arm{at}" for at in range(len(levels))])
    values = pd.DataFrame(np.random.default_rng(5).normal(60, 1, (len(levels), 4)), index=design.index)
    values += np.array([0.0, 1.0, 2.0, 1.5, 2.5, 3.0, 1.0])[:, None]
    orders = (["one", "two"], ["two", "one"])
    forth, back = (main_effects(design[order], values).groupby("axis")[["share", "p"]].first() for order in orders)
    pd.testing.assert_frame_equal(forth, back.loc[forth.index])
    long = values.stack().rename("value").rename_axis(["arm", "seed"]).reset_index().join(design, on="arm")
    fit = ols("value ~ C(seed) + C(one) + C(two)", data=long).fit()
    second, first = anova_lm(fit, typ=2), anova_lm(fit, typ=1)
    assert forth.loc["one", "p"] == pytest.approx(second.loc["C(one)", "PR(>F)"])
    assert first.loc["C(one)", "PR(>F)"] != pytest.approx(second.loc["C(one)", "PR(>F)"])
