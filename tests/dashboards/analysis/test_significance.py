from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from dashboards.analysis.significance import (
    BETTER,
    CONTROL,
    UNDECIDED,
    WORSE,
    benjamini_hochberg,
    compare,
    holm,
    judge,
    seeds_needed,
)

# R's `sleep`: t.test(paired = TRUE) prints t = -4.0621, df = 9, p = 0.002833, interval -2.4598858 .. -0.7001142.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") and "BH".
P_VALUES = [0.01, 0.02, 0.03, 0.04, 0.05]


def frame(**arms: list[float]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(arms, orient="index")


def test_the_paired_t_test_is_r_s() -> None:
    row = compare(frame(none=SLEEP_2, arm=SLEEP_1), "none").loc["arm"]
    assert row["difference"] == pytest.approx(-1.58)
    assert (row["low"], row["high"]) == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert row["p"] == pytest.approx(0.002833, abs=1e-6)
    assert row["verdict"] == WORSE


def test_direction_follows_the_metric() -> None:
    values = frame(none=SLEEP_2, arm=SLEEP_1)
    assert compare(values, "none", higher_is_better=False).loc["arm", "verdict"] == BETTER


def test_corrections_are_r_s() -> None:
    p = np.array(P_VALUES)
    assert list(holm(p)) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert list(benjamini_hochberg(p)) == pytest.approx([0.05] * 5)


def test_corrections_are_statsmodels_s_in_any_order() -> None:
    p = np.random.default_rng(3).uniform(0, 0.2, 30)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])


def test_undefined_p_values_are_not_comparisons() -> None:
    for correct, expected in ((holm, [0.04, np.nan, 0.04]), (benjamini_hochberg, [0.03, np.nan, 0.03])):
        np.testing.assert_allclose(correct(np.array([0.02, np.nan, 0.03])), expected)
        assert np.isnan(correct(np.array([np.nan]))).all()


def test_missing_seeds_pair_only_what_both_have() -> None:
    values = frame(none=[50.0, 51.0, np.nan, 49.5], arm=[92.0, np.nan, 93.0, 91.0])
    row = compare(values, "none").loc["arm"]
    expected = stats.ttest_rel([92.0, 91.0], [50.0, 49.5])
    assert row["n"] == 2
    assert row["p"] == pytest.approx(expected.pvalue)


def test_without_common_seeds_it_is_welch() -> None:
    first, second = [90.0, 91.0, 92.5], [50.0, 51.5, 52.0]
    values = frame(none=[*second, *[np.nan] * 3], arm=[*[np.nan] * 3, *first])
    row = compare(values, "none").loc["arm"]
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert row["method"] == "Welch t"
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_the_control_is_not_compared_with_itself() -> None:
    row = compare(frame(none=SLEEP_2, arm=SLEEP_1), "none").loc["none"]
    assert row["verdict"] == CONTROL
    assert row[["difference", "p", "p_holm"]].isna().all()


@pytest.mark.parametrize(
    ("arm", "control", "reason"),
    [
        ([90.0], [50.0], "one seed: its spread is unknown"),
        ([np.nan], [50.0], "no result to compare yet"),
        ([90.0, 91.0], [50.0, 51.0], "the same difference for every seed"),
        ([50.0, 51.0, 52.0], [50.0, 51.0, 52.0], "no difference for every seed"),
        ([50.0, 51.0, 52.0], [51.0, 50.0, 52.5], "the interval holds 0"),
    ],
)
def test_what_cannot_be_decided_says_why(arm: list[float], control: list[float], reason: str) -> None:
    row = compare(frame(none=control, arm=arm), "none").loc["arm"]
    assert row["verdict"] == UNDECIDED
    assert reason in row["reason"]


def test_two_seeds_are_a_t_test_with_one_degree_of_freedom() -> None:
    row = compare(frame(none=[50.0, 51.0], arm=[90.0, 92.0]), "none").loc["arm"]
    assert row["p"] == pytest.approx(stats.ttest_rel([90.0, 92.0], [50.0, 51.0]).pvalue)


def test_an_interval_off_zero_may_still_be_undecided_after_correction() -> None:
    generator = np.random.default_rng(0)
    values = pd.DataFrame(generator.normal(50, 1, (40, 5)))
    values.iloc[1] = values.iloc[0] + [1.0, 2.0, 1.5, 0.8, 1.2]
    row = compare(values, 0).loc[1]  # type: ignore[arg-type]
    assert row["p"] < 0.05
    assert row["verdict"] == UNDECIDED
    assert "leaves out 0, but not after correction over 39 comparisons" in row["reason"]


