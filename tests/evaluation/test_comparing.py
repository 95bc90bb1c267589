"""The difference of two scores, and when it counts as a gain."""

from __future__ import annotations

import numpy as np
import pytest

from lit_condense.evaluation import Score
from lit_condense.evaluation.comparing import Difference


def score(*accuracies):
    return Score("net", accuracies, 0.0)


def test_the_standard_error_is_that_of_the_difference_of_two_means():
    one, other = (0.52, 0.55, 0.61, 0.50), (0.40, 0.47, 0.42)
    found = Difference.of(score(*one), score(*other))
    # Var(mean(x) - mean(y)) = s_x^2 / n + s_y^2 / m
    error = np.sqrt(np.var(one, ddof=1) / 4 + np.var(other, ddof=1) / 3)
    assert found.points == pytest.approx(100 * (np.mean(one) - np.mean(other)))
    assert found.standard_error == pytest.approx(100 * error)
    assert found.as_plain() == {"points": found.points, "standard_error": found.standard_error}


@pytest.mark.parametrize(
    ("one", "other", "gain"),
    [
        ((0.50, 0.52), (0.40, 0.42), True),
        ((0.50, 0.60), (0.49, 0.59), False),  # above, by less than the error
        ((0.40, 0.42), (0.50, 0.52), False),
        ((0.5, 0.5), (0.5, 0.5), False),
        ((0.51,), (0.50,), True),  # no error is known of one network
        ((0.50,), (0.50,), False),
    ],
)
def test_a_gain_is_more_than_the_standard_error(one, other, gain):
    assert Difference.of(score(*one), score(*other)).is_gain == gain


def test_one_network_has_no_standard_error():
    found = Difference.of(score(0.5), score(0.4, 0.45))
    assert found.standard_error is None
    assert str(found) == "+7.5 points"
    assert str(Difference.of(score(0.5, 0.6), score(0.6, 0.7))) == "-10.0 +- 7.1 points"
