"""The published training recipes of evaluation networks, written out in float64 without augmentation.

Sources: the programs of Zhao et al., ICLR 2021 (protocols dc and dsa), Jiang et al., 2022 (protocol egm) and Kim et
al., ICML 2022 (protocol idc).
"""

from __future__ import annotations

from tests.oracles.dc import Sgd, train_step


def train_dc(network, images, labels, epochs, order, after_step=lambda: None, batch_size=256):
    """E + 1 passes; after the pass with index E // 2 + 1 the rate is a tenth, in a new optimizer without momentum."""
    rate = 0.01
    sgd = Sgd(rate, momentum=0.9, weight_decay=5e-4)
    for index in range(epochs + 1):
        _one_pass(network, sgd, images, labels, order(index), batch_size, after_step)
        if index == epochs // 2 + 1:
            rate = rate * 0.1
            sgd = Sgd(rate, momentum=0.9, weight_decay=5e-4)


def train_egm(network, images, labels, epochs, order, after_step=lambda: None, batch_size=256):
    """E passes; from half of them on the rate is a tenth, and the momentum stays (EGM's program, 2021)."""
    sgd = Sgd(0.01, momentum=0.9, weight_decay=5e-4)
    for index in range(epochs):
        if index == epochs // 2:
            sgd.lr = sgd.lr * 0.1
        _one_pass(network, sgd, images, labels, order(index), batch_size, after_step)


def train_idc(network, images, labels, epochs, order, after_step=lambda: None, batch_size=64):
    """E passes; at 2/3 and at 5/6 of them the rate is multiplied by 0.2, and the momentum stays."""
    sgd = Sgd(0.01, momentum=0.9, weight_decay=5e-4)
    for index in range(epochs):
        if index in (2 * epochs // 3, 5 * epochs // 6):
            sgd.lr = sgd.lr * 0.2
        _one_pass(network, sgd, images, labels, order(index), batch_size, after_step)


def accuracy(network, images, labels):
    """The share of images whose largest logit is their label's, counted one by one."""
    right = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        logits = network(image[None])[0].tolist()
        right += max(range(len(logits)), key=logits.__getitem__) == label
    return right / len(labels)


def _one_pass(network, sgd, images, labels, order, batch_size, after_step):
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        train_step(network, sgd, images[chosen], labels[chosen])
        after_step()
