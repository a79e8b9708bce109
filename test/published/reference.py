"""What published code computes, written out in float64 from its steps.

Nothing is shared with the code under test but the weights, and nothing is taken over from the
published code. Names follow the papers.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import slow_reference as slow
import torch
from torch.nn.functional import interpolate, layer_norm, normalize, pad


def resize_image(rgb, short, long, mean, std):
    """Keep the ratio, round half up, OpenCV's bilinear; normalise; (3, H, W)."""
    height, width = rgb.shape[:2]
    scale = min(short / min(height, width), long / max(height, width))
    size = math.floor(width * scale + 0.5), math.floor(height * scale + 0.5)
    pixels = cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR) / 255
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1)


class Tower:
    """CLIP's image tower with the attention of the last block changed."""

    def __init__(self, state, heads, mode, positions, gelu='quick', eps=1e-5):
        self.weights = {
            key.removeprefix('visual.'): value.double()
            for key, value in state.items()
            if key.startswith('visual.')
        }
        self.heads, self.mode, self.positions = heads, mode, positions
        self.gelu, self.eps = gelu, eps
        self.patch = self.weights['conv1.weight'].shape[-1]

    def norm(self, x, name):
        weight, bias = (self.weights[f'{name}.{part}'] for part in ('weight', 'bias'))
        return layer_norm(x, weight.shape, weight, bias, self.eps)

    def dense(self, x, name):
        return x @ self.weights[f'{name}.weight'].T + self.weights[f'{name}.bias']

    def features(self, image_chw):
        """Return projected patches (h, w, d), rows and columns cut to whole patches."""
        kernel = self.weights['conv1.weight']
        grid = tuple(side // self.patch for side in image_chw.shape[1:])
        tokens = [self.weights['class_embedding']]
        for row in range(grid[0]):
            for column in range(grid[1]):
                y, x = row * self.patch, column * self.patch
                pixels = image_chw[:, y : y + self.patch, x : x + self.patch]
                tokens.append((kernel * pixels).sum(dim=(1, 2, 3)))
        table = self.weights['positional_embedding'].numpy()
        positions = torch.from_numpy(slow.resize_positions(table, grid, self.positions))
        x = self.norm(torch.stack(tokens) + positions, 'ln_pre')
        last = max(int(key.split('.')[2]) for key in self.weights if 'resblocks' in key)
        for number in range(last):
            x = self.block(x, f'transformer.resblocks.{number}', 'vanilla', grid)
        x = self.block(x, f'transformer.resblocks.{last}', self.mode, grid)
        return (self.norm(x, 'ln_post') @ self.weights['proj'])[1:].reshape(*grid, -1)

    def block(self, x, name, mode, grid):
        normed = self.norm(x, f'{name}.ln_1')
        qkv = normed @ self.weights[f'{name}.attn.in_proj_weight'].T
        q, k, v = (qkv + self.weights[f'{name}.attn.in_proj_bias']).chunk(3, dim=-1)
        width = q.shape[1] // self.heads
        parts = []
        for head in range(self.heads):
            own = slice(head * width, (head + 1) * width)
            weights = self.attention(mode, q[:, own], k[:, own], grid)
            parts.append(weights @ v[:, own])
        output = self.dense(torch.cat(parts, dim=1), f'{name}.attn.out_proj')
        if mode in ('clearclip', 'naclip'):
            return output
        x = x + output
        hidden = self.dense(self.norm(x, f'{name}.ln_2'), f'{name}.mlp.c_fc')
        quick = self.gelu == 'quick'
        hidden = hidden * (1.702 * hidden).sigmoid() if quick else exact_gelu(hidden)
        return x + self.dense(hidden, f'{name}.mlp.c_proj')

    def attention(self, mode, q, k, grid):
        scale = q.shape[1] ** -0.5
        if mode == 'maskclip':
            return torch.eye(len(q), dtype=torch.float64)
        if mode == 'sclip':
            return (scale * q @ q.T).softmax(dim=1) + (scale * k @ k.T).softmax(dim=1)
        if mode == 'clearclip':
            return (scale * q @ q.T).softmax(dim=1)
        if mode == 'naclip':
            n = len(q)
            near = [[slow.omega(i, j, grid) for j in range(n)] for i in range(n)]
            return (scale * k @ k.T + torch.tensor(near, dtype=torch.float64)).softmax(dim=1)
        return (scale * q @ k.T).softmax(dim=1)


def exact_gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def resize(maps_khw, shape):
    return interpolate(maps_khw[None], tuple(shape), mode='bilinear', align_corners=False)[0]


def cosines(features_hwd, texts_nd):
    return torch.einsum('hwd,nd->nhw', normalize(features_hwd, dim=-1), texts_nd)


def whole_logits(tower, image_chw, texts_nd, shape):
    """Resize cosines to the encoded image, then to the image."""
    return resize(resize(cosines(tower.features(image_chw), texts_nd), image_chw.shape[1:]), shape)


def window_logits(tower, image_chw, texts_nd, window, stride, shape, padded=False):
    """Average the resized cosines of windows, the last of which end where the image does."""
    height, width = image_chw.shape[1:]
    total = torch.zeros(len(texts_nd), height, width, dtype=torch.float64)
    covers = torch.zeros(height, width, dtype=torch.float64)
    for y in last_at_border(height, window, stride):
        for x in last_at_border(width, window, stride):
            crop = image_chw[:, y : y + window, x : x + window]
            rows, columns = crop.shape[1:]
            top = left = 0
            if padded:
                missing = [-side % tower.patch for side in (rows, columns)]
                top, left = (part // 2 for part in missing)
                crop = pad(crop, (left, missing[1] - left, top, missing[0] - top))
            logits = resize(cosines(tower.features(crop), texts_nd), crop.shape[1:])
            logits = logits[:, top : top + rows, left : left + columns]
            total[:, y : y + rows, x : x + columns] += logits
            covers[y : y + rows, x : x + columns] += 1
    return resize(total / covers, shape)


def last_at_border(length, window, stride):
    steps = max(0, math.ceil((length - window) / stride)) + 1
    return [max(0, min(step * stride, length - window)) for step in range(steps)]


def pamr(image_chw, maps_khw, dilations=(8, 16), iterations=10):
    """Average maps over neighbours: 8 a dilation, the pixel itself beside them in std alone."""
    _, height, width = image_chw.shape

    def shifted(maps, dy, dx):
        rows = np.clip(np.arange(height) + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + dx, 0, width - 1)
        return maps[:, rows][:, :, columns]

    steps = [(y * d, x * d) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1)]
    colours = torch.stack([shifted(image_chw, dy, dx) for dy, dx in steps])
    std = colours.std(dim=0)
    around = [(dy, dx) for dy, dx in steps if dy or dx]
    difference = torch.stack([(shifted(image_chw, *s) - image_chw).abs() for s in around])
    affinity = (-(difference / (1e-8 + 0.1 * std)).mean(dim=1)).softmax(dim=0)
    for _ in range(iterations):
        pairs = zip(affinity, around, strict=True)
        maps_khw = sum(weight * shifted(maps_khw, *step) for weight, step in pairs)
    return maps_khw


def labels_of(logits_nhw, owner, scale, least=0.0, area=0.0):
    """Softmax over names, best of a class, small areas, threshold; label by pixel."""
    probabilities = (logits_nhw * scale).softmax(dim=0)
    classes = max(owner) + 1
    best = torch.stack(
        [probabilities[[n for n, c in enumerate(owner) if c == label]].amax(dim=0)
         for label in range(classes)]
    )  # fmt: skip
    if area:
        areas = np.bincount(best.argmax(dim=0).flatten(), minlength=classes)
        for label in range(1, classes):
            if areas[label] <= area * areas[1:].sum():
                best[label] = 0
    labels = best.argmax(dim=0)
    labels[best.amax(dim=0) < least] = 0
    return labels
