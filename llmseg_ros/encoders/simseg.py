"""SimSeg, the encoders of the paper (Yi et al., CVPR 2023): ViT and BERT aligned by LoDA.

Checkpoints are read as published (simseg.vit-s.pth, simseg.vit-b.pth).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import SimSegConfig
from llmseg_ros.encoders.base import Encoder, EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.batches import IMAGES_AT_ONCE, run_in_batches
from llmseg_ros.encoders.loda import loda_pool
from llmseg_ros.encoders.onnx_export import Tower
from llmseg_ros.encoders.precision import autocast, pick_precision
from llmseg_ros.encoders.runtime import OnnxRuntime
from llmseg_ros.encoders.simseg_model import SimSegModel, load_model, missing_package
from llmseg_ros.encoders.templates import average_templates, fill_templates, load_templates
from llmseg_ros.encoders.text_cache import TextCache
from llmseg_ros.encoders.vit import image_tensor, interpolate_positions
from llmseg_ros.encoders.weights import (
    absent,
    checksum,
    find_weights,
    first_line,
    given_weights,
    load_once,
    weights_folder,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGE_K = 5  # LoDA over patches, without CLS
TEXT_K = 1  # LoDA over all tokens that are not padding
MAX_TOKENS = 25
TEXT_BATCH = 256
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class SimSegEncoder(Encoder):
    """SimSeg's image and text encoders with their projections."""

    def __init__(
        self,
        config: SimSegConfig,
        device: torch.device,
        precision: str = 'auto',
        runtime: OnnxRuntime | None = None,
    ) -> None:
        """Load the checkpoint, or share the model this process already has.

        Where a runtime for the image tower is given, torch has only the text tower.

        Raises:
            EncoderUnavailable: timm, transformers, the checkpoint or the tokenizer are absent, or
                the checkpoint is not one of SimSeg, or the runtime can't run it.
            ConfigError: the templates can't be read.
        """
        import torch

        path = find_checkpoint(config.checkpoint)
        tokenizer_path = find_tokenizer(config.tokenizer)
        digest = checksum(path)
        self.device = device
        self.name = f'simseg {path.stem} {digest[:12]}'
        self._precision = pick_precision(precision, device)
        exported = None if runtime is None else runtime.open(simseg_tower(path, digest))
        self.runtime = exported.runtime if exported else 'torch'
        self._exported = exported
        self.images_at_once = 1 if exported or config.compile else IMAGES_AT_ONCE
        self._model = load_once(
            ('simseg', 'text' if exported else 'all', digest, device),
            lambda: load_model(path, device, with_blocks=not exported),
        )
        self._tokenizer = load_tokenizer(tokenizer_path, self._model.text.config.vocab_size)
        self._templates = load_templates(config.templates)
        vocabulary = hash_vocabulary(self._tokenizer)
        self._text_cache = TextCache(f'simseg {digest} {vocabulary}', self._templates)
        self._mean_c11, self._std_c11 = (
            torch.tensor(values, device=device)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD)
        )
        vit = self._model.image
        patch = vit.patch_embed.proj.stride[0]
        side = max(1, round(config.input_size / patch))
        self._grid = (side, side)
        self._size = (side * patch, side * patch)
        # without antialiasing, as published
        self._positions_nd = interpolate_positions(vit.pos_embed[0].cpu(), self._grid, 'plain').to(
            device
        )
        self._encode_patches = torch.compile(encode_patches) if config.compile else encode_patches

    def encode_images(self, rgbs: Sequence[NDArray[np.uint8]]) -> list[ImageFeatures]:
        """Encode (H, W, 3) uint8 RGB images, squeezed into a square; pooled has length 1.

        Raises:
            ValueError: an array is not an RGB image, or has no pixels.
        """
        from torch.nn.functional import normalize

        size, mean_c11, std_c11 = self._size, self._mean_c11, self._std_c11
        pixels = [image_tensor(rgb, size, 'bilinear', mean_c11, std_c11)[None] for rgb in rgbs]
        features = []
        for (patches_1nd,) in run_in_batches(self._encode, pixels, self.images_at_once):
            pooled_d = normalize(loda_pool(patches_1nd, IMAGE_K), dim=-1)[0]
            features.append(ImageFeatures(patches_1nd[0].unflatten(0, self._grid), pooled_d))
        return features

    def _encode(self, images_bchw: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return patches (b, h*w, d), float32."""
        import torch

        if self._exported is not None:
            return self._exported(images_bchw, self._positions_nd)
        with torch.no_grad(), autocast(self.device, self._precision):
            return (self._encode_patches(self._model, images_bchw, self._positions_nd).float(),)

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names through the text templates into (n, d) float32, rows of length 1."""
        import torch

        if not names:
            width = self._model.text_projection.out_features
            return torch.zeros(0, width, device=self.device)
        return self._text_cache.encode(names, self._encode_text).to(self.device)

    def _encode_text(self, names: Sequence[str]) -> torch.Tensor:
        import torch

        texts = fill_templates(self._templates, names)
        with torch.no_grad():
            encoded = [
                self._encode_texts(texts[start : start + TEXT_BATCH])
                for start in range(0, len(texts), TEXT_BATCH)
            ]
            return average_templates(torch.cat(encoded), len(self._templates))

    def _encode_texts(self, texts: list[str]) -> torch.Tensor:
        tokens = self._tokenizer(
            texts,
            padding='max_length',
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors='pt',
        ).to(self.device)
        ids, mask = tokens['input_ids'], tokens['attention_mask']
        words_bnd = self._model.text(input_ids=ids, attention_mask=mask).last_hidden_state
        return loda_pool(self._model.text_projection(words_bnd), TEXT_K, mask.bool())


def encode_patches(
    model: SimSegModel, images_bchw: torch.Tensor, positions_nd: torch.Tensor
) -> torch.Tensor:
    """Return the projected patch tokens (b, h*w, d), CLS dropped, not normalised.

    Args:
        model: the modules.
        images_bchw: (b, 3, H, W), both sides whole patches.
        positions_nd: (1 + h*w, width) position embeddings of the patch grid.
    """
    import torch

    vit = model.image
    x = vit.patch_embed.proj(images_bchw).flatten(2).transpose(1, 2)
    x = torch.cat([vit.cls_token.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
    x = vit.norm(vit.blocks(x + positions_nd.to(x.dtype)))
    return model.image_projection(x[:, 1:])


def simseg_tower(path: Path, digest: str) -> Tower:
    """Return what exports encode_patches of a checkpoint: one graph for all sizes."""

    def make() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        import torch
        from torch import nn

        model = load_model(path, torch.device('cpu'))

        class Patches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.image, self.projection = model.image, model.image_projection

            def forward(
                self, images_bchw: torch.Tensor, positions_nd: torch.Tensor
            ) -> tuple[torch.Tensor]:
                parts = SimSegModel(self.image, None, self.projection, self.projection)
                return (encode_patches(parts, images_bchw, positions_nd),)

        positions_nd = model.image.pos_embed[0]
        side = round((len(positions_nd) - 1) ** 0.5) * model.image.patch_embed.proj.stride[0]
        return Patches(), (torch.zeros(1, 3, side, side), positions_nd)

    return Tower(
        name=f'simseg {path.stem}',
        weights=digest,
        mode=(),
        inputs={'images': (2, 3), 'positions': (0,)},
        outputs={'patches': (1,)},
        code=(__file__,),
        packages=('timm',),
        make=make,
    )


def find_checkpoint(checkpoint: str) -> Path:
    """Return the checkpoint file given, or the one in the cache folder.

    Raises:
        EncoderUnavailable: it is not there.
    """
    if checkpoint:
        return given_weights(checkpoint)
    # of several the small one, the paper's
    path = find_weights(weights_folder('simseg'), first='vit-s')
    if path is None:
        raise absent('checkpoint of SimSeg', 'simseg')
    return path


def find_tokenizer(tokenizer: str) -> Path:
    """Return the tokenizer folder given, or the one in the cache folder.

    Raises:
        EncoderUnavailable: it is not there.
    """
    if tokenizer:
        if not Path(tokenizer).expanduser().is_dir():
            raise EncoderUnavailable(f'tokenizer folder {tokenizer} does not exist')
        return Path(tokenizer).expanduser()
    folder = weights_folder('simseg', 'tokenizer')
    if not folder.is_dir():
        raise absent('tokenizer of SimSeg', 'simseg')
    return folder


def load_tokenizer(folder: Path, vocabulary: int) -> Any:
    """Load a BERT tokenizer from a folder.

    Args:
        folder: with vocab.txt or tokenizer.json.
        vocabulary: number of token embeddings of the text encoder.

    Raises:
        EncoderUnavailable: it can't be read, or has tokens the text encoder lacks.
    """
    if not any((folder / name).is_file() for name in ('vocab.txt', 'tokenizer.json')):
        # transformers would make up an empty vocabulary
        raise EncoderUnavailable(f'tokenizer folder {folder} has no vocab.txt or tokenizer.json')
    try:
        from transformers import BertTokenizerFast

        tokenizer = BertTokenizerFast.from_pretrained(folder, local_files_only=True)
    except ImportError as error:
        raise missing_package(error) from error
    except Exception as error:  # tokenizer files are parsed by several libraries
        raise EncoderUnavailable(
            f'tokenizer in {folder} does not load: {first_line(error)}'
        ) from error
    if len(tokenizer) > vocabulary:
        raise EncoderUnavailable(
            f'tokenizer in {folder} has {len(tokenizer)} tokens, the checkpoint {vocabulary}: '
            'SimSeg was trained with bert-base-uncased'
        )
    return tokenizer


def hash_vocabulary(tokenizer: Any) -> str:
    """Return a digest of a tokenizer's tokens and their numbers."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
