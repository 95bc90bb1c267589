"""Small vision transformers, and the same forward pass with attention written out in single matrix products."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS = 8, 2


class Transformer(nn.Module):
    """Patches of 4 x 4 pixels, one attention over them, a classifier of their mean.

    Args:
        in_channels: Of the images.
        image_size: Height and width.
        num_classes: Logits.
        kind: What attends: ``function`` (``F.scaled_dot_product_attention``), ``attention``
            (``nn.MultiheadAttention`` without weights) or ``layer`` (``nn.TransformerEncoderLayer``).
    """

    def __init__(self, in_channels, image_size, num_classes, kind="layer"):
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv2d(in_channels, WIDTH, 4, 4)
        self.places = nn.Parameter(torch.randn(image_size[0] * image_size[1] // 16, WIDTH) / 10)
        if kind == "function":
            self.projected, self.joined = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        elif kind == "attention":
            self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        else:
            self.layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.attended(tokens).mean(1))

    def attended(self, tokens):
        if self.kind == "layer":
            return self.layer(tokens)
        if self.kind == "attention":
            return tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        heads = [
            part.unflatten(2, (HEADS, -1)).transpose(1, 2).contiguous() for part in self.projected(tokens).chunk(3, -1)
        ]
        return tokens + self.joined(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


class Written(nn.Module):
    """A transformer's forward pass in training mode, from its weights, without a fused kernel."""

    def __init__(self, transformer):
        super().__init__()
        self.own = transformer

    def forward(self, images):
        own = self.own
        tokens = own.patches(images).flatten(2).transpose(1, 2) + own.places
        if own.kind == "function":
            after = tokens + heads_of(tokens, own.projected.weight, own.projected.bias, own.joined)
        elif own.kind == "attention":
            after = tokens + heads_of(
                tokens, own.attention.in_proj_weight, own.attention.in_proj_bias, own.attention.out_proj
            )
        else:
            layer = own.layer
            attention = layer.self_attn
            seen = heads_of(tokens, attention.in_proj_weight, attention.in_proj_bias, attention.out_proj)
            between = normed(tokens + seen, layer.norm1)
            hidden = (between @ layer.linear1.weight.T + layer.linear1.bias).clamp(min=0)
            after = normed(between + hidden @ layer.linear2.weight.T + layer.linear2.bias, layer.norm2)
        return after.mean(1) @ own.head.weight.T + own.head.bias


def heads_of(tokens, weight, bias, joined):
    """softmax(q k^T / sqrt(d)) v, head by head."""
    queries, keys, values = (tokens @ weight.T + bias).chunk(3, -1)
    size, found = WIDTH // HEADS, []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        scores = queries[..., part] @ keys[..., part].transpose(1, 2) / math.sqrt(size)
        powers = scores.exp()
        found.append(powers / powers.sum(-1, keepdim=True) @ values[..., part])
    return torch.cat(found, -1) @ joined.weight.T + joined.bias


def normed(tokens, norm):
    mean = tokens.mean(-1, keepdim=True)
    variance = ((tokens - mean) ** 2).mean(-1, keepdim=True)
    return (tokens - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
