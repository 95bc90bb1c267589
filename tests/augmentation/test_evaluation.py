import numpy as np
import pytest
import scipy.ndimage
import torch
from torch.nn import functional as F

from lit_condense.augmentation import EvaluationAugmentation
from lit_condense.augmentation.evaluation import resize_nearest
from lit_condense.augmentation.spline import rotate_cubic, spline_coefficients
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey

ALL = ("crop", "scale", "rotate", "noise")


def images_of(n=3, channels=3, height=12, width=9, dtype=torch.float64):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype) + 0.3


def drawn(name: str, number: int = 1, size=(28, 28), **settings) -> torch.Tensor:
    augmentation = EvaluationAugmentation([name], **settings)
    return torch.cat([augmentation.draw(RandomKey(3, (i,)), size, 16)[name][number] for i in range(200)])


def by_scipy(image: torch.Tensor, degrees: int, fill: np.ndarray) -> torch.Tensor:
    turned = [
        scipy.ndimage.rotate(channel.numpy(), degrees, order=3, reshape=False, mode="constant", cval=value)
        for channel, value in zip(image, fill, strict=True)
    ]
    return torch.from_numpy(np.stack(turned))


def by_interpolate(image: torch.Tensor, new_height: int, new_width: int) -> torch.Tensor:
    """Resize, then pad with zeros or cut the centre out along each axis."""
    resized = F.interpolate(image[None], (new_height, new_width), mode="nearest")[0]
    for axis, size in ((1, image.shape[1]), (2, image.shape[2])):
        new = resized.shape[axis]
        if new > size:
            resized = resized.narrow(axis, (new - size) // 2, size)
            continue
        before = list(resized.shape)
        before[axis] = (size - new) // 2
        after = list(resized.shape)
        after[axis] = size - new - before[axis]
        resized = torch.cat([resized.new_zeros(before), resized, resized.new_zeros(after)], dim=axis)
    return resized


@pytest.mark.parametrize("shape", [(28, 28), (8, 13), (5, 4), (1, 6)])
def test_rotate_matches_scipy(shape):
    degrees = [-45, -31, -7, -1, 0, 1, 10, 30, 44, 44]
    images, fill = images_of(10, 2, *shape), torch.tensor([7.0, -5.0], dtype=torch.float64)
    result = rotate_cubic(images, torch.tensor(degrees), fill.view(2, 1, 1))
    expected = torch.stack([by_scipy(i, d, fill.numpy()) for i, d in zip(images, degrees, strict=True)])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)
    assert torch.equal(result == fill.view(2, 1, 1), expected == fill.view(2, 1, 1)), "the same pixels are filled"


def test_rotate_matches_scipy_in_single_precision_and_under_autocast():
    images = images_of(3, 1, 28, 28, torch.float32)
    expected = torch.stack([by_scipy(image, 17, np.zeros(1)) for image in images])
    torch.testing.assert_close(rotate_cubic(images, torch.tensor([17])), expected, rtol=0, atol=2e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(rotate_cubic(images, torch.tensor([17])), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 3), (7, 12), (28, 28)])
def test_spline_coefficients_match_scipy(shape):
    images = images_of(2, 1, *shape)
    expected = np.stack([scipy.ndimage.spline_filter(image[0].numpy(), order=3, mode="mirror") for image in images])
    torch.testing.assert_close(spline_coefficients(images)[:, 0], torch.from_numpy(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(28, 28), (32, 20)])
def test_every_published_resize_matches_interpolate(size):
    height, width = size
    image = images_of(1, 2, height, width)
    for new_height in range(int(0.8 * height), int(1.2 * height) + 1):
        new_width = int(0.8 * width) + (new_height * 7) % int(0.4 * width)
        new = torch.tensor([new_height]), torch.tensor([new_width])
        result = resize_nearest(image, *new, *EvaluationAugmentation()._margins(new, size))
        assert torch.equal(result[0], by_interpolate(image[0], new_height, new_width)), (new_height, new_width)


