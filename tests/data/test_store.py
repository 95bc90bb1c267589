from __future__ import annotations

import pytest
import torch

from lit_condense.data import Normalization, TensorImages
from lit_condense.errors import DataError, SettingsError
from lit_condense.rng import RandomKey

KEY = RandomKey(7, ("test",))
VALUES = Normalization((0.1, 0.5), (0.5, 2.0))
LABELS = torch.tensor([2, 0, 1, 0, 2, 0, 2, 2, 0, 0, 0])  # class sizes 6, 1, 4
NAMES = ("cat", "dog", "eel")


def make(images=None, labels=LABELS, num_classes=3, normalization=VALUES, names=NAMES):
    if images is None:
        images = torch.arange(len(labels) * 2 * 3 * 4).remainder(256).to(torch.uint8).view(-1, 2, 3, 4)
    return TensorImages(images, labels, num_classes, normalization, names)


def test_facts_about_the_split():
    real = make()
    assert (len(real), real.num_classes, real.image_shape) == (11, 3, (2, 3, 4))
    assert real.class_sizes == [6, 1, 4]
    assert real.class_names == NAMES
    assert (real.images.dtype, real.labels.dtype) == (torch.uint8, torch.int64)


def test_indices_of_a_class_are_ascending_and_together_all_images():
    real = make()
    assert [real.indices_of(index).tolist() for index in range(3)] == [[1, 3, 5, 8, 9, 10], [2], [0, 4, 6, 7]]


@pytest.mark.parametrize("indices", [torch.tensor(4), torch.tensor([3, 3, 0]), torch.tensor([[1, 2], [10, 0]])])
def test_at_gives_normalised_pixels_labels_and_raw_pixels_for_any_shape_of_indices(indices):
    real = make()
    images, pixels, labels = real.at(indices), real.pixels_at(indices), real.labels_at(indices)
    assert images.shape == pixels.shape == (*indices.shape, 2, 3, 4)
    assert images.dtype == pixels.dtype == torch.float32
    assert torch.equal(labels, LABELS[indices])
    for position, index in enumerate(indices.flatten().tolist()):
        expected = real.images[index].double() / 255
        torch.testing.assert_close(pixels.view(-1, 2, 3, 4)[position], expected.float())
        expected = torch.stack([(expected[0] - 0.1) / 0.5, (expected[1] - 0.5) / 2.0])
        torch.testing.assert_close(images.view(-1, 2, 3, 4)[position], expected.float())


def test_float_images_are_kept_and_not_divided_again():
    images = torch.rand(11, 2, 3, 4, dtype=torch.float64)
    real = make(images)
    assert real.images.dtype == torch.float32
    torch.testing.assert_close(real.pixels_at(torch.arange(11)), images.float())


def test_what_a_caller_does_to_a_batch_leaves_the_store_alone():
    real = make(torch.rand(11, 2, 3, 4))
    before = real.images.clone()
    real.pixels_at(torch.arange(11)).zero_()
    real.at(torch.arange(11)).zero_()
    assert torch.equal(real.images, before)


def test_a_class_draw_has_different_images_of_that_class_only():
    real = make()
    for update in range(20):
        drawn = real.random_of_class(0, 4, KEY.fold(update))
        assert len(drawn) == len(set(drawn.tolist())) == 4
        assert (LABELS[drawn] == 0).all()


def test_every_image_of_a_class_is_drawn_equally_often():
    real = make()
    draws = torch.cat([real.random_of_class(0, 2, KEY.fold(update)) for update in range(3000)])
    counts = draws.bincount(minlength=11)[real.indices_of(0)]
    # 1000 expected each; variance 3000 * (1/3)(2/3), so 4 standard deviations are 103
    assert (counts - 1000).abs().max() < 103


def test_a_class_smaller_than_the_draw_is_used_whole():
    real = make()
    assert real.random_of_class(1, 256, KEY).tolist() == [2]
    assert sorted(real.random_of_class(2, 5, KEY).tolist()) == [0, 4, 6, 7]


def test_the_key_alone_decides_a_draw():
    first, second = make(), make()
    state = torch.get_rng_state()
    draws = [first.random_of_class(0, 4, KEY.fold(update)).tolist() for update in range(10)]
    first.mixed(3, KEY)
    assert [second.random_of_class(0, 4, KEY.fold(update)).tolist() for update in range(10)] == draws
    assert len({tuple(draw) for draw in draws}) > 5
    assert torch.equal(torch.get_rng_state(), state)


def test_a_mixed_draw_is_without_replacement_over_the_whole_split_and_capped():
    real = make()
    assert len(set(real.mixed(7, KEY).tolist())) == 7
    assert sorted(real.mixed(100, KEY).tolist()) == list(range(11))


def test_one_epoch_of_batches_holds_every_image_once_in_a_keyed_order():
    real = make()
    epoch = [batch.tolist() for batch in real.batches(4, KEY)]
    assert [len(batch) for batch in epoch] == [4, 4, 3]
    flat = [index for batch in epoch for index in batch]
    assert sorted(flat) == list(range(11))
    assert flat != list(range(11))
    assert [batch.tolist() for batch in real.batches(4, KEY)] == epoch
    assert [batch.tolist() for batch in real.batches(4, KEY.fold(1))] != epoch


def test_the_fingerprint_follows_bytes_labels_and_shape():
    images = torch.arange(11 * 24).remainder(256).to(torch.uint8).view(-1, 2, 3, 4)
    prints = [make(images).fingerprint(), make(images.clone()).fingerprint()]
    assert prints[0] == prints[1]
    assert len(prints[0]) == 64
    changed = images.clone()
    changed[10, 1, 2, 3] += 1
    labels = LABELS.clone()
    labels[0] = 0
    others = [make(changed), make(images, labels), make(images.view(-1, 2, 4, 3)), make(images.float() / 255)]
    assert len({prints[0], *(other.fingerprint() for other in others)}) == 5


