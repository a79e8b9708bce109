"""The encoders written out in float64, with loops over heads, tokens and patches.

Nothing here is shared with the code under test: formulas come from the papers, weights from the
state dict of the model under test.
"""

from __future__ import annotations

import math

import numpy as np
import torch


class Weights:
    """A state dict as float64 arrays, by prefix."""

    def __init__(self, state, prefix=''):
        self._state, self._prefix = state, prefix

    def __getitem__(self, name):
        return self._state[self._prefix + name].double().numpy()

    def get(self, name, default):
        return self[name] if self._prefix + name in self._state else default

    def part(self, name):
        return Weights(self._state, f'{self._prefix}{name}.')


def layer_norm(x, weights, eps=1e-5):
    """Normalise a vector."""
    return (x - x.mean()) / math.sqrt(x.var() + eps) * weights['weight'] + weights['bias']


def linear(x, weights):
    return weights['weight'] @ x + weights.get('bias', 0)


def softmax(scores):
    exponentials = [math.exp(score - max(scores)) for score in scores]
    return np.array(exponentials) / sum(exponentials)


def gelu(x):
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])


def quick_gelu(x):
    return np.array([value / (1 + math.exp(-1.702 * value)) for value in x])


def unit(x):
    return x / math.sqrt(sum(value * value for value in x))


def attention_weights(mode, q, k, grid, prefix=1):
    """Return A (n, n) of one head, straight from the table of modes; prefix tokens are first."""
    n, e = q.shape
    scale = 1 / math.sqrt(e)
    rows = []
    for i in range(n):
        qk = [scale * sum(q[i] * k[j]) for j in range(n)]
        qq = [scale * sum(q[i] * q[j]) for j in range(n)]
        kk = [scale * sum(k[i] * k[j]) for j in range(n)]
        if mode == 'vanilla':
            rows.append(softmax(qk))
        elif mode in ('maskclip', 'value'):
            rows.append([float(i == j) for j in range(n)])
        elif mode == 'sclip':
            rows.append(softmax(qq) + softmax(kk))
        elif mode == 'clearclip':
            rows.append(softmax(qq))
        elif mode == 'naclip':
            rows.append(softmax([kk[j] + omega(i, j, grid, prefix) for j in range(n)]))
    return np.array(rows)


def omega(i, j, grid, prefix=1):
    """Return NACLIP's bias between tokens i and j."""
    if i < prefix or j < prefix:
        return 0.0
    (yi, xi), (yj, xj) = divmod(i - prefix, grid[1]), divmod(j - prefix, grid[1])
    return math.exp(-((yi - yj) ** 2 + (xi - xj) ** 2) / (2 * 5.0**2))


def mix(mode, q, k, v, heads, grid, prefix=1):
    """Return A·v of all heads side by side, (n, d)."""
    e = q.shape[1] // heads
    mixed = np.zeros_like(v)
    for head in range(heads):
        part = slice(head * e, head * e + e)
        weights = attention_weights(mode, q[:, part], k[:, part], grid, prefix)
        for i in range(len(q)):
            mixed[i, part] = sum(weights[i][j] * v[j, part] for j in range(len(q)))
    return mixed


def embed_patches(image_chw, kernel_dcpp, bias_d=0.0):
    """Return one vector per patch, row by row."""
    patch = kernel_dcpp.shape[-1]
    _, height, width = image_chw.shape
    tokens = []
    for y in range(0, height, patch):
        for x in range(0, width, patch):
            pixels = image_chw[:, y : y + patch, x : x + patch]
            tokens.append(np.array([(kernel * pixels).sum() for kernel in kernel_dcpp]) + bias_d)
    return tokens


def cubic_kernel(distance, a):
    """Return Keys' cubic convolution kernel."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def resize_line(values, length, how):
    """Resize a sequence of vectors, bicubic, pixel centres at half integers."""
    antialias = how == 'antialias'
    scale = len(values) / (length + 0.1 if how == 'offset' else length)
    stretch = max(1.0, scale) if antialias else 1.0
    resized = []
    for i in range(length):
        centre = (i + 0.5) * scale - 0.5
        reach = math.ceil(2 * stretch) + 1
        total, weight_sum = 0.0, 0.0
        for j in range(math.floor(centre) - reach, math.floor(centre) + reach + 1):
            if antialias and not 0 <= j < len(values):
                continue  # what lies outside doesn't count
            weight = cubic_kernel((j - centre) / stretch, -0.5 if antialias else -0.75)
            total = total + weight * values[min(max(j, 0), len(values) - 1)]
            weight_sum += weight
        resized.append(total / weight_sum)
    return np.array(resized)


def resize_positions(positions_nd, grid, how):
    side = math.isqrt(len(positions_nd) - 1)
    if grid == (side, side):
        return positions_nd
    square = positions_nd[1:].reshape(side, side, -1)
    rows = np.array([resize_line(row, grid[1], how) for row in square])
    square = np.array([resize_line(rows[:, x], grid[0], how) for x in range(grid[1])])
    return np.concatenate(
        [positions_nd[:1], square.transpose(1, 0, 2).reshape(-1, square.shape[2])]
    )


def loda(tokens, k):
    """Average the k largest values of every channel."""
    return np.array([np.mean(sorted(channel)[-k:]) for channel in np.array(tokens).T])


def randomise(module, seed=0):
    """Fill parameters with values that leave no formula trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.normal_(0, inputs**-0.5, generator=generator)
            if parameter.ndim == 1 and name.endswith('weight'):
                parameter.add_(1)
    return module.eval()
