"""Files as published programs write them, made here from their documented layouts: no foreign file is kept."""

from __future__ import annotations

import pickle
import zipfile

import numpy as np
import torch

CLASSES, SIZE = 3, 8


def images_of(count=6, channels=3, seed=0):
    """Values as normalised images have them: below 0 and above 1."""
    return torch.randn(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def labels_of(count=6):
    """Class by class."""
    return torch.arange(CLASSES).repeat_interleave(count // CLASSES)


def results(folder, name="res_DC_CIFAR10_ConvNet_2ipc.pt", experiments=2, **options):
    """Zhao et al.'s result file: numbers of NumPy among the tensors."""
    data = [[images_of(seed=number), labels_of()] for number in range(experiments)]
    torch.save(
        {"data": data, "accs_all_exps": {"ConvNet": [np.float64(0.25), np.float64(0.5)]}}, folder / name, **options
    )
    return folder / name


def as_numpy_1_wrote_it(path):
    """Spell NumPy's module as its first version did."""
    parts = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            content = archive.read(member)
            if member.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            parts[member.filename] = content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for filename, content in parts.items():
            archive.writestr(filename, content)
    return path


def trajectories(folder, labels=None, lr=None, suffix="best"):
    """MTT's files, and with logits and a rate DATM's."""
    torch.save(images_of(), folder / f"images_{suffix}.pt")
    torch.save(labels_of() if labels is None else labels, folder / f"labels_{suffix}.pt")
    if lr is not None:
        torch.save(torch.tensor(lr), folder / f"lr_{suffix}.pt")
    return folder / f"images_{suffix}.pt"


def idc(folder, tag="conv3in_cut_niter2000_factor2_lr0.005_ipc2", name="data.pt"):
    """IDC's and DREAM's file in the folder that is called after its settings."""
    place = folder / "cifar10" / tag
    place.mkdir(parents=True)
    torch.save([images_of().sigmoid(), labels_of()], place / name)
    return place / name


def idm_pickle(folder, packed=True):
    """IDM's plain pickle."""
    place = folder / f"cifar10_ipc_2_aug_{packed}_model_ConvNet"
    place.mkdir()
    (place / "acc_0.45.pkl").write_bytes(pickle.dumps((images_of(), labels_of())))
    return place / "acc_0.45.pkl"


class Hostile:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/lit_condense_was_here",)
