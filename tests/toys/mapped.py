"""A store of real images that stay in a file."""

import copy
import hashlib
import tempfile
from pathlib import Path

import numpy as np
import torch

from lit_condense.data import Digits, RealImages


class MappedImages(RealImages):
    """Images in a memory map, read when they are asked for."""

    def __init__(self, folder, like):
        self.path = Path(folder) / f"{like.split}.npy"
        np.save(self.path, like.images.cpu().numpy())
        self.pixels = np.load(self.path, mmap_mode="r")
        self.labels, self.num_classes, self.class_names = like.labels.cpu(), like.num_classes, like.class_names
        self.normalization, self.split = like.normalization, like.split
        self.image_shape, self.class_sizes = like.image_shape, like.class_sizes
        self.device = torch.device("cpu")

    def indices_of(self, class_index):
        return (self.labels == class_index).nonzero().flatten()

    def pixels_at(self, indices):
        read = torch.from_numpy(np.array(self.pixels[indices.cpu().numpy()]))
        return (read.to(torch.float32) / 255).to(self.device)

    def labels_at(self, indices):
        return self.labels[indices.cpu()].to(self.device)

    def to(self, device):
        moved = copy.copy(self)
        moved.device = torch.device(device)
        return moved

    def fingerprint(self):
        return hashlib.sha256(self.path.read_bytes() + self.labels.numpy().tobytes()).hexdigest()


class MappedDigits(Digits):
    """The digits, in a file."""

    def stores(self):
        self._folder = tempfile.TemporaryDirectory()
        train, test = super().stores()
        return MappedImages(self._folder.name, train), MappedImages(self._folder.name, test)
