import itertools
import math

import jsonargparse
import pytest
import torch

from lit_condense.augmentation import AlwaysOn, Augmentation, NoAugmentation, OneOf, dsa_operations, operations
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey

GROUPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
COLOR = ["brightness", "saturation", "contrast"]
KEYS = [RandomKey(5, (i,)) for i in range(300)]


def images_of(n=3, channels=3, height=6, width=5, dtype=torch.float64):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def drawn(augmentation: Augmentation, name: str, number: int = 0, size=(32, 32), samples: int = 4) -> torch.Tensor:
    """One parameter over many keys, every one of which has the operation."""
    return torch.cat([augmentation.draw(key, size, samples)[name][number] for key in KEYS])


def equal(a, b) -> bool:
    return list(a) == list(b) and all(torch.equal(p, q) for name in a for p, q in zip(a[name], b[name], strict=True))


AUGMENTATIONS = [*(OneOf([group]) for group in GROUPS), AlwaysOn(GROUPS)]
LABELS = [*GROUPS, "always on"]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=LABELS)
def test_a_shared_draw_does_the_same_to_the_real_and_the_synthetic_batch(augmentation):
    for key in KEYS[:2]:
        draw = augmentation.draw(key, (8, 10), samples=1)
        assert all(p.shape == (1,) for parameters in draw.values() for p in parameters)
        both = images_of(266, 3, 8, 10, torch.float32)
        real, synthetic = augmentation.apply(both[:256], draw), augmentation.apply(both[256:], draw)
        torch.testing.assert_close(torch.cat([real, synthetic]), augmentation.apply(both, draw), rtol=0, atol=1e-6)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=LABELS)
def test_a_shared_draw_equals_a_draw_with_repeated_parameters(augmentation):
    images, draw = images_of(4), augmentation.draw(KEYS[0], (6, 5), samples=1)
    repeated = {name: tuple(p.expand(4) for p in parameters) for name, parameters in draw.items()}
    torch.testing.assert_close(augmentation.apply(images, draw), augmentation.apply(images, repeated))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=LABELS)
def test_a_draw_for_each_image_treats_each_image_by_its_own_parameters(augmentation):
    images, draw = images_of(4), augmentation.draw(KEYS[1], (6, 5), samples=4)
    together = augmentation.apply(images, draw)
    for i in range(4):
        own = {name: tuple(p if len(p) == 1 else p[i : i + 1] for p in ps) for name, ps in draw.items()}
        torch.testing.assert_close(augmentation.apply(images[i : i + 1], own)[0], together[i])


@pytest.mark.parametrize("augmentation", [OneOf(), AlwaysOn(GROUPS)], ids=["one of", "always on"])
def test_draws_follow_the_key_and_nothing_else(augmentation):
    state = torch.get_rng_state()
    first = [augmentation.draw(key, (32, 32), 4) for key in KEYS[:20]]
    again = [augmentation.draw(key, (32, 32), 4) for key in reversed(KEYS[:20])][::-1]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(equal(a, b) for a, b in itertools.pairwise(first))


def test_the_images_do_not_enter_a_shared_draw():
    images, augmentation = images_of(10), OneOf(["scale", "rotate", "cutout"])
    for key in KEYS[:10]:
        draw = augmentation.draw(key, (6, 5), samples=1)
        torch.testing.assert_close(augmentation.apply(images, draw)[:2], augmentation.apply(images[:2], draw))


def test_one_of_draws_every_group_equally_often():
    names = [list(OneOf().draw(key, (32, 32), samples=1)) for key in KEYS]
    counts = {group: names.count(COLOR if group == "color" else [group]) for group in GROUPS}
    assert sum(counts.values()) == len(KEYS)
    assert all(30 <= count <= 72 for count in counts.values()), counts  # 50 expected, standard deviation 6.5


def test_one_of_draws_only_the_listed_groups():
    names = {tuple(OneOf(["flip", "rotate"]).draw(key, (32, 32), 2)) for key in KEYS[:50]}
    assert names == {("flip",), ("rotate",)}


