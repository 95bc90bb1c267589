"""What every network offers, and the checks and size arithmetic they share.

Letters: n images, C channels, H and W their height and width, d features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lit_condense.errors import SettingsError

MNIST_SIZE = (28, 28)


class CondensableNetwork(nn.Module):
    """A classifier that shows the input of its last linear layer.

    Deriving from this class declares that ``forward(images)`` is ``classifier(features(images))`` and nothing more;
    feature-matching and last-layer losses rely on it. Assign the last ``nn.Linear`` to ``classifier``.
    """

    classifier: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the last linear layer, (n, d), of ``images`` (n, C, H, W)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, (n, K), of ``images`` (n, C, H, W)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


class ImageNetwork(CondensableNetwork):
    """A condensable network built for one image size; base of the architectures of this package.

    Args:
        in_channels: Channels of the images.
        image_size: Height and width in pixels, or one number for both. Kept as a pair.
        num_classes: Number of logits.

    Raises:
        SettingsError: A number is not a whole number of at least 1.
    """

    def __init__(self, in_channels: int, image_size: int | tuple[int, int], num_classes: int) -> None:
        super().__init__()
        self.check_count("in_channels", in_channels)
        self.check_count("num_classes", num_classes)
        self.in_channels = in_channels
        self.image_size = self._pair(image_size)
        self.num_classes = num_classes

    def check_count(self, setting: str, value: object) -> None:
        """Raise ``SettingsError`` unless ``value`` is a whole number of at least 1."""
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SettingsError(f"{self._name} needs {setting} to be a whole number of at least 1, but got {value!r}.")

    def too_small(self, halvings: int, advice: str) -> SettingsError:
        """Return the error that says that the images are too small for this network."""
        height, width = self.image_size
        times = "once" if halvings == 1 else f"{halvings} times"
        return SettingsError(
            f"{self._name} halves the image {times}, for which {height}x{width} images are too small: {advice}."
        )

    def published_padding(self, for_mnist: int, otherwise: int) -> int:
        """Return the first convolution's padding: the publications enlarge one-channel 28x28 images to 32x32."""
        return for_mnist if self.in_channels == 1 and self.image_size == MNIST_SIZE else otherwise

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _pair(self, image_size: int | Sequence[int]) -> tuple[int, int]:
        pair = (image_size, image_size) if isinstance(image_size, int) else image_size
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise SettingsError(
                f"{self._name} needs image_size to be one number or (height, width), but got {image_size!r}."
            )
        for length in pair:
            self.check_count("image_size", length)
        return pair[0], pair[1]


def convolved(size: tuple[int, int], kernel: int, padding: int) -> tuple[int, int]:
    """Return the height and width after a stride-1 convolution."""
    return size[0] + 2 * padding - kernel + 1, size[1] + 2 * padding - kernel + 1


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width after 2x2 pooling with stride 2, which drops an odd last row or column."""
    return size[0] // 2, size[1] // 2