def slowly(images: torch.Tensor, draw: dict, crop: int = 4) -> torch.Tensor:
    """Image by image, from the published description."""
    _, channels, height, width = images.shape
    mean = images.mean(dim=(0, 2, 3))
    result = images.clone()
    for name, (chosen, *values) in draw.items():
        for number, i in enumerate(chosen.tolist()):
            own = [value[number] for value in values]
            if name == "crop":
                padded = mean.view(-1, 1, 1).repeat(1, height + 2 * crop, width + 2 * crop)
                padded[:, crop : crop + height, crop : crop + width] = images[i]
                top, left = (int(shift) + crop for shift in own)
                result[i] = padded[:, top : top + height, left : left + width]
            elif name == "scale":
                result[i] = by_interpolate(images[i], int(own[0]), int(own[1]))
            elif name == "rotate":
                result[i] = by_scipy(images[i], int(own[0]), mean.numpy())
            else:
                result[i] = images[i] + own[0][:channels]
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_gets_its_own_operation_as_in_a_slow_loop(channels):
    augmentation, images = EvaluationAugmentation(ALL), images_of(24, channels)
    draw = augmentation.draw(RandomKey(0), (12, 9), samples=24)
    assert set(draw) == set(ALL)
    assert sorted(torch.cat([chosen for chosen, *_ in draw.values()]).tolist()) == list(range(24))
    torch.testing.assert_close(augmentation.apply(images, draw), slowly(images, draw), rtol=0, atol=1e-6)


def test_operations_are_drawn_equally_often():
    counts = dict.fromkeys(ALL, 0)
    for i in range(60):
        for name, (chosen, *_) in EvaluationAugmentation(ALL).draw(RandomKey(0, (i,)), (8, 8), 16).items():
            counts[name] += len(chosen)
    assert sum(counts.values()) == 960
    assert all(190 <= count <= 290 for count in counts.values()), counts


def test_the_last_crop_offset_is_never_drawn():
    offsets = drawn("crop", 1) + 4
    assert set(offsets.tolist()) == set(range(8))
    assert set((drawn("crop", 2) + 4).tolist()) == set(range(8))
    assert not torch.equal(offsets, drawn("crop", 2) + 4)


def test_sizes_angles_and_noise_keep_to_the_published_ranges():
    assert set(drawn("scale", 1).tolist()) == set(range(22, 34))  # int(0.8 * 28) to int(1.2 * 28)
    assert set(drawn("scale", 2, size=(28, 10)).tolist()) <= {8, 9, 10, 11, 12}
    assert set(drawn("rotate", 1).tolist()) == set(range(-45, 45))
    noise = drawn("noise", 1, size=(6, 6))
    assert noise.shape[1:] == (3, 6, 6)
    assert float(noise.std()) == pytest.approx(0.001, rel=0.01)
    assert abs(float(noise.mean())) < 1e-5


def test_draws_follow_the_key_and_nothing_else():
    state = torch.get_rng_state()
    augmentation = EvaluationAugmentation(ALL)
    first, again, other = (augmentation.draw(RandomKey(0, (p,)), (9, 9), 12) for p in ("a", "a", "b"))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for name in ALL for a, b in zip(first[name], again[name], strict=True))
    assert not torch.equal(first["crop"][0], other["crop"][0])


def test_the_images_are_not_changed_in_place():
    images, augmentation = images_of(8), EvaluationAugmentation(ALL)
    before = images.clone()
    augmentation.apply(images, augmentation.draw(RandomKey(0), (12, 9), 8))
    assert torch.equal(images, before)


def test_apply_compiles_into_one_graph():
    torch.compiler.reset()
    images, augmentation = images_of(16, dtype=torch.float32), EvaluationAugmentation(ALL)
    compiled = torch.compile(augmentation.apply, backend="eager", fullgraph=True)
    for step in range(3):
        draw = augmentation.draw(RandomKey(0, (step,)), (12, 9), 16)
        torch.testing.assert_close(compiled(images, draw), augmentation.apply(images, draw))


