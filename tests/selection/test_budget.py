from __future__ import annotations

import pytest

from lit_condense.errors import SettingsError
from lit_condense.selection import Budget
from tests.helpers import TinyData

SIZES = (9, 7, 1, 4, 20)


@pytest.fixture(scope="module")
def real():
    return TinyData(SIZES).real


def counts(budget, real):
    return [count for _, count in budget.groups(real)]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(ipc=1), [1, 1, 1, 1, 1]),
        (Budget(ipc=[2, 7, 1, 3, 5]), [2, 7, 1, 3, 5]),
        # halves to the even number: 4.5, 3.5, 0.5 and 2
        (Budget(fraction=1.0), list(SIZES)),
        (Budget(fraction=0.75), [7, 5, 1, 3, 15]),
        (Budget(ipc=3, balanced=False), [15]),
        (Budget(ipc=[0 + 1, 2, 3, 4, 5], balanced=False), [15]),
        (Budget(fraction=0.5, balanced=False), [20]),  # 20.5
        (Budget(fraction=0.1, balanced=False), [4]),
    ],
    ids=str,
)
def test_the_counts_are_those_that_were_asked_for(real, budget, expected):
    assert counts(budget, real) == expected
    assert budget.total(real) == sum(expected)


def test_halves_go_to_the_even_number():
    real = TinyData((9, 7, 5, 3)).real
    assert counts(Budget(fraction=0.5), real) == [4, 4, 2, 2]


def test_balanced_groups_are_the_classes_and_an_unbalanced_one_is_everything(real):
    balanced = Budget(ipc=1).groups(real)
    assert [real.labels[members].unique().tolist() for members, _ in balanced] == [[0], [1], [2], [3], [4]]
    assert [len(members) for members, _ in balanced] == list(SIZES)
    ((everything, _),) = Budget(ipc=1, balanced=False).groups(real)
    assert everything.tolist() == list(range(sum(SIZES)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "ipc"),
        ({"ipc": 1, "fraction": 0.1}, "Give one of them"),
        ({"ipc": 0}, "ipc"),
        ({"ipc": []}, "ipc"),
        ({"ipc": [1, 0]}, "ipc"),
        ({"fraction": 0.0}, "fraction"),
        ({"fraction": -0.1}, "fraction"),
        ({"fraction": 1.01}, "fraction"),
        ({"fraction": float("nan")}, "fraction"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(SettingsError, match=words):
        Budget(**settings)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(fraction=0.1), "no image of class 2 .stripe 2., which has 1"),
        (Budget(fraction=0.01, balanced=False), "no image of the data set, which has 41"),
        (Budget(ipc=2), "2 images are to be kept of class 2 .stripe 2., which has 1"),
        (Budget(ipc=9, balanced=False), "45 images are to be kept of the data set, which has 41"),
        (Budget(ipc=[1, 1]), "one for each of the 5 classes"),
    ],
    ids=str,
)
def test_budgets_that_do_not_fit_the_data_are_refused(real, budget, words):
    with pytest.raises(SettingsError, match=words):
        budget.groups(real)
