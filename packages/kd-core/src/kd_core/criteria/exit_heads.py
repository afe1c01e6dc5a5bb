"""Heads that make logits of a stage of a network, of its map or of its tokens, as in OFA."""

from collections.abc import Sequence
from itertools import pairwise
from math import isqrt, log2

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from kd_core.errors import UserError

_LAST = 4  # stage
_GRID = 7  # patches in a row that are merged no further
_HEADS = 4  # of the attention
_RATIO = 4  # of the hidden width of a block


def map_head(
    shape: Sequence[int], num_classes: int, stage: int, width: int | None, prefix: int
) -> nn.Module:
    """Return a head for maps [N, C, H, W].

    Args:
        shape: [C, H, W].
        num_classes: Of the logits.
        stage: Of 4; every later one halves the map once more.
        width: Channels before the linear layer.
        prefix: Must be 0.

    Raises:
        UserError: If there is no width, or a prefix.
    """
    if width is None:
        raise UserError(
            "OFAStage: a map needs a width, the channels before the head's linear layer; the "
            "authors take the larger of both networks' pooled widths, such as width=512"
        )
    if prefix:
        raise UserError(
            f"OFAStage: prefix={prefix} is for tokens, but the student's tap gives a map "
            f"{list(shape)}; write prefix=0, or tap tokens (PATH, without a layout)"
        )
    channels = shape[0]
    body: list[nn.Module] = [nn.Conv2d(channels, width, 1)]
    if stage < _LAST:
        widths = [channels * 2**block for block in range(_LAST - stage)] + [width]
        body = [layer for sizes in pairwise(widths) for layer in _separable(*sizes)]
    head = nn.Sequential(
        *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
    )
    return head.apply(_initialize)


def token_head(
    shape: Sequence[int], num_classes: int, stage: int, width: int | None, prefix: int
) -> nn.Module:
    """Return a head for tokens [N, L, D]; see `_TokenHead`.

    Raises:
        UserError: If the tokens cannot be merged, or a width does not suit.
    """
    length, channels = shape
    patches = length - prefix
    if patches < 1:
        raise UserError(
            f"OFAStage: prefix={prefix}, but the student's tap has {length} tokens in all"
        )
    mergings = max(int(log2(patches**0.5 / _GRID)), 0) if patches > _GRID**2 else 0
    width = width if mergings and width is not None else channels
    if prefix and width != channels:
        raise UserError(
            f"OFAStage: width={width}, but the prefix tokens of {channels} channels are not "
            f"projected; write width={channels}, or leave them out (PATH:tokens, prefix=0)"
        )
    if width % _HEADS:
        raise UserError(
            f"OFAStage: {width} channels cannot be shared by the {_HEADS} heads of its attention; "
            "take a width that is a multiple of it, or tap a map (PATH:map)"
        )
    side = isqrt(patches)
    if mergings and (side**2 != patches or side % 2**mergings):
        raise UserError(
            f"OFAStage merges patches two by two, {mergings} times, which {patches} in a square do "
            "not allow; take images of another size, or tap a map (PATH:map)"
        )
    head = _TokenHead(channels, width, num_classes, mergings, max(_LAST - stage, 1), prefix)
    return head.apply(_initialize)


class _TokenHead(nn.Module):
    """Merges patches, runs transformer blocks on them and classifies a token.

    Args:
        channels: Of the tokens.
        width: Of the merged ones; that of the tokens where nothing is merged.
        num_classes: Of the logits.
        mergings: How often 2x2 neighbours become one.
        blocks: Of the transformer.
        prefix: Tokens before those of the image; the first of them is classified, without any the
            mean of all.
    """

    def __init__(
        self, channels: int, width: int, num_classes: int, mergings: int, blocks: int, prefix: int
    ) -> None:
        super().__init__()
        self.prefix = prefix
        self.mergings = nn.ModuleList(
            _Merging(channels if place == 0 else width, width, place == 0 or place < mergings - 1)
            for place in range(mergings)
        )
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(blocks)))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [N, classes] of tokens [N, prefix + L, D]."""
        first, patches = tokens[:, : self.prefix], tokens[:, self.prefix :]
        for merging in self.mergings:
            patches = merging(patches)
        tokens = self.blocks(torch.cat([first, patches], 1) if self.prefix else patches)
        return self.classifier(tokens[:, 0] if self.prefix else tokens.mean(1))


class _Merging(nn.Module):
    """Joins 2x2 neighbours of a square grid of tokens to one."""

    def __init__(self, inputs: int, outputs: int, activated: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * inputs)
        self.linear = nn.Linear(4 * inputs, outputs, bias=False)
        self.activation = nn.GELU() if activated else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        side = isqrt(tokens.shape[1])
        if side**2 != tokens.shape[1] or side % 2:
            raise UserError(
                f"OFAStage merges patches two by two, which {tokens.shape[1]} in a square do not "
                "allow; keep the size of the images that the head was made for"
            )
        grid = tokens.unflatten(1, (side // 2, 2, side // 2, 2))
        # Down before right: (0, 0), (1, 0), (0, 1), (1, 1).
        joined = grid.permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
        merged: Tensor = self.activation(self.linear(self.norm(joined)))
        return merged


class _Block(nn.Module):
    """A transformer block that normalises first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, _RATIO * width), nn.GELU(), nn.Linear(_RATIO * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(tokens)).unflatten(2, (3, _HEADS, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.projection(seen)
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


class _BatchNorm(nn.BatchNorm2d):
    """BatchNorm that uses its running statistics where a channel has a single value."""

    def forward(self, maps: Tensor) -> Tensor:
        if maps[:, 0].numel() != 1:
            return super().forward(maps)
        statistics = self.running_mean, self.running_var
        return F.batch_norm(maps, *statistics, self.weight, self.bias, eps=self.eps)


def _separable(inputs: int, outputs: int) -> list[nn.Module]:
    """Return two depthwise convolutions, the first of which halves the map, each with a 1x1."""
    layers: list[nn.Module] = []
    for stride, size in ((2, inputs), (1, outputs)):
        depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        pointwise = nn.Conv2d(inputs, size, 1, bias=False)
        layers += [depthwise, pointwise, _BatchNorm(size), nn.ReLU(inplace=True)]
    return layers


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