def test_seeds_needed_are_statsmodels_s() -> None:
    for effect, alpha in ((0.5, 0.05), (1.0, 0.05), (1.0, 0.01), (2.0, 0.0025)):
        expected = TTestPower().solve_power(effect_size=effect, alpha=alpha, power=0.8)
        assert seeds_needed(effect, alpha) == np.ceil(expected)
    assert seeds_needed(-1.0, 0.05) == seeds_needed(1.0, 0.05)
    assert np.isinf(seeds_needed(0.01, 0.05))
    assert seeds_needed(1e6, 0.05) <= 3


def test_more_seeds_count_from_those_at_hand() -> None:
    row = compare(frame(none=[0.0, 0.0, 0.0], arm=[0.5, 2.0, 0.2]), "none").loc["arm"]
    effect = 0.9 / np.std([0.5, 2.0, 0.2], ddof=1)
    assert row["more_seeds"] == seeds_needed(effect, 0.05) - 3


def test_null_sweeps_rarely_find_a_better_arm() -> None:
    """1,000 tables of 20 arms and 5 seeds without any effect; seeds share luck, as real ones do."""
    generator = np.random.default_rng(20)
    tables, arms, seeds = 1000, 20, 5
    luck = generator.normal(0, 0.5, (tables, 1, seeds))
    noise = generator.normal(0, 1.0, (tables, arms, seeds)) * generator.uniform(0.3, 3, (tables, arms, 1))
    values = 90 + luck + noise
    better = [(judge(pd.DataFrame(table), 0)["verdict"] == BETTER).any() for table in values]
    assert np.mean(better) <= 0.05


def test_real_effects_are_found() -> None:
    values = frame(
        none=[50.1, 49.6, 51.7, 50.4, 51.2],
        nl=[93.6, 92.5, 93.5, 93.4, 93.3],
        worse=[30.0, 31.0, 30.5, 32.0, 29.0],
        same=[50.3, 49.5, 51.5, 50.9, 51.0],
    )
    verdicts = compare(values, "none")["verdict"]
    assert dict(verdicts) == {"none": CONTROL, "nl": BETTER, "worse": WORSE, "same": UNDECIDED}


def test_a_verdict_needs_holm_and_not_only_the_false_discovery_rate() -> None:
    """Two arms whose p is small for one of ten comparisons, but not for all."""
    rng = np.random.default_rng(3)
    rows = {"control": rng.normal(60, 1, 8)} | {f"null {at}": rng.normal(60, 1, 8) for at in range(4)}
    noise = rng.normal(0, 1, 8)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    for at, p in enumerate((0.016, 0.017, 0.018, 0.019)):
        t = stats.t.isf(p / 2, 7)
        rows[f"near {at}"] = rows["control"] + t / np.sqrt(8) + noise
    table = judge(pd.DataFrame.from_dict(rows, orient="index"), "control")
    near = table[table.index.str.startswith("near")]
    assert (near["p_bh"] < 0.05).all()
    assert (near["p_holm"] > 0.05).all()
    assert (near["verdict"] == UNDECIDED).all()


def test_one_seed_of_its_own_has_no_test() -> None:
    row = compare(frame(none=[50.0, 51.0, np.nan], arm=[np.nan, np.nan, 90.0]), "none").loc["arm"]
    assert row["verdict"] == UNDECIDED
    assert row["method"] != "Welch t"
    assert np.isnan(row["p"])


def test_more_seeds_are_enough_for_the_corrected_level() -> None:
    values = frame(none=[0.0, 0.0, 0.0], arm=[0.5, 2.0, 0.2], other=[0.1, -0.3, 0.1], third=[0.2, -0.1, -0.4])
    effect = 0.9 / np.std([0.5, 2.0, 0.2], ddof=1)
    assert compare(values, "none").loc["arm", "more_seeds"] == seeds_needed(effect, 0.05 / 3) - 3
    assert seeds_needed(effect, 0.05 / 3) > seeds_needed(effect, 0.05)


def test_differences_that_only_rounding_tells_apart_are_one_number() -> None:
    control = [0.1, 17.3, 50.2, 99.7]
    arm = [value + 0.1 for value in control]
    assert np.ptp(np.array(arm) - np.array(control)) > 0
    row = compare(frame(none=control, arm=arm), "none").loc["arm"]
    assert row["verdict"] == UNDECIDED
    assert "the same difference for every seed" in row["reason"]


def test_seeds_that_differ_and_means_that_do_not() -> None:
    """No number of seeds decides a difference of nothing, and the page must not fail for it."""
    values = pd.DataFrame([[80.0, 82.0, 84.0], [81.0, 82.0, 83.0]], index=["control", "arm"])
    row = compare(values, "control").loc["arm"]
    assert (row["difference"], row["verdict"]) == (0.0, "undecided")
    assert np.isnan(row["more_seeds"])
    assert row["reason"] == "the same mean: the interval holds 0"