def test_always_on_applies_all_in_the_published_order():
    shuffled = ("cutout", "rotate", "color", "scale", "flip", "crop")
    names = [tuple(AlwaysOn(shuffled).draw(key, (32, 32), 1)) for key in KEYS]
    moves = [name[4] for name in names]
    assert set(names) == {("flip", *COLOR, move, "cutout") for move in ("crop", "scale", "rotate")}
    assert all(70 <= moves.count(move) <= 130 for move in ("crop", "scale", "rotate"))
    assert list(AlwaysOn().draw(KEYS[0], (32, 32), 1)) == [*COLOR, "crop", "cutout"]
    assert list(AlwaysOn(["cutout"]).draw(KEYS[0], (32, 32), 1)) == ["cutout"]
    assert list(AlwaysOn(["flip", "color"]).draw(KEYS[0], (32, 32), 1)) == ["flip", *COLOR]


def test_always_on_composes_the_operations():
    images, augmentation = images_of(4), AlwaysOn(("color", "crop", "cutout", "flip"))
    draw = augmentation.draw(KEYS[3], (6, 5), samples=4)
    expected = operations.flip(images, *draw["flip"])
    expected = operations.brightness(expected, draw["brightness"][0], 1.0)
    expected = operations.saturation(expected, draw["saturation"][0], 2.0)
    expected = operations.contrast(expected, draw["contrast"][0], 0.5)
    expected = operations.translate(expected, *draw["crop"])
    expected = operations.cutout(expected, *draw["cutout"])
    torch.testing.assert_close(augmentation.apply(images, draw), expected)


@pytest.mark.parametrize(("size", "reach"), [(28, 4), (32, 4), (64, 8), (20, 3)])
def test_crop_shifts_by_an_eighth_of_each_side_at_most(size, reach):
    rows, columns = drawn(OneOf(["crop"]), "crop", 0, (size, 32)), drawn(OneOf(["crop"]), "crop", 1, (size, 32))
    assert set(rows.tolist()) == set(range(-reach, reach + 1))
    assert set(columns.tolist()) == set(range(-4, 5))
    assert not torch.equal(rows, columns)


@pytest.mark.parametrize(("size", "side", "last"), [(28, 14, 28), (32, 16, 32), (10, 5, 9), (9, 5, 8)])
def test_cutout_windows_are_half_a_side_and_even_ones_have_one_centre_more(size, side, last):
    augmentation = OneOf(["cutout"])
    rows, columns = (drawn(augmentation, "cutout", axis, (size, 6), 8) for axis in (0, 1))
    assert set(rows.tolist()) == set(range(last + 1))
    assert set(columns.tolist()) == set(range(6))
    assert [int(p) for p in augmentation.draw(KEYS[0], (size, 6), 1)["cutout"][2:]] == [side, 3]


def test_scale_rotate_flip_and_color_keep_to_the_published_ranges():
    heights, widths = drawn(OneOf(["scale"]), "scale", 0), drawn(OneOf(["scale"]), "scale", 1)
    assert float(heights.min()) >= 1 / 1.2 - 1e-6
    assert float(heights.max()) <= 1.2 + 1e-6
    assert float(heights.max() - heights.min()) > 0.98 * (1.2 - 1 / 1.2)
    assert abs(float(torch.corrcoef(torch.stack([heights, widths]))[0, 1])) < 0.1
    angles = drawn(OneOf(["rotate"]), "rotate")
    assert 14.5 < math.degrees(float(angles.max())) <= 15.0001
    assert -15.0001 <= math.degrees(float(angles.min())) < -14.5
    assert drawn(OneOf(["flip"]), "flip").double().mean() == pytest.approx(0.5, abs=0.05)
    units = torch.stack([drawn(OneOf(["color"]), name) for name in COLOR])
    assert float(units.min()) >= 0
    assert float(units.max()) < 1
    assert torch.allclose(units.mean(dim=1), torch.full((3,), 0.5), atol=0.04)
    assert float((torch.corrcoef(units) - torch.eye(3)).abs().max()) < 0.1


