"""timm's towers written out in float64, with loops over heads, tokens and patches.

Only the convolutional stems, which our code just calls, are timm's own, in float64.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import slow_reference as slow
import torch
from slow_reference import Weights, gelu, linear


def gelu_tanh(x):
    return np.array(
        [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x]
    )


def silu(x):
    return np.array([value / (1 + math.exp(-value)) for value in x])


class SlowTower:
    """A tower from the state dict of a model, and the few numbers a state dict doesn't hold."""

    def __init__(self, model, name):
        trunk = model.visual.trunk
        self.w = Weights(model.state_dict(), 'visual.trunk.')
        self.head = Weights(model.state_dict(), 'visual.head.')
        self.state = model.state_dict()
        self.name = name
        self.stem = copy.deepcopy(getattr(trunk.patch_embed, 'backbone', None))
        self.eps = 1e-5 if name.startswith(('pe', 'mobileclip-l')) else 1e-6
        self.heads = {'mobileclip': 12, 'vitamin': 6, 'vitamin-xl': 6}.get(name, 2)
        self.prefix = sum(
            self.state[f'visual.trunk.{key}'].shape[1]
            for key in ('cls_token', 'reg_token')
            if self.has(key)
        )

    def has(self, key):
        return f'visual.trunk.{key}' in self.state

    def norm(self, x, weights):
        return slow.layer_norm(x, weights, self.eps)

    def features(self, image_chw, mode, grid, positions):
        """Return projected patches (h*w, d) and the image embedding (d,)."""
        x = self.embed(image_chw, positions)
        x = self.block(0, x, 'vanilla', grid)[1]
        o, finished = self.block(1, x, mode, grid)
        dense = finished if mode in ('vanilla', 'maskclip', 'sclip') else o
        plain = self.block(1, x, 'vanilla', grid)[1]
        dense, plain = (
            [self.norm(t, self.w.part('norm')) if self.has('norm.weight') else t for t in tokens]
            for tokens in (dense[self.prefix :], plain)
        )
        if self.has('attn_pool.latent'):
            patches = [self.attention_pool([token]) for token in dense]
            pooled = self.attention_pool(plain)
        else:
            patches = dense
            average = self.name in ('vitamin', 'vitamin-xl', 'gap')
            pooled = np.mean(plain[self.prefix :], axis=0) if average else plain[0]
        return np.array([self.project(token) for token in patches]), self.project(pooled)

    def embed(self, image_chw, positions):
        if self.stem is None:
            bias = self.w.get('patch_embed.proj.bias', 0.0)
            tokens = slow.embed_patches(image_chw, self.w['patch_embed.proj.weight'], bias)
        else:
            with torch.no_grad():
                shrunk = self.stem.double()(torch.from_numpy(image_chw)[None])[0]
            tokens = list(shrunk.flatten(1).T.numpy())
        prefix = [
            token for key in ('cls_token', 'reg_token') if self.has(key) for token in self.w[key][0]
        ]
        whole = len(positions) == len(prefix) + len(tokens)
        if not whole:
            tokens = [token + position for token, position in zip(tokens, positions, strict=True)]
        x = np.array([*prefix, *tokens])
        if whole:
            x = x + positions
        if self.has('norm_pre.weight'):
            x = np.array([self.norm(token, self.w.part('norm_pre')) for token in x])
        return x

    def block(self, i, x, mode, grid):
        """Return what the attention of a block adds, then the block's full output."""
        block = self.w.part(f'blocks.{i}')
        after = self.name == 'eva02-e'
        normed = x if after else [self.norm(token, block.part('norm1')) for token in x]
        q, k, v = (np.array(part) for part in self.qkv(block.part('attn'), normed))
        if self.name in ('eva02', 'pe', 'pe-big'):
            q, k = self.rotate(q, grid), self.rotate(k, grid)
        mixed = slow.mix(mode, q, k, v, self.heads, grid, self.prefix)
        if f'visual.trunk.blocks.{i}.attn.norm.weight' in self.state:
            mixed = [self.norm(token, block.part('attn.norm')) for token in mixed]
        o = np.array([linear(token, block.part('attn.proj')) for token in mixed])
        if after:
            o = np.array([self.norm(token, block.part('norm1')) for token in o])
        o = o * block.get('ls1.gamma', block.get('gamma_1', 1.0))
        finished = []
        for token in x + o:
            fed = self.feed(block.part('mlp'), token if after else self.norm(
                token, block.part('norm2')
            ))  # fmt: skip
            if after:
                fed = self.norm(fed, block.part('norm2'))
            finished.append(token + fed * block.get('ls2.gamma', block.get('gamma_2', 1.0)))
        return o, np.array(finished)

    def qkv(self, attention, tokens):
        if self.name == 'eva02':
            return [[linear(t, attention.part(f'{p}_proj')) for t in tokens] for p in 'qkv']
        d = len(tokens[0])
        bias = attention.get('qkv.bias', np.zeros(3 * d))
        if self.name in ('eva01', 'eva02-e'):  # no bias of keys
            bias = np.concatenate([attention['q_bias'], np.zeros(d), attention['v_bias']])
        joint = [attention['qkv.weight'] @ token + bias for token in tokens]
        return [[t[part * d : (part + 1) * d] for t in joint] for part in range(3)]

    def rotate(self, x, grid):
        """Rotate pairs of channels by the place of a patch, as EVA-02 and PE have it."""
        reference, offset = {'eva02': (16, 0), 'pe': (14, 1), 'pe-big': (32, 0)}[self.name]
        e = x.shape[1] // self.heads
        bands = [10000 ** (-i / (e // 4)) for i in range(e // 4)]
        out = x.copy()
        for n in range(self.prefix, len(x)):
            row, column = divmod(n - self.prefix, grid[1])
            place = [(row + offset) / grid[0] * reference, (column + offset) / grid[1] * reference]
            if self.name != 'eva02':  # 'xy'
                place.reverse()
            angles = [p * band for p in place for band in bands]
            for head in range(self.heads):
                for pair, angle in enumerate(angles):
                    at = head * e + 2 * pair
                    a, b = x[n, at], x[n, at + 1]
                    out[n, at] = a * math.cos(angle) - b * math.sin(angle)
                    out[n, at + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def feed(self, mlp, token):
        if self.name == 'eva02':
            hidden = silu(linear(token, mlp.part('fc1_g'))) * linear(token, mlp.part('fc1_x'))
            return linear(self.norm(hidden, mlp.part('norm')), mlp.part('fc2'))
        if self.name.startswith('vitamin'):
            token = self.norm(token, mlp.part('norm'))
            hidden = gelu(linear(token, mlp.part('w0'))) * linear(token, mlp.part('w1'))
            return linear(hidden, mlp.part('w2'))
        activation = gelu_tanh if self.name == 'siglip-gopt' else gelu
        return linear(activation(linear(token, mlp.part('fc1'))), mlp.part('fc2'))

    def attention_pool(self, tokens):
        """Return the answer of the attention pool to a list of tokens."""
        pool = self.w.part('attn_pool')
        d, heads = len(tokens[0]), 3 if self.name.startswith('pe') else self.heads
        query = linear(self.w['attn_pool.latent'][0, 0], pool.part('q'))
        joint = [linear(token, pool.part('kv')) for token in tokens]
        keys, values = ([token[part * d : (part + 1) * d] for token in joint] for part in (0, 1))
        mixed = np.zeros(d)
        for head in range(heads):
            part = slice(head * d // heads, (head + 1) * d // heads)
            scores = [sum(query[part] * key[part]) / math.sqrt(d // heads) for key in keys]
            for weight, value in zip(slow.softmax(scores), values, strict=True):
                mixed[part] += weight * value[part]
        y = linear(mixed, pool.part('proj'))
        activation = gelu_tanh if self.name == 'siglip-gopt' else gelu
        hidden = activation(linear(self.norm(y, pool.part('norm')), pool.part('mlp.fc1')))
        return y + linear(hidden, pool.part('mlp.fc2'))

    def project(self, token):
        if self.has('fc_norm.weight'):
            token = self.norm(token, self.w.part('fc_norm'))
        if self.has('head.weight'):
            token = linear(token, self.w.part('head'))
        if 'visual.head.proj.weight' in self.state:
            token = linear(token, self.head.part('proj'))
        return token

    def positions(self, grid, side):
        """Return position embeddings interpolated to a grid, those of prefix tokens as they are."""
        if not self.has('pos_embed'):
            return np.zeros((grid[0] * grid[1], 1))
        positions = self.w['pos_embed'][0]
        own = len(positions) - side * side
        padded = np.concatenate([np.zeros((1, positions.shape[1])), positions[own:]])
        return np.concatenate(
            [positions[:own], slow.resize_positions(padded, grid, 'antialias')[1:]]
        )
