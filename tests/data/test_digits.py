from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from lit_condense.data import Digits


def test_every_fifth_image_of_a_class_is_a_test_image():
    data, source = Digits(), load_digits()
    train, test, seen = [], [], [0] * 10
    for pixels, label in zip(source.images, source.target, strict=True):
        seen[label] += 1
        (test if seen[label] % 5 == 0 else train).append((pixels, label))
    assert (len(train), len(test)) == (1442, 355)
    for split, expected in ((data.real, train), (data.test, test)):
        assert split.labels.tolist() == [label for _, label in expected]
        pixels = np.stack([pixels for pixels, _ in expected])
        assert np.array_equal(split.images[:, 0].numpy(), np.round(pixels * 255 / 16))


def test_facts_are_those_of_the_digits():
    data = Digits()
    assert (data.dataset_name, data.num_classes, data.image_shape) == ("digits", 10, (1, 8, 8))
    assert data.class_names == tuple("0123456789")
    assert data.real.images.dtype == torch.uint8
    assert (int(data.real.images.min()), int(data.real.images.max())) == (0, 255)
    assert data.describe()["normalization"]["family"] == "measured"


def test_normalised_training_digits_have_mean_0_and_std_1():
    real = Digits().real
    images = real.at(torch.arange(len(real))).double()
    assert abs(float(images.mean())) < 1e-6
    assert abs(float(images.std(correction=0)) - 1) < 1e-6
