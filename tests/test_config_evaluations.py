"""What the configs of published rows say about judging, read as the objects that they make."""

from __future__ import annotations

import pytest

from lit_condense.evaluation.protocols import recipe_for
from tests.cli_helpers import REPOSITORY, made

EGM = sorted((REPOSITORY / "configs" / "egm").glob("*_ipc*.yaml"))
DSAC_ON_SVHN = sorted((REPOSITORY / "configs" / "dcc").glob("svhn_*_dsac.yaml"))
MIRRORED = ("color", "crop", "cutout", "flip", "scale", "rotate")


def read(path):
    """The config's data set, evaluation and augmentation of condensing."""
    done = made("--config", path)
    return done.datamodule.dataset_name, done.model.evaluation, done.model.augmentation


def recipe_of(path):
    dataset, evaluation, _ = read(path)
    return recipe_for(evaluation.protocol, dataset, False, evaluation.epochs, evaluation.augmentation)


def test_there_are_such_configs():
    assert len(EGM) > 10
    assert [path.stem for path in DSAC_ON_SVHN] == ["svhn_ipc10_dsac", "svhn_ipc1_dsac", "svhn_ipc50_dsac"]


@pytest.mark.parametrize("path", EGM, ids=lambda path: path.stem)
def test_egm_is_judged_by_its_own_protocol(path):
    recipe = recipe_of(path)
    passes = 1000 if path.stem.startswith("mnist") else 300
    assert (recipe.passes, recipe.drops, recipe.restart) == (passes, (passes // 2,), False)


def test_idc_i_at_one_image_a_class_of_svhn_is_judged_without_cutmix_and_with_cutout():
    path = REPOSITORY / "configs" / "idc_i" / "svhn_ipc1.yaml"
    _, evaluation, matched = read(path)
    assert evaluation.cutmix == 0
    assert recipe_of(path).augmentation.operations == ("color", "crop", "cutout", "scale", "rotate")
    assert matched.operations == ("color", "crop", "cutout")  # as every row of IDC-I
    _, evaluation, _ = read(path.with_name("svhn_ipc10.yaml"))
    assert (evaluation.cutmix, evaluation.augmentation) == (None, None)


@pytest.mark.parametrize("path", DSAC_ON_SVHN, ids=lambda path: path.stem)
def test_dsac_mirrors_digits_as_its_program_does(path):
    _, _, matched = read(path)
    assert matched.operations == recipe_of(path).augmentation.operations == MIRRORED


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs" / "dsa").glob("svhn_*.yaml")), ids=lambda p: p.stem)
def test_dsa_does_not_mirror_digits(path):
    _, _, matched = read(path)
    assert set(matched.operations) == set(recipe_of(path).augmentation.operations) == set(MIRRORED) - {"flip"}