def test_the_fingerprint_is_the_stated_hash_and_does_not_depend_on_normalisation(monkeypatch):
    import hashlib

    monkeypatch.setattr("lit_condense.data.store.HASHED_IMAGES", 4)  # several parts
    images = torch.arange(11 * 24).remainder(256).to(torch.uint8).view(-1, 2, 3, 4)
    header = b"((11, 2, 3, 4), 'torch.uint8')"
    expected = hashlib.sha256(header + bytes(images.flatten().tolist()) + LABELS.numpy().tobytes()).hexdigest()
    assert make(images).fingerprint() == expected
    assert make(images, normalization=Normalization((0, 0), (1, 1))).fingerprint() == expected


def test_moving_to_where_it_is_changes_nothing():
    real = make()
    assert real.to("cpu") is real
    assert real.to(torch.device("cpu")) is real


def test_a_moved_store_delivers_on_its_device_and_keeps_drawing_the_same():
    real = make()
    moved = real.to("meta")  # stands in for an accelerator
    assert moved.at(torch.arange(3)).device.type == "meta"
    assert moved.labels_at(torch.arange(3)).device.type == "meta"
    assert torch.equal(moved.random_of_class(0, 3, KEY), real.random_of_class(0, 3, KEY))
    assert real.images.device.type == "cpu"


def test_a_store_that_does_not_fit_stays_in_main_memory_and_delivers_on_the_device(monkeypatch):
    monkeypatch.setattr("lit_condense.data.store._fits", lambda images, device: False)
    moved = make().to("meta")
    assert moved.images.device.type == moved.labels.device.type == "cpu"
    assert moved.at(torch.arange(3)).device.type == "meta"
    assert moved.labels_at(torch.arange(3)).device.type == "meta"


@pytest.mark.parametrize(("free", "fits"), [(2 * 264, True), (2 * 264 - 2, False)])
def test_a_gpu_is_filled_to_half_of_its_free_memory_at_most(monkeypatch, free, fits):
    from lit_condense.data.store import _fits

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    assert _fits(make().images, torch.device("cuda:0")) is fits  # 11 * 2 * 3 * 4 = 264 bytes


def test_a_store_moved_in_inference_mode_can_take_part_in_training(monkeypatch):
    real = make(torch.rand(11, 2, 3, 4))
    with torch.inference_mode():
        moved = real.to("meta")
    assert not moved.images.is_inference()
    assert not moved.labels.is_inference()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_pixels_of_the_cpu_whether_it_holds_them_or_not(monkeypatch):
    real, indices = make(), torch.tensor([[1, 5], [7, 0]])
    held = real.to("cuda")
    assert held.images.is_cuda
    monkeypatch.setattr("lit_condense.data.store._fits", lambda images, device: False)
    streamed = real.to("cuda")
    assert torch.equal(held.at(indices), streamed.at(indices))
    torch.testing.assert_close(held.at(indices.cuda()).cpu(), real.at(indices))
    assert held.fingerprint() == real.fingerprint()


def test_an_empty_class_is_named():
    with pytest.raises(DataError, match=r"Class 3 \(fox\) has no images"):
        make(num_classes=4, names=(*NAMES, "fox"))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label):
    labels = LABELS.clone()
    labels[4] = label
    with pytest.raises(DataError, match="labels from 0 to 2"):
        make(labels=labels)


def test_float_labels_are_refused():
    with pytest.raises(DataError, match="whole numbers"):
        make(labels=LABELS.float())


def test_values_that_are_not_finite_are_counted_and_the_first_is_located():
    images = torch.rand(11, 2, 3, 4)
    images[4, 1, 2, 3] = float("nan")
    images[9, 0, 0, 0] = float("inf")
    with pytest.raises(DataError, match=r"2 value\(s\) that are not finite; .* = \[4, 1, 2, 3\]"):
        make(images)


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_float_images_outside_0_to_1_are_refused(scale):
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        make(torch.rand(11, 2, 3, 4) * scale)


@pytest.mark.parametrize("images", [torch.zeros(11, 3, 4), torch.zeros(11, 2, 0, 4), torch.zeros(0, 2, 3, 4)])
def test_images_of_another_shape_are_refused(images):
    with pytest.raises(DataError, match=r"shape \(N, C, H, W\)"):
        make(images)


def test_images_of_whole_numbers_beyond_8_bits_are_refused():
    with pytest.raises(DataError, match="int64"):
        make(torch.zeros(11, 2, 3, 4, dtype=torch.int64))


def test_a_wrong_number_of_labels_names_or_channels_is_refused():
    with pytest.raises(DataError, match="one label"):
        make(torch.zeros(10, 2, 3, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match="2 names"):
        make(names=("cat", "dog"))
    with pytest.raises(DataError, match=r"2 channel\(s\) but the normalisation has 1"):
        make(normalization=Normalization((0.0,), (1.0,)))


def test_draws_of_nothing_or_of_a_class_that_is_not_there_are_refused():
    real = make()
    for draw in (lambda: real.random_of_class(0, 0, KEY), lambda: real.mixed(0, KEY), lambda: real.batches(0, KEY)):
        with pytest.raises(SettingsError, match="size of 1 or more"):
            draw()
    for class_index in (-1, 3):
        with pytest.raises(SettingsError, match="class index from 0 to 2"):
            real.indices_of(class_index)
