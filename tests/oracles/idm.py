"""IDM written out (Zhao et al., CVPR 2023): its storage, its loss and its queue; nothing shared with the package."""

from __future__ import annotations

import torch

from tests.oracles.dc import cross_entropy
from tests.oracles.multi_formation import enlarged


def quadrants(image):
    """Top left, bottom left, top right, bottom right: each enlarged to the whole."""
    height, width = image.shape[-2:]
    cut = [(top, left) for left in (0, width // 2) for top in (0, height // 2)]
    found = []
    for top, left in cut:
        rows = [[image[:, top + y, left + x] for x in range(width // 2)] for y in range(height // 2)]
        found.append(enlarged(rows, height, width))
    return found


def expanded(stored):
    """The first quadrant of every image, then the second of every image, and so on."""
    each = [quadrants(image) for image in stored]
    return torch.stack([image[k] for k in range(4) for image in each])


def packed(pixels):
    """The mean of each 2 x 2 pixels of image ``q * n + i`` in quadrant q of stored image i, of n."""
    count, (channels, height, width) = len(pixels) // 4, pixels.shape[1:]
    stored = torch.zeros(count, channels, height, width, dtype=pixels.dtype)
    for q, (top, left) in enumerate([(0, 0), (height // 2, 0), (0, width // 2), (height // 2, width // 2)]):
        for i in range(count):
            for y in range(height // 2):
                for x in range(width // 2):
                    four = pixels[q * count + i, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
                    stored[i, :, top + y, left + x] = four.mean((-2, -1))
    return stored


def term(percent, weight):
    """DM's squared distance of class means, plus the weighed cross-entropy of the synthetic images alone."""

    def of(network, synthetic, real):
        total = 0
        for c, (ours, theirs) in enumerate(zip(synthetic, real, strict=True)):
            gap = network.features(theirs).detach().mean(0) - network.features(ours).mean(0)
            labels = torch.full((len(ours),), c)
            total = total + (gap * gap).sum() + weight * percent * cross_entropy(network(ours), labels)
        return total

    return of


def queues(updates, size, every, first=3):
    """The numbers of the networks in the queue in each update: the oldest go out in front, new ones come in behind."""
    queue, made, found = list(range(first)), first, []
    for update in range(updates):
        if update % every == 0:
            if len(queue) == size:
                queue.pop(0)
            queue.append(made)
            made += 1
        found.append(list(queue))
    return found


def trained(network, optimizer, batches):
    """Train step by step; return the share of the images that the network had right before each step."""
    right = seen = 0
    for images, labels in batches:
        logits = network(images)
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer.step()
    return right / seen
