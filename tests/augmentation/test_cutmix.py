import numpy as np
import pytest
import torch

from lit_condense.augmentation import CutMix
from lit_condense.errors import SettingsError
from lit_condense.rng import RandomKey

KEYS = [RandomKey(9, (i,)) for i in range(300)]


def batch_of(n=6, channels=3, height=8, width=11):
    images = torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images, torch.arange(n) * 10


def test_mixed_images_match_the_literal_loop():
    images, labels = batch_of()
    for key in KEYS[:20]:
        draw = CutMix(1.0).draw(key, (8, 11), samples=6)
        partners, top, bottom, left, right = (p.tolist() for p in draw["cutmix"])
        mixed, own, other, ratio = CutMix(1.0).apply(images, labels, draw)
        expected, pasted = images.clone(), 0
        for y in range(top[0], bottom[0]):
            for x in range(left[0], right[0]):
                pasted += 1
                for i in range(6):
                    expected[i, :, y, x] = images[partners[i], :, y, x]
        assert torch.equal(mixed, expected)
        assert float(ratio) == pytest.approx(1 - pasted / 88, abs=1e-12)
        assert torch.equal(own, labels)
        assert other.tolist() == [labels[p].item() for p in partners]
        assert ratio.shape == ()


def test_partners_are_a_permutation_that_changes_with_the_key():
    orders = [tuple(CutMix().draw(key, (8, 8), samples=7)["cutmix"][0].tolist()) for key in KEYS[:30]]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(set(orders)) > 25


def test_boxes_lie_in_the_image_and_reach_every_edge():
    edges = torch.stack([torch.cat(CutMix(1.0).draw(key, (8, 12), 2)["cutmix"][1:]) for key in KEYS])
    top, bottom, left, right = edges.unbind(dim=1)
    assert (int(top.min()), int(bottom.max()), int(left.min()), int(right.max())) == (0, 8, 0, 12)
    assert bool((bottom >= top).all())
    assert bool((right >= left).all())


def test_pasted_area_follows_the_published_distribution():
    generator = np.random.default_rng(0)
    side = np.sqrt(1 - generator.uniform(size=20_000))
    area = np.ones(20_000)
    for size in (32, 20):
        centre, half = generator.integers(0, size, 20_000), (size * side).astype(int) // 2
        area *= (np.minimum(centre + half, size) - np.maximum(centre - half, 0)) / size
    images, labels = torch.zeros(2, 1, 32, 20), torch.zeros(2)
    ratios = [float(CutMix(1.0).apply(images, labels, CutMix(1.0).draw(k, (32, 20), 2))[3]) for k in KEYS]
    assert 1 - np.mean(ratios) == pytest.approx(area.mean(), abs=0.04)
    assert np.std(ratios) == pytest.approx(area.std(), abs=0.03)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_the_asked_share_of_batches_is_mixed(probability):
    images, labels = batch_of(2, 1, 16, 16)
    mixer, mixed = CutMix(probability), 0
    for key in KEYS:
        result, _, _, ratio = mixer.apply(images, labels, mixer.draw(key, (16, 16), 2))
        mixed += float(ratio) < 1
        if float(ratio) == 1:
            assert torch.equal(result, images)
    assert mixed / len(KEYS) == pytest.approx(probability, abs=0.08)


def test_mixing_is_differentiable_twice():
    images, labels = batch_of(3, 2, 4, 3)
    draw = CutMix(1.0).draw(KEYS[1], (4, 3), 3)
    images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: CutMix(1.0).apply(x, labels, draw)[0], images)
    assert torch.autograd.gradgradcheck(lambda x: CutMix(1.0).apply(x, labels, draw)[0] ** 2, images)


def test_draws_follow_the_key_and_nothing_else():
    state = torch.get_rng_state()
    first, again = (CutMix(1.0).draw(KEYS[4], (8, 8), 5)["cutmix"] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_apply_compiles_into_one_graph():
    torch.compiler.reset()
    images, labels = batch_of()
    compiled = torch.compile(CutMix(1.0).apply, backend="eager", fullgraph=True)
    draw = CutMix(1.0).draw(KEYS[0], (8, 11), 6)
    for got, expected in zip(compiled(images, labels, draw), CutMix(1.0).apply(images, labels, draw), strict=True):
        torch.testing.assert_close(got, expected)


def test_wrong_use_is_refused():
    with pytest.raises(SettingsError, match="probability"):
        CutMix(1.2)
    images, labels = batch_of()
    with pytest.raises(SettingsError, match="samples=len"):
        CutMix().apply(images, labels, CutMix().draw(KEYS[0], (8, 11), samples=5))
