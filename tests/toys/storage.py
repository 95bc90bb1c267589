"""A storage that cannot leave the range of pixels."""

import torch

from lit_condense.parametrization import Parametrization


class Logistic(Parametrization):
    """Images are the logistic function of what is stored; each is decoded as it is and mirrored."""

    def noise(self, shape, generator):
        return torch.randn(shape, generator=generator)

    def encode(self, pixels, normalization):
        return pixels.clamp(0.01, 0.99).logit()

    def decode(self, stored, normalization):
        images = normalization.normalize(stored.sigmoid())
        return torch.cat([images, images.flip(-1)])

    def decode_labels(self, labels):
        return torch.cat([labels, labels])

    def decoded_count(self, stored):
        return 2 * stored

    def project_(self, stored, normalization):
        stored.clamp_(-5, 5)
