"""Metrics against numbers computed by hand."""

import numpy as np
import pytest

from workloads import metrics

SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.4, 0.1], [0.2, 0.5, 0.3]])
LABELS = np.array([0, 1, 1, 1])


def test_top_k_by_hand():
    assert metrics.top_k_percent(SCORES, LABELS, 1) == 50.0
    assert metrics.top_k_percent(SCORES, LABELS, 2) == 100.0
    assert metrics.top_k_percent(SCORES, LABELS, 5) == 100.0


def test_ties_are_broken_as_argmax_breaks_them():
    constant = np.zeros((3, 3))
    assert metrics.top_k_percent(constant, np.array([0, 1, 2]), 1) == pytest.approx(100 / 3)
    assert metrics.top_k_percent(constant, np.array([0, 1, 2]), 2) == pytest.approx(200 / 3)


def test_averaged_error_is_the_mean_of_both_errors():
    scores = np.eye(10)[[0, 1, 2, 3]]
    assert metrics.averaged_error_percent(scores, np.array([0, 1, 3, 9])) == pytest.approx((50 + 25) / 2)


def test_confusion_and_per_class_accuracy():
    assert metrics.confusion(SCORES, LABELS).tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    np.testing.assert_allclose(metrics.per_class_percent(SCORES, LABELS), [100.0, 100 / 3, np.nan])


def test_calibration_error_by_hand():
    # bins of width 1/2: (0.5, 1] holds 0.7 (right) and 0.6 (wrong); (0, 0.5] holds 0.5 (wrong) and 0.5 (right)
    expected = abs((1 - 0.7) + (0 - 0.6)) / 4 + abs((0 - 0.5) + (1 - 0.5)) / 4
    assert metrics.expected_calibration_error(SCORES, LABELS, bins=2) == pytest.approx(expected)


def test_calibration_of_certainty():
    certain = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert metrics.expected_calibration_error(certain, np.array([0, 0])) == 0.0
    assert metrics.expected_calibration_error(certain, np.array([1, 1])) == 1.0


def test_summary_has_what_every_trial_reports():
    found = metrics.summary(SCORES, LABELS)
    assert found["top1_percent"] == 50.0
    assert found["validation_loss"] == pytest.approx(-np.log([0.7, 0.3, 0.4, 0.5]).mean())