@pytest.mark.parametrize("wrong", [{"operations": ["flip"]}, {"crop": 0}, {"scale": 1.0}, {"rotate": 0}, {"noise": -1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        EvaluationAugmentation(**wrong)


def test_a_draw_for_other_images_is_refused():
    augmentation = EvaluationAugmentation(["noise"])
    draw = augmentation.draw(RandomKey(0), (12, 9), 4)
    with pytest.raises(SettingsError, match="for 3 images"):
        augmentation.apply(images_of(3), draw)
    with pytest.raises(SettingsError, match="channels=3"):
        augmentation.apply(images_of(4, channels=5), draw)


# ------------------------------------------------------------------ the program's geometry

SIDE = 28
PUBLISHED = EvaluationAugmentation(("scale", "rotate"), geometry="published")


def middle_of(canvas: np.ndarray, side: int) -> np.ndarray:
    """Cut a window of the image's size out of the middle of a canvas, rounded down."""
    top, left = ((length - side) // 2 for length in canvas.shape[-2:])
    return canvas[..., top : top + side, left : left + side]


def rotated_by_the_program(image: torch.Tensor, degrees: int, fill: float) -> torch.Tensor:
    """scipy grows the canvas so that the whole image fits; all channels are filled with one number."""
    canvas = scipy.ndimage.rotate(image.numpy(), degrees, axes=(-2, -1), order=3, mode="constant", cval=fill)
    return torch.from_numpy(middle_of(canvas, image.shape[-1]))


def scaled_by_the_program(image: torch.Tensor, new_height: int, new_width: int) -> torch.Tensor:
    """A square canvas of zeros as large as what it has to hold, with the resized image in its middle."""
    side = image.shape[-1]
    longest = max(new_height, new_width, side)
    canvas = np.zeros((image.shape[0], longest, longest))
    top, left = (longest - new_height) // 2, (longest - new_width) // 2
    resized = F.interpolate(image[None], (new_height, new_width), mode="nearest")[0]
    canvas[:, top : top + new_height, left : left + new_width] = resized.numpy()
    return torch.from_numpy(middle_of(canvas, side))


def one_operation(name: str, images: torch.Tensor, *parameters: torch.Tensor, geometry: str = "published"):
    """Apply one operation with given angles or sizes to all images."""
    augmentation = EvaluationAugmentation([name], geometry=geometry)
    size = (images.shape[-2], images.shape[-1])
    if name == "rotate":
        moved = augmentation._offsets(parameters[0], size)
    else:
        moved = augmentation._margins(parameters, size)
    return augmentation.apply(images, {name: (torch.arange(len(images)), *parameters, *moved)})


@pytest.mark.parametrize("channels", [1, 3])
def test_every_published_rotation_is_the_programs_and_44_of_90_are_half_a_pixel_off(channels):
    degrees = torch.arange(-45, 45)
    images = images_of(90, channels, SIDE, SIDE)
    fill = float(images.mean(dim=(0, 2, 3)).mean())
    wanted = torch.stack([rotated_by_the_program(i, int(d), fill) for i, d in zip(images, degrees, strict=True)])
    found = one_operation("rotate", images, degrees)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    assert torch.equal(found == fill, wanted == fill), "the same pixels are filled"
    down, right = PUBLISHED._offsets(degrees, (SIDE, SIDE))
    assert torch.equal(down, right)
    assert sorted(set(down.tolist())) == [-0.5, 0.0]
    assert int((down != 0).sum()) == 44
    if channels == 1:  # one channel is filled with its own mean either way
        centred = one_operation("rotate", images, degrees, geometry="centred")
        off = (centred - found).abs().amax(dim=(1, 2, 3)) > 1e-6
        assert torch.equal(off, down != 0)


def test_every_published_resize_is_the_programs_and_24_of_144_are_a_pixel_off():
    sizes = torch.cartesian_prod(torch.arange(22, 34), torch.arange(22, 34))  # int(0.8 * 28) to int(1.2 * 28)
    images = images_of(len(sizes), 2, SIDE, SIDE)
    wanted = torch.stack([scaled_by_the_program(i, int(h), int(w)) for i, (h, w) in zip(images, sizes, strict=True)])
    found = one_operation("scale", images, sizes[:, 0], sizes[:, 1])
    assert torch.equal(found, wanted)
    centred = one_operation("scale", images, sizes[:, 0], sizes[:, 1], geometry="centred")
    assert int((centred != found).flatten(1).any(1).sum()) == 24


def test_both_geometries_draw_the_same_operations_sizes_and_angles():
    draws = [EvaluationAugmentation(geometry=g).draw(RandomKey(5), (SIDE, SIDE), 64) for g in ("centred", "published")]
    for name, numbers in (("crop", 3), ("scale", 3), ("rotate", 2)):
        one, other = (draw[name][:numbers] for draw in draws)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_published_draw_of_many_images_is_applied_image_by_image():
    images = images_of(40, 1, SIDE, SIDE)
    draw = PUBLISHED.draw(RandomKey(1), (SIDE, SIDE), 40)
    wanted, fill = images.clone(), float(images.mean())
    for name, by_the_program in (("scale", scaled_by_the_program), ("rotate", rotated_by_the_program)):
        chosen, *values = draw[name]
        for number, i in enumerate(chosen.tolist()):
            own = [int(v[number]) for v in values[:2]] if name == "scale" else [int(values[0][number]), fill]
            wanted[i] = by_the_program(images[i], *own)
    torch.testing.assert_close(PUBLISHED.apply(images, draw), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_the_program_knows_square_images_only(name):
    with pytest.raises(SettingsError, match="square images for geometry 'published', got 12x9"):
        EvaluationAugmentation([name], geometry="published").draw(RandomKey(0), (12, 9), 8)
    assert EvaluationAugmentation(["crop"], geometry="published").draw(RandomKey(0), (12, 9), 8)


def test_an_unknown_geometry_is_refused():
    with pytest.raises(SettingsError, match="geometry to be 'centred' or 'published', got 'exact'"):
        EvaluationAugmentation(geometry="exact")
