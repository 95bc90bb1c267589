"""Architectures, and how a run makes new ones of them.

Every network is made with ``(in_channels, image_size, num_classes, <settings>)``, where ``image_size`` is (height,
width) or one number for both, and offers ``features(images)``, ``classifier`` (its last linear layer) and
``forward(images) = classifier(features(images))``. Layers start as PyTorch's defaults.

======== ============================================= ================= ================================
network  norms (first: default)                        average pooling   smallest image
======== ============================================= ================= ================================
ConvNet  instance, batch, layer, group, none           pooling="avg"     2**depth (8 by default); 2 with
                                                       (or max, none)    pooling="none"
MLP      (has none)                                    -                 1
LeNet    (has none)                                    -                 16
AlexNet  none, batch, instance, layer, group           -                 8
VGG11    instance, batch, layer, group, none           -                 32; 28 with one channel
ResNet18 instance, batch, layer, group, none           average_pool=True 9 (1 with another norm); with
                                                                         average_pool 16 (8)
======== ============================================= ================= ================================

One-channel 28x28 images get the wider first padding of the publications (3 in ConvNet and VGG11, 4 in AlexNet, 2 in
LeNet), which gives the feature maps of 32x32 images; other one-channel sizes are treated as colour images are.
Any other ``nn.Module`` can be used by its ``class_path``; ``as_condensable`` finds its last linear layer.
"""

from lit_condense.networks.adapter import AdaptedNetwork, FeaturesAndLogits, as_condensable
from lit_condense.networks.alexnet import AlexNet
from lit_condense.networks.base import CondensableNetwork
from lit_condense.networks.convnet import ConvNet
from lit_condense.networks.factory import NetworkFactory, build_network, evaluating, factory_target, network_name
from lit_condense.networks.lenet import LeNet
from lit_condense.networks.mlp import MLP
from lit_condense.networks.resnet import ResNet18
from lit_condense.networks.vgg import VGG11

__all__ = [
    "MLP",
    "VGG11",
    "AdaptedNetwork",
    "AlexNet",
    "CondensableNetwork",
    "ConvNet",
    "FeaturesAndLogits",
    "LeNet",
    "NetworkFactory",
    "ResNet18",
    "as_condensable",
    "build_network",
    "evaluating",
    "factory_target",
    "network_name",
]