def test_strengths_reach_the_operations():
    images = images_of(3)
    calm = AlwaysOn(
        ["color", "flip", "crop", "cutout"], 0.0, saturation=0.0, contrast=1.0, crop=0.0, cutout=0.0, flip=0.0
    )
    result = calm.apply(images, calm.draw(KEYS[0], (6, 5), 3))
    assert float((result - result.mean(dim=1, keepdim=True)).abs().max()) < 1e-12, "saturation 0 gives grey"
    assert torch.all(drawn(OneOf(["flip"], flip=1.0), "flip"))
    assert set(drawn(OneOf(["crop"], crop=0.25), "crop").tolist()) == set(range(-8, 9))
    assert math.degrees(float(drawn(OneOf(["rotate"], rotate=40.0), "rotate").max())) > 39
    assert float(drawn(OneOf(["scale"], scale=2.0), "scale").min()) < 0.52
    bright = OneOf(["color"], brightness=4.0, saturation=1.0, contrast=0.25).draw(KEYS[0], (6, 5), 1)
    assert [float(bright[name][1]) for name in COLOR] == [4.0, 1.0, 0.25]


def test_no_augmentation_gives_the_images_back():
    images = images_of()
    assert NoAugmentation().apply(images, NoAugmentation().draw(KEYS[0], (6, 5), 3)) is images


@pytest.mark.parametrize("name", ["mnist", "MNIST", "svhn", "SVHN", "digits"])
def test_digits_are_never_flipped(name):
    assert dsa_operations(name) == ("color", "crop", "cutout", "scale", "rotate")


@pytest.mark.parametrize("name", ["cifar10", "CIFAR-100", "fashion_mnist", "FashionMNIST", "tiny_imagenet", "mine"])
def test_other_data_sets_get_all_six_operations(name):
    assert dsa_operations(name) == GROUPS


@pytest.mark.parametrize("build", [OneOf, AlwaysOn])
@pytest.mark.parametrize("wrong", [["color", "blur"], [], ["crop", "crop"], "color_crop", None, [["crop"]]])
def test_wrong_operations_are_refused_with_the_known_ones(build, wrong):
    with pytest.raises(SettingsError, match="color, crop"):
        build(wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"brightness": -1.0}, {"crop": 1.5}, {"cutout": -0.1}, {"scale": 0.8}, {"rotate": 200.0}, {"flip": 2.0}],
)
def test_strengths_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        OneOf(**wrong)


def test_a_draw_for_another_number_of_images_is_refused():
    augmentation = OneOf(["rotate"])
    with pytest.raises(SettingsError, match="samples=len"):
        augmentation.apply(images_of(3), augmentation.draw(KEYS[0], (6, 5), samples=2))
    with pytest.raises(SettingsError, match="samples=0"):
        augmentation.draw(KEYS[0], (6, 5), samples=0)


def test_yaml_configures_an_augmentation():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--augmentation", type=Augmentation)
    settings = {"operations": ["color", "flip"], "flip": 0.25}
    for kind in ("OneOf", "AlwaysOn"):
        chosen = {"class_path": f"lit_condense.augmentation.{kind}", "init_args": settings}
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # the name before 4.49
        made = instantiate(parser.parse_object({"augmentation": chosen})).augmentation
        assert type(made).__name__ == kind
        assert (made.operations, made.flip, made.scale) == (("color", "flip"), 0.25, 1.2)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=LABELS)
def test_the_whole_augmentation_is_differentiable_twice(augmentation):
    images, draw = images_of(2, 2, 4, 3).requires_grad_(), augmentation.draw(KEYS[2], (4, 3), samples=1)
    assert torch.autograd.gradcheck(lambda x: augmentation.apply(x, draw), images)
    assert torch.autograd.gradgradcheck(lambda x: augmentation.apply(x, draw) ** 2, images)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=LABELS)
def test_apply_compiles_into_one_graph(augmentation, samples):
    torch.compiler.reset()
    compiled = torch.compile(augmentation.apply, backend="eager", fullgraph=True)
    images, draw = images_of(3, dtype=torch.float32), augmentation.draw(KEYS[0], (6, 5), samples)
    torch.testing.assert_close(compiled(images, draw), augmentation.apply(images, draw))


def test_classes_with_their_own_shared_draws_can_be_mapped_over():
    augmentation, images = AlwaysOn(), images_of(12).view(4, 3, 3, 6, 5)
    draws = [augmentation.draw(RandomKey(1, (c,)), (6, 5), samples=1) for c in range(4)]
    stacked = {
        name: tuple(torch.stack(p) for p in zip(*(draw[name] for draw in draws), strict=True)) for name in draws[0]
    }
    together = torch.func.vmap(augmentation.apply)(images, stacked)
    alone = [augmentation.apply(images[c], draws[c]) for c in range(4)]
    torch.testing.assert_close(together, torch.stack(alone))
