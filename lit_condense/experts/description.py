"""What the weights of experts depend on, as plain data."""

from __future__ import annotations

from lit_condense.data import CondenseDataModule
from lit_condense.networks import NetworkFactory
from lit_condense.settings import Plain, settings_of


def describe(data: CondenseDataModule, network: NetworkFactory) -> Plain:
    """Return data, normalisation and network, as a student must have them too.

    Args:
        data: With its training split.
        network: The architecture.
    """
    described = data.describe()
    normalization = dict(described["normalization"])
    if "mean" in normalization:
        del normalization["family"]  # a name of these values
    return {
        "data": {
            "dataset": described["dataset"],
            "class_names": described["class_names"],
            "image_shape": described["image_shape"],
            "sha256": described["train"]["sha256"],
        },
        "normalization": normalization,
        "network": settings_of(network),
    }
