"""A small vision transformer for tests: one class token before six patches, two blocks."""

import torch
from torch import nn

WIDTH = 8


class Patches(nn.Module):
    """Patches of 4 x 4 pixels as tokens, row by row."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, 4, stride=4)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)  # (N, P, K)


class Block(nn.Module):
    """Attention and two dense layers, each added to what it reads."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x):
        z = self.norm1(x)
        x = x + self.attention(z, z, z, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class SmallTransformer(nn.Module):
    """Scores of 5 classes from the class token, or from the mean of the patches without one."""

    def __init__(self, *, class_token: bool):
        super().__init__()
        self.patch_embed = Patches()
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH)) if class_token else None
        self.places = nn.Parameter(torch.zeros(1, 6 + class_token, WIDTH))
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)

    def forward(self, x):
        x = self.patch_embed(x)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        x = self.norm(self.blocks(x + self.places))  # (N, T, K)
        return self.head(x.mean(1) if self.token is None else x[:, 0])


def vit(*, class_token: bool = True):
    """A transformer with random weights for pictures of 8 x 12: T = 1 + 2 * 3 tokens."""
    torch.manual_seed(0)
    model = SmallTransformer(class_token=class_token).double().eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model


VIT = vit()
