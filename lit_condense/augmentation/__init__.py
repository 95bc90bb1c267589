"""How images are augmented: drawn by key, then applied to any batch."""

from lit_condense.augmentation.base import Augmentation, Draw, NoAugmentation
from lit_condense.augmentation.crop_flip import CropFlip
from lit_condense.augmentation.cutmix import CutMix
from lit_condense.augmentation.evaluation import EvaluationAugmentation
from lit_condense.augmentation.siamese import AlwaysOn, OneOf, dsa_operations

__all__ = [
    "AlwaysOn",
    "Augmentation",
    "CropFlip",
    "CutMix",
    "Draw",
    "EvaluationAugmentation",
    "NoAugmentation",
    "OneOf",
    "dsa_operations",
]
