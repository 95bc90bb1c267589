import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_condense.augmentation import operations

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def images_of(n=3, channels=3, height=6, width=5, dtype=torch.float64):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def parameters_of(name: str, samples: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    unit = torch.rand(2, samples, generator=generator, dtype=torch.float64)
    whole = torch.randint(0, 5, (2, samples), generator=generator)
    return {
        "brightness": (unit[0],),
        "saturation": (unit[0],),
        "contrast": (unit[0],),
        "translate": (whole[0] - 2, whole[1] - 2),
        "cutout": (whole[0], whole[1], torch.tensor([3]), torch.tensor([2])),
        "flip": (unit[0] < 0.5,),
        "scale": (unit[0] + 0.5, unit[1] + 0.5),
        "rotate": (unit[0] * 2 - 1,),
    }[name]


NAMES = ["brightness", "saturation", "contrast", "translate", "cutout", "flip", "scale", "rotate"]


def call(name: str, images: Tensor, parameters: tuple[Tensor, ...]) -> Tensor:
    return getattr(operations, name)(images, *parameters)


def literal(name: str, image: Tensor, values: tuple) -> Tensor:
    """One image, pixel by pixel, from the published definition."""
    channels, height, width = image.shape
    result = image.clone()
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                result[c, y, x] = literal_pixel(name, image, values, c, y, x)
    return result


def literal_pixel(name: str, image: Tensor, values: tuple, c: int, y: int, x: int) -> float:
    channels, height, width = image.shape
    value = float(image[c, y, x])
    if name == "brightness":
        return value + (values[0] - 0.5) * 1.0
    if name == "saturation":
        grey = sum(float(image[k, y, x]) for k in range(channels)) / channels
        return (value - grey) * (2 * values[0]) + grey
    if name == "contrast":
        mean = float(image.sum()) / image.numel()
        return (value - mean) * (values[0] + 0.5) + mean
    if name == "translate":
        row, column = y + values[0], x + values[1]
        return float(image[c, row, column]) if 0 <= row < height and 0 <= column < width else 0.0
    if name == "cutout":
        centre_y, centre_x, size_h, size_w = values
        rows = [min(max(i + centre_y - size_h // 2, 0), height - 1) for i in range(size_h)]
        columns = [min(max(i + centre_x - size_w // 2, 0), width - 1) for i in range(size_w)]
        return 0.0 if y in rows and x in columns else value
    assert name == "flip"
    return float(image[c, y, width - 1 - x]) if values[0] else value


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES[:6])
def test_pixel_operations_match_the_literal_loop(name, channels):
    images, parameters = images_of(4, channels), parameters_of(name, 4)
    expected = []
    for i, image in enumerate(images):
        expected.append(literal(name, image, tuple(p[min(i, len(p) - 1)].item() for p in parameters)))
    torch.testing.assert_close(call(name, images, parameters), torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("size", "centre"), [(4, 0), (4, 6), (3, 0), (3, 5), (6, 3), (1, 2), (5, 1)])
def test_cutout_shows_the_part_of_the_window_inside_the_image(size, centre):
    images = images_of(1, 1, 6, 6)
    result = operations.cutout(images, torch.tensor([centre]), torch.tensor([3]), size, 2)
    torch.testing.assert_close(result[0], literal("cutout", images[0], (centre, 3, size, 2)))


def theta(name: str, parameters: tuple[Tensor, ...]) -> Tensor:
    zero = torch.zeros_like(parameters[0])
    if name == "scale":
        rows = [[parameters[1], zero, zero], [zero, parameters[0], zero]]
    else:
        cos, sin = parameters[0].cos(), parameters[0].sin()
        rows = [[cos, -sin, zero], [sin, cos, zero]]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def sampled(images: Tensor, matrix: Tensor) -> Tensor:
    grid = F.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 7, 12), (2, 1, 5)])
@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize("name", ["scale", "rotate"])
def test_affine_operations_match_grid_sample_in_value_and_gradient(name, samples, shape):
    images = images_of(6, *shape).requires_grad_()
    parameters = parameters_of(name, samples)
    result, expected = call(name, images, parameters), sampled(images, theta(name, parameters))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
    towards = images_of(6, *shape)
    (got,), (wanted,) = (torch.autograd.grad(r, images, towards) for r in (result, expected))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    single = call(name, images.detach().float(), tuple(p.float() for p in parameters))
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.26, math.pi / 2, 2.5, math.pi])
def test_rotate_matches_grid_sample_at_any_angle(angle):
    images, angles = images_of(2, 1, 9, 9), torch.tensor([angle], dtype=torch.float64)
    torch.testing.assert_close(
        operations.rotate(images, angles), sampled(images, theta("rotate", (angles,))), rtol=0, atol=1e-10
    )


def test_positive_angles_turn_counter_clockwise():
    images = images_of(2, 3, 6, 6)
    quarter = torch.tensor([math.pi / 2], dtype=torch.float64)
    torch.testing.assert_close(operations.rotate(images, quarter), torch.rot90(images, 1, (2, 3)))


def test_scale_above_one_shrinks_the_content():
    images = torch.ones(1, 1, 16, 16)
    shrunk = operations.scale(images, torch.tensor([2.0]), torch.tensor([1.0]))
    assert float(shrunk.sum()) == pytest.approx(128)
    assert float(shrunk[0, 0, 0].sum()) == 0
    assert float(shrunk[0, 0, 8].sum()) == pytest.approx(16)


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_parameter_equals_the_same_one_for_each_image(name):
    images, shared = images_of(4), parameters_of(name, 1)
    repeated = tuple(p.expand(4).clone() for p in shared)
    torch.testing.assert_close(call(name, images, shared), call(name, images, repeated), rtol=0, atol=1e-14)


IDENTITIES = {
    "brightness": (0.5,),
    "saturation": (0.5,),
    "contrast": (0.5,),
    "translate": (0, 0),
    "cutout": (3, 3, 0, 0),
    "flip": (False,),
    "scale": (1.0, 1.0),
    "rotate": (0.0,),
}


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 7, 5), (2, 1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_neutral_parameters_change_nothing(name, shape):
    images = images_of(2, *shape)
    result = call(name, images, tuple(torch.tensor([value]) for value in IDENTITIES[name]))
    torch.testing.assert_close(result, images, rtol=0, atol=1e-12)


def test_flipping_twice_gives_the_image_back():
    images, mask = images_of(), torch.tensor([True, False, True])
    once = operations.flip(images, mask)
    assert not torch.equal(once, images)
    assert torch.equal(operations.flip(once, mask), images)


def test_saturation_leaves_one_channel_as_it_is():
    images = images_of(3, 1, dtype=torch.float32)
    assert torch.equal(operations.saturation(images, torch.tensor([0.0, 0.3, 1.0])), images)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_operations_are_differentiable_twice(name, samples):
    images, parameters = images_of(2, 2, 3, 4).requires_grad_(), parameters_of(name, samples)
    assert torch.autograd.gradcheck(lambda x: call(name, x, parameters), images)
    # squared, so that there is a second derivative to get wrong
    assert torch.autograd.gradgradcheck(lambda x: call(name, x, parameters) ** 2, images)


@pytest.mark.parametrize("name", NAMES)
def test_the_images_dtype_is_kept_also_under_autocast(name):
    images = images_of(dtype=torch.float32)
    parameters = tuple(p.float() if p.is_floating_point() else p for p in parameters_of(name, 3))
    plain = call(name, images, parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call(name, images, parameters), plain)
    low = call(name, images.bfloat16(), parameters)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), plain, rtol=0, atol=0.06)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_classes_equals_a_loop_over_classes(name):
    images = images_of(12).view(4, 3, 3, 6, 5)
    parameters = tuple(p.expand(4)[:, None] for p in parameters_of(name, 4))
    together = torch.func.vmap(lambda x, p: call(name, x, p))(images, parameters)
    alone = [call(name, images[i], tuple(p[i] for p in parameters)) for i in range(4)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-14)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same_bits_every_time(name, device, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    images = images_of(8, 3, 32, 32, torch.float32).to(device).requires_grad_()
    parameters = tuple((p.float() if p.is_floating_point() else p).to(device) for p in parameters_of(name, 1))
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, *others = (
            torch.autograd.grad(call(name, images, parameters).square().sum(), images)[0] for _ in range(4)
        )
    finally:
        torch.use_deterministic_algorithms(before)
    assert float(first.abs().sum()) > 0
    assert all(torch.equal(first, other) for other in others)
