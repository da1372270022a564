"""Networks of the races as PyTorch modules: ResNet-20 and a language model in the manner of GPT-2."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn


class Residual(nn.Module):
    """Two convolutions with batch normalisation around a skip connection that drops pixels and adds zero channels."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.stride, self.added = channels // before, channels - before
        convolve = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
        self.branch = nn.Sequential(
            convolve(before, channels, stride=self.stride), nn.BatchNorm2d(channels), nn.ReLU(),
            convolve(channels, channels), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The shortcut plus the branch, rectified."""
        shortcut = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return torch.relu(shortcut + self.branch(x))


def resnet(channels: int = 16, depth: int = 3, classes: int = 10) -> nn.Sequential:
    """The residual network of He et al. 2016 for small images; ResNet-20 (269,722 parameters) as it stands."""
    stages = [(channels, channels), (channels, 2 * channels), (2 * channels, 4 * channels)]
    blocks = [Residual(before if number == 0 else after, after) for before, after in stages for number in range(depth)]
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * channels, classes),
    )  # fmt: skip


@dataclass(frozen=True)
class GptSize:
    """Sizes of a language model; as they stand those of GPT-2 small (124 million parameters)."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    context: int = 1024
    vocabulary: int = 50257


class Attention(nn.Module):
    """Causal self-attention, written out so that it can be differentiated twice."""

    def __init__(self, size: GptSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.mix, self.out = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, T, width)`` to the same."""
        parts = self.mix(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = query @ key.mT / math.sqrt(key.shape[-1])
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a perceptron, each after a layer norm and added to the stream."""

    def __init__(self, size: GptSize) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.attention = Attention(size)
        self.perceptron = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU("tanh"), nn.Linear(4 * size.width, size.width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, T, width)`` to the same."""
        x = x + self.attention(self.first(x))
        return x + self.perceptron(self.second(x))


class Gpt(nn.Module):
    """Logits of the next token at every position, ``(N, vocabulary, T)`` as cross-entropy takes them."""

    def __init__(self, size: GptSize) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(size.vocabulary, size.width), nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        self.apply(self._start)
        self.head.weight = self.tokens.weight

    @staticmethod
    def _start(part: nn.Module) -> None:
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits for ``(N, T)`` tokens."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.places(places)
        return self.head(self.norm(self.blocks(x))).mT
