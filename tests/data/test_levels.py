"""No grey level is lost, whatever the number of bits, and the value that is white is stated."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lit_condense.data import ArrayFile, Digits, ImageFolder, Splits
from lit_condense.errors import DataError, SettingsError
from tests.fake_data import random_pixels, write_image
from tests.helpers import TinyData

ALL_12_BITS = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def write_png(path, values):
    """Write (H, W, channels) 16-bit values as PNG by hand: grey, grey-alpha, colour or colour-alpha."""
    height, width, channels = values.shape
    rows = values.astype(">u2").tobytes()
    step = width * channels * 2
    data = b"".join(b"\0" + rows[row * step : (row + 1) * step] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_pgm(path, values, largest, kind=b"P5"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = f"{values.shape[1]} {values.shape[0]}".encode()
    path.write_bytes(kind + b"\n" + shape + b"\n" + str(largest).encode() + b"\n" + values.astype(">u2").tobytes())


def both_splits(root, write, *args, name="x.png"):
    for split in ("train", "test"):
        write(root / split / "a" / name, *args)
    return str(root)


def loaded(data):
    """The training images, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = data.real.images
    return images, " ".join(str(w.message) for w in caught)


def exactly(values, white):
    """Real numbers in [0, 1], rounded to float32 once or twice."""
    return pytest.approx(np.asarray(values, np.float64) / white, abs=1.2e-7)


@pytest.mark.parametrize("ending", [".png", ".tiff", ".tif"])
@pytest.mark.parametrize("white", [4095, 65535, None])
def test_no_level_of_12_bit_images_is_lost(tmp_path, ending, white):
    root = both_splits(tmp_path, write_image, ALL_12_BITS, name=f"x{ending}")
    data = ImageFolder(root, white_level=white)
    images, words = loaded(data)
    assert images.dtype == torch.float32
    assert len(images.unique()) == 4096
    assert images[0, 0].numpy() == exactly(ALL_12_BITS, white or 65535)
    assert data.describe()["white_level"] == (white or 65535)
    assert ("brightest training pixel is 4095, where 65535 is white" in words) == (white != 4095)


def test_pillow_knows_no_level_of_16_bit_colour_that_is_not_lost_here(tmp_path):
    values = np.stack([ALL_12_BITS, ALL_12_BITS[::-1], ALL_12_BITS.T], axis=-1)
    root = both_splits(tmp_path, write_png, values)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "train" / "a" / "x.png")))) < 18
    images, _ = loaded(ImageFolder(root, white_level=4095))
    assert images[0].numpy() == exactly(values.transpose(2, 0, 1), 4095)
    grey, _ = loaded(ImageFolder(root, white_level=4095, channels="grey"))
    assert grey[0, 0].numpy() == pytest.approx(values @ np.array([0.299, 0.587, 0.114]) / 4095, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_transparency_of_16_bits_is_dropped_and_grey_stays_grey(tmp_path, channels):
    values = random_pixels(5, 6, channels).astype(np.uint16) * 257
    images, words = loaded(ImageFolder(both_splits(tmp_path, write_png, values)))
    kept = values[..., : 1 if channels < 3 else 3]
    assert images[0].numpy() == exactly(kept.transpose(2, 0, 1), 65535)
    assert ("transparency" in words) == (channels in (2, 4))


@pytest.mark.parametrize("largest", [1023, 4095, 65535])
def test_pgm_says_itself_what_is_white(tmp_path, largest):
    values = np.linspace(0, largest, 24).round().astype(np.uint16).reshape(4, 6)
    root = both_splits(tmp_path, write_pgm, values, largest, name="x.pgm")
    assert loaded(ImageFolder(root))[0][0, 0].numpy() == pytest.approx(values / largest, abs=1 / 65535)
    if largest == 4095:  # one of 65,535 says no more than a PNG
        assert loaded(ImageFolder(root, white_level=2000))[0].max() == 1


@pytest.mark.parametrize("name", ["x.ppm", "x.tiff"])
def test_16_bit_colour_that_pillow_would_halve_is_refused(tmp_path, name):
    values = np.zeros((2, 2, 3), np.uint16)

    def write(path):
        if name == "x.ppm":
            return write_pgm(path, values, 4095, kind=b"P6")
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = [(256, 4, 1, 2), (257, 4, 1, 2), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2)]
        tags += [(273, 4, 1, 140), (277, 3, 1, 3), (278, 4, 1, 2), (279, 4, 1, 24)]
        entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
        header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
        path.write_bytes(header.ljust(134, b"\0") + struct.pack("<3H", 16, 16, 16) + values.tobytes())
        return None

    with pytest.raises(DataError, match=rf"{name} holds 16-bit colour.*Convert it to PNG"):
        ImageFolder(both_splits(tmp_path, write, name=name)).setup()


