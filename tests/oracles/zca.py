"""ZCA whitening as kornia's documentation defines it, by a singular value decomposition in float64 and plain numpy."""

from __future__ import annotations

import numpy as np


class Whitening:
    """Fitted to images ``(n, ...)`` in [0, 1]; nothing shared with the package."""

    def __init__(self, images, eps=0.1):
        rows = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
        self.mean = sum(rows) / len(rows)
        self.covariance = np.cov(rows, rowvar=False)
        directions, variances, _ = np.linalg.svd(self.covariance)
        self.matrix = directions @ np.diag(1 / np.sqrt(variances + eps)) @ directions.T
        self.inverse = directions @ np.diag(np.sqrt(variances + eps)) @ directions.T

    def whiten(self, images):
        images = np.asarray(images, dtype=np.float64)
        return ((images.reshape(len(images), -1) - self.mean) @ self.matrix).reshape(images.shape)

    def unwhiten(self, images):
        images = np.asarray(images, dtype=np.float64)
        return (images.reshape(len(images), -1) @ self.inverse + self.mean).reshape(images.shape)
