"""What a student must have in common with the experts that it follows, as plain data."""

from __future__ import annotations

from lit_condense.data.real_images import RealImages
from lit_condense.networks import NetworkFactory
from lit_condense.settings import Plain, settings_of


def describe(real: RealImages, network: NetworkFactory) -> Plain:
    """Return data, normalisation and network.

    Args:
        real: The training split.
        network: The architecture.
    """
    return {
        "data": {
            "class_names": list(real.class_names),
            "image_shape": list(real.image_shape),
            "sha256": real.fingerprint(),
        },
        "normalization": real.normalization.describe(),
        "network": settings_of(network),
    }