def test_files_of_8_and_16_bits_meet_at_white(tmp_path):
    root = both_splits(tmp_path, write_image, np.array([[0, 2048], [4095, 1]], np.uint16))
    write_image(tmp_path / "train" / "a" / "y.png", np.array([[0, 128], [255, 1]], np.uint8))
    images, words = loaded(ImageFolder(root, white_level=4095))
    assert images[0, 0].numpy() == exactly([[0, 2048], [4095, 1]], 4095)
    assert images[1, 0].numpy() == exactly([[0, 128], [255, 1]], 255)
    assert words == ""


def test_16_bit_images_are_scaled_and_cropped_as_numbers(tmp_path):
    steps = np.repeat(np.arange(0, 4000, 100, dtype=np.uint16)[None], 20, axis=0)  # 20 x 40, grey grows by 100
    images, _ = loaded(ImageFolder(both_splits(tmp_path, write_image, steps), image_size=10, white_level=4095))
    halves = np.arange(50, 4000, 200)[5:15]  # means of two columns; the middle half
    assert images[0, 0, 5, 1:-1].numpy() == pytest.approx(halves[1:-1] / 4095, abs=1e-5)


def test_values_above_white_are_refused_with_the_file(tmp_path):
    root = both_splits(tmp_path, write_image, ALL_12_BITS)
    with pytest.raises(DataError, match=r"x\.png holds the value 4095, above the white level 1023"):
        ImageFolder(root, white_level=1023).setup()


def test_a_white_level_without_16_bit_files_is_refused(tmp_path):
    root = both_splits(tmp_path, write_image, random_pixels(4, 4))
    with pytest.raises(DataError, match=r"all images of .* have 8 bits"):
        ImageFolder(root, white_level=255).setup()


def arrays(path, images, **changes):
    labels = np.arange(len(images)) % 2
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels, **changes)
    return str(path)


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_arrays_of_any_number_type_keep_every_level_under_a_white_level(tmp_path, dtype):
    images = np.stack([ALL_12_BITS, ALL_12_BITS[::-1]]).astype(dtype)
    data = ArrayFile(arrays(tmp_path / "x.npz", images), white_level=4095)
    assert data.real.images[:, 0].numpy() == exactly(images, 4095)
    assert len(data.real.images.unique()) == 4096
    assert data.describe()["white_level"] == 4095


def test_16_bit_arrays_of_safetensors_too(tmp_path):
    from safetensors.numpy import save_file

    images, labels = np.stack([ALL_12_BITS, ALL_12_BITS]), np.array([0, 1])
    content = {f"{s}_{k}": v for s in ("train", "test") for k, v in (("images", images), ("labels", labels))}
    save_file(content, tmp_path / "x.safetensors")
    data = ArrayFile(str(tmp_path / "x.safetensors"), white_level=4095)
    assert len(data.real.images.unique()) == 4096


@pytest.mark.parametrize("dtype", ["uint16", "int64", "bool"])
def test_whole_numbers_without_a_white_level_are_refused_with_the_remedy(tmp_path, dtype):
    with pytest.raises(DataError, match=r"train_images.*torch\.(uint16|int64|bool).*`white_level`"):
        ArrayFile(arrays(tmp_path / "x.npz", np.ones((2, 4, 4), dtype))).setup()


@pytest.mark.parametrize(("images", "words"), [(5000, "0 to the white level 4095.*5000"), (-1, "go from -1")])
def test_arrays_outside_0_to_white_are_refused(tmp_path, images, words):
    with pytest.raises(DataError, match=words):
        ArrayFile(arrays(tmp_path / "x.npz", np.full((2, 4, 4), images)), white_level=4095).setup()


@pytest.mark.parametrize("white", [0, -1, float("nan"), 2**25])
def test_impossible_white_levels_are_refused(white):
    for make in (lambda: ImageFolder("x", white_level=white), lambda: ArrayFile("x.npz", white_level=white)):
        with pytest.raises(SettingsError, match="`white_level`"):
            make()


class Dark(TinyData):
    """Images of any kind, whose brightest pixel is given."""

    brightest = torch.tensor(31, dtype=torch.uint8)

    def load(self):
        splits = super().load()
        train, test = (
            torch.zeros(len(images), 1, 8, 8, dtype=self.brightest.dtype)
            for images in (splits.train_images, splits.test_images)
        )
        train[0, 0, 0, 0] = self.brightest
        return Splits(train, splits.train_labels, test, splits.test_labels, splits.class_names)


@pytest.mark.parametrize(
    ("brightest", "dark"),
    [
        (torch.tensor(31, dtype=torch.uint8), True),
        (torch.tensor(32, dtype=torch.uint8), False),
        (torch.tensor(0.124), True),
        (torch.tensor(0.125), False),
    ],
)
def test_any_data_below_an_eighth_of_white_are_warned_of(brightest, dark):
    data = Dark()
    data.brightest = brightest
    assert ("images are nearly black" in loaded(data)[1]) == dark
    assert loaded(Digits())[1] == ""
