"""Published accuracies beside the result of a run: only where the run is about the same."""

from __future__ import annotations

import pytest

from lit_condense.evaluation.published import figure, of_row

CIFAR = [5000] * 10


@pytest.mark.parametrize(
    ("row", "dataset", "ipc", "real"),
    [
        ("dc/cifar10_ipc10", "cifar10", [10] * 10, CIFAR),
        ("dc/fashionmnist_ipc1", "fashion_mnist", [1] * 10, [6000] * 10),
        ("idc/cifar10_ipc50", "cifar10", [50] * 10, CIFAR),
    ],
)
def test_a_row_as_it_ships_shows_its_figure(row, dataset, ipc, real):
    method = row.split("/")[0]
    found = of_row(row, dataset, ipc, real)
    shown = str(found).removesuffix(f" % ({found.source})")
    assert shown == figure(method, dataset.replace("_", ""), ipc[0])


def test_a_selection_shows_its_figure_at_one_percent():
    found = of_row("selection/random_cifar10", "cifar10", [50] * 10, CIFAR)
    assert (found.accuracy, found.spread) == pytest.approx((0.3647, 0.019))


@pytest.mark.parametrize(
    ("row", "dataset", "ipc"),
    [
        ("dc/cifar10_ipc10", "cifar10", [1] * 10),
        ("dc/cifar10_ipc10", "mydata", [10] * 10),
        ("dc/cifar10_ipc10", "cifar10", [10, 9] * 5),
        ("dream/cifar10_ipc10", "cifar10", [10] * 10),
        ("dream/cifar10_ipc10_on_dc", "cifar10", [10] * 10),
        ("selection/random_cifar10", "cifar10", [500] * 10),
        ("selection/kmeans_cifar10", "cifar10", [50] * 10),
        ("selection/random_mnist", "mnist", [60] * 10),
    ],
)
def test_any_other_run_shows_none(row, dataset, ipc):
    assert of_row(row, dataset, ipc, CIFAR) is None
