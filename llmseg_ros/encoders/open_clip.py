"""CLIP models of open_clip as dense encoders, with the attention of the last block changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders import dense_attention, timm_attention, timm_towers
from llmseg_ros.encoders.base import Encoder, EncoderUnavailable, ImageFeatures
from llmseg_ros.encoders.batches import IMAGES_AT_ONCE, run_in_batches
from llmseg_ros.encoders.dense_attention import RESIDUAL_MODES, attend, neighbour_bias
from llmseg_ros.encoders.onnx_export import Tower
from llmseg_ros.encoders.open_clip_models import (
    check_model,
    find_checkpoint,
    model_config,
    shared_model,
    text_model,
)
from llmseg_ros.encoders.precision import autocast, pick_precision
from llmseg_ros.encoders.runtime import ExportedTower, OnnxRuntime
from llmseg_ros.encoders.templates import average_templates, fill_templates, load_templates
from llmseg_ros.encoders.text_cache import TextCache
from llmseg_ros.encoders.tiling import cut_windows, fit_size, join_windows, patch_axis
from llmseg_ros.encoders.vit import image_tensor, interpolate_positions
from llmseg_ros.encoders.weights import checksum
from llmseg_ros.method.patches import PatchAxis

if TYPE_CHECKING:
    import torch
    from torch import nn

TEXT_BATCH = 256
BATCH_ON_CPU = 4  # windows at once in ONNX Runtime: 15 of a ViT-B take 250 MiB
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MMSEG_EPSILON = 1e-6
EXAMPLE_GRID = (3, 4)  # of the patches an export is traced with
ARGUMENTS = {'positions': 'positions_nd', 'bias': 'bias_nn', 'rope': 'rope_ne'}
FREE_AXES = {'positions': (0,), 'bias': (0, 1), 'rope': (0,)}  # that have any length


class CutImage(NamedTuple):
    """A resized image, (3, H, W) float32, and the (n, 3, h, w) windows cut out of it."""

    image_chw: torch.Tensor
    axes: tuple[PatchAxis, PatchAxis]
    windows_nchw: torch.Tensor


class OpenClipEncoder(Encoder):
    """An open_clip model whose image tower is a ViT, its own or of timm."""

    def __init__(
        self,
        config: OpenClipConfig,
        device: torch.device,
        precision: str = 'auto',
        runtime: OnnxRuntime | None = None,
    ) -> None:
        """Load the model, or share the one this process already has.

        Where a runtime for the image tower is given and can run it, torch has only the text tower.

        Raises:
            EncoderUnavailable: open_clip or the weights are absent, or the model and its weights
                can't be used together, or not for dense features, or the runtime can't run it.
            ConfigError: the templates can't be read.
        """
        import torch

        self.device = device
        self._config = config
        self._precision = pick_precision(precision, device)
        exported = None if runtime is None else open_exported(config, runtime)
        self.runtime = exported.runtime if exported else 'torch'
        load = text_model if exported else shared_model
        self._shared = load(config.model, config.pretrained, device)
        self.name = f'open_clip {self._shared.name}'
        visual, mean, std = self._shared.model.visual, self._shared.mean, self._shared.std
        if config.tower == 'mmseg':
            if timm_towers.is_timm(visual):
                raise EncoderUnavailable(
                    f'open_clip.tower mmseg is for towers of CLIP, not for {config.model}: '
                    'use trained'
                )
            mean, std = IMAGENET_MEAN, IMAGENET_STD
            visual = visual if exported else mmseg_tower(visual)
        self._visual = visual
        self._patch = patch_side(visual)
        self._resize = 'opencv' if config.resize == 'opencv' else self._shared.interpolation
        self._templates = load_templates(config.templates)
        self._text_cache = TextCache(
            f'open_clip {config.model} {self._shared.digest} {self._shared.text_digest}',
            self._templates,
        )
        self._mean_c11, self._std_c11 = (
            torch.tensor(values, device=device)[:, None, None] for values in (mean, std)
        )
        self._exported = exported
        on_cpu = exported is not None and device.type == 'cpu'
        self._batch = min(config.batch, BATCH_ON_CPU) if on_cpu else config.batch
        by_size = config.compile or (exported is not None and exported.built_by_size)
        self.images_at_once = 1 if by_size else min(self._batch, IMAGES_AT_ONCE)
        if config.channels_last and not exported:
            visual.to(memory_format=torch.channels_last)
        forward = forward_of(visual)
        self._forward = torch.compile(forward) if config.compile else forward
        self._grid_constants = functools.lru_cache(maxsize=2)(self._make_grid_constants)

    def encode_images(self, rgbs: Sequence[NDArray[np.uint8]]) -> list[ImageFeatures]:
        """Encode (H, W, 3) uint8 RGB images, whole or by sliding windows.

        Windows: pooled is the mean of their unit image embeddings.

        Raises:
            ValueError: an array is not an RGB image, or has no pixels.
        """
        images = [self._cut(rgb) for rgb in rgbs]
        encoded = run_in_batches(
            self._encode, [image.windows_nchw for image in images], self._batch
        )
        return [join(image, *of_image) for image, of_image in zip(images, encoded, strict=True)]

    def _cut(self, rgb: NDArray[np.uint8]) -> CutImage:
        """Resize an image and cut it into windows; one, where it is encoded whole."""
        config, patch = self._config, self._patch
        height, width = rgb.shape[:2]
        size = fit_size(height, width, patch, config.short_side, config.long_side, config.fit)
        image_chw = image_tensor(rgb, size, self._resize, self._mean_c11, self._std_c11)
        axes = window_axes(config, patch, size)
        return CutImage(image_chw, axes, cut_windows(image_chw, axes, patch))

    def encode_text(self, names: Sequence[str]) -> torch.Tensor:
        """Encode names through the text templates into (n, d) float32, rows of length 1."""
        import torch

        if not names:
            return torch.zeros(0, self._shared.width, device=self.device)
        return self._text_cache.encode(names, self._encode_text).to(self.device)

    def _encode(self, images_bchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return patches (b, h, w, d) and pooled (b, d), both float32."""
        import torch

        grid = images_bchw.shape[2] // self._patch, images_bchw.shape[3] // self._patch
        constants = self._grid_constants(grid)
        if self._exported is not None:
            inputs = (constant for constant in constants if constant is not None)
            patches_bnd, pooled_bd = self._exported(images_bchw, *inputs)
            return patches_bnd.unflatten(1, grid), pooled_bd
        if self._config.channels_last:
            images_bchw = images_bchw.to(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(self.device, self._precision):
            patches_bnd, pooled_bd = self._forward(
                self._visual, images_bchw, self._config.attention, *constants
            )
        return patches_bnd.float().unflatten(1, grid), pooled_bd.float()

    def _make_grid_constants(self, grid: tuple[int, int]) -> tuple[torch.Tensor | None, ...]:
        """Return what the tower needs of a patch grid."""
        how, attention = self._config.positions, self._config.attention
        if how == 'auto':
            how = 'offset' if self._shared.tag == 'openai' else 'antialias'
        return grid_constants(self._visual, grid, how, attention, self.device)

    def _encode_text(self, names: Sequence[str]) -> torch.Tensor:
        import torch

        model, tokenize = self._shared.model, self._shared.tokenize
        texts = fill_templates(self._templates, names)
        with torch.no_grad():
            encoded = [
                model.encode_text(tokenize(texts[start : start + TEXT_BATCH]).to(self.device))
                for start in range(0, len(texts), TEXT_BATCH)
            ]
            return average_templates(torch.cat(encoded).float(), len(self._templates))


def join(image: CutImage, patches_nhwd: torch.Tensor, pooled_nd: torch.Tensor) -> ImageFeatures:
    """Return the features of an image of those of its windows."""
    from torch.nn.functional import normalize

    pooled_d = pooled_nd[0] if len(pooled_nd) == 1 else normalize(pooled_nd, dim=-1).mean(dim=0)
    patches_hwd = join_windows(patches_nhwd, image.axes)
    return ImageFeatures(patches_hwd, pooled_d, axes=image.axes, input_3hw=image.image_chw)


def open_exported(config: OpenClipConfig, runtime: OnnxRuntime) -> ExportedTower | None:
    """Return the image tower, exported; None where torch has to run it.

    Raises:
        EncoderUnavailable: the weights are absent, the model is unknown, or the runtime can't run
            the tower and torch can't take its place.
    """
    # first, so that absent weights are told before open_clip is there
    weights = checksum(find_checkpoint(config.model, config.pretrained))
    check_model(config.model, None)
    return runtime.open(dense_tower(config, weights))


def dense_tower(config: OpenClipConfig, weights: str) -> Tower:
    """Return what exports dense_forward of a configuration: one graph for all sizes and batches.

    Args:
        config: of the model.
        weights: checksum of its checkpoint.
    """
    described = model_config(config.model)
    of_timm = bool(described['vision_cfg'].get('timm_model_name'))
    constants = ['positions']
    if config.attention == 'naclip':
        constants.append('bias')
    if of_timm and timm_towers.has_rope(timm_towers.build_tower(described)):
        constants.append('rope')

    def make() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        import torch
        from torch import nn

        visual = shared_model(config.model, config.pretrained, torch.device('cpu')).model.visual
        if config.tower == 'mmseg' and not of_timm:
            visual = mmseg_tower(visual)
        forward = forward_of(visual)

        class Dense(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.visual = visual

            def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
                images_bchw, *others = inputs
                given = dict(zip((ARGUMENTS[name] for name in constants), others, strict=True))
                return forward(self.visual, images_bchw, config.attention, **given)

        patch = patch_side(visual)
        images_bchw = torch.zeros(2, 3, EXAMPLE_GRID[0] * patch, EXAMPLE_GRID[1] * patch)
        example = grid_constants(
            visual, EXAMPLE_GRID, 'antialias', config.attention, images_bchw.device
        )
        return Dense(), (images_bchw, *(x for x in example if x is not None))

    code = timm_towers.__file__, timm_attention.__file__
    return Tower(
        name=f'open_clip {Path(config.model).name}',  # of a folder's path the end
        weights=weights,
        mode=(config.attention, config.tower, described),
        inputs={'images': (0, 2, 3), **{name: FREE_AXES[name] for name in constants}},
        outputs={'patches': (0, 1), 'pooled': (0,)},
        code=(__file__, dense_attention.__file__, *(code if of_timm else ())),
        packages=('open_clip_torch', *(('timm',) if of_timm else ())),
        make=make,
    )


def patch_side(visual: nn.Module) -> int:
    """Return the side of a patch in pixels."""
    if timm_towers.is_timm(visual):
        return timm_towers.patch_side(visual)
    side: int = visual.conv1.stride[0]
    return side


def window_axes(
    config: OpenClipConfig, patch: int, size: tuple[int, int]
) -> tuple[PatchAxis, PatchAxis]:
    """Return where the windows of a resized image lie, by rows and columns; one of it as a whole.

    Args:
        config: of the encoder.
        patch: side in pixels.
        size: height and width of the image.
    """
    window, stride = config.window, min(config.window, config.stride)
    if config.fit == 'round':  # in whole patches, so that windows overlap in whole patches
        window, stride = (patch * max(1, round(side / patch)) for side in (window, stride))
    if not config.windows:
        window = stride = max(size)
    rows, columns = (patch_axis(side, window, stride, patch, config.fit) for side in size)
    return rows, columns


def forward_of(visual: nn.Module) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Return the dense_forward of a tower: that for towers of open_clip, or that for timm's."""
    return timm_towers.dense_forward if timm_towers.is_timm(visual) else dense_forward


def grid_constants(
    visual: nn.Module, grid: tuple[int, int], how: str, attention: str, device: torch.device
) -> tuple[torch.Tensor | None, ...]:
    """Return what a tower needs of a patch grid, None for what it doesn't.

    Args:
        visual: the tower.
        grid: rows and columns of patches.
        how: position embeddings are interpolated, see interpolate_positions.
        attention: a mode of dense_attention.
        device: of the result.

    Returns:
        Position embeddings, NACLIP's bias where it is used, rotary positions of towers of timm.
    """
    if timm_towers.is_timm(visual):
        return timm_towers.grid_constants(visual, grid, how, attention, device)
    positions_nd = visual.positional_embedding.detach().float().cpu()
    positions_nd = interpolate_positions(positions_nd, grid, how).to(device)
    return positions_nd, neighbour_bias(grid, device) if attention == 'naclip' else None


def mmseg_tower(visual: nn.Module) -> nn.Module:
    """Copy a tower as MaskCLIP's code (Zhou et al., ECCV 2022) has it: GELU, epsilon 1e-6.

    OpenAI's weights were trained with QuickGELU and 1e-5; this is what was published.
    """
    import copy

    from torch import nn

    tower = copy.deepcopy(visual)
    for block in tower.transformer.resblocks:
        block.mlp.gelu = nn.GELU()
    for module in tower.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = MMSEG_EPSILON
    return tower


def dense_forward(
    visual: nn.Module,
    images_bchw: torch.Tensor,
    mode: str,
    positions_nd: torch.Tensor,
    bias_nn: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode images with the last block's attention changed for patches, unchanged for pooled.

    Args:
        visual: the VisionTransformer.
        images_bchw: (b, 3, H, W), both sides whole patches.
        mode: one of dense_attention.MODES.
        positions_nd: (1 + h*w, width) position embeddings of the patch grid.
        bias_nn: naclip's neighbour_bias.

    Returns:
        Patch features (b, h*w, d) and image embeddings (b, d), projected, not normalised.
    """
    import torch

    x = visual.conv1(images_bchw).flatten(2).transpose(1, 2)
    # x.shape[0]: len(x) would be a constant where this is traced
    cls_b1d = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
    x = visual.ln_pre(torch.cat([cls_b1d, x], dim=1) + positions_nd.to(x.dtype))
    *blocks, last = visual.transformer.resblocks
    # nn.MultiheadAttention puts tokens first, which costs bf16 on a CPU a copy of the weights for
    # every token of a batch; and whether a block takes tokens first depends on open_clip's version
    for block in blocks:
        x = finish_block(block, x, join_heads(block, attend('vanilla', *split_heads(block, x))))

    q, k, v = split_heads(last, x)
    is_cls = visual.pool_type == 'tok'
    plain = attend('vanilla', q[:, :, :1] if is_cls else q, k, v)
    pooled = finish_block(last, x[:, :1] if is_cls else x, join_heads(last, plain))
    changed = join_heads(last, attend(mode, q, k, v, bias_nn))
    dense = finish_block(last, x, changed) if mode in RESIDUAL_MODES else changed
    if is_cls:
        pooled = visual.ln_post(pooled[:, 0])
    elif visual.final_ln_after_pool:
        pooled = visual.ln_post(pooled[:, 1:].mean(dim=1))
    else:
        pooled = visual.ln_post(pooled)[:, 1:].mean(dim=1)
    return visual.ln_post(dense[:, 1:]) @ visual.proj, pooled @ visual.proj


def split_heads(block: nn.Module, x_bnd: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the block's q, k and v of its input, each (b, heads, n, e)."""
    from torch.nn.functional import linear

    attention = block.attn
    qkv = linear(block.ln_1(x_bnd), attention.in_proj_weight, attention.in_proj_bias)
    return tuple(
        part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for part in qkv.chunk(3, dim=-1)
    )


def join_heads(block: nn.Module, mixed_bhne: torch.Tensor) -> torch.Tensor:
    """Return O = out_proj(concatenated heads), (b, n, d)."""
    return block.attn.out_proj(mixed_bhne.transpose(1, 2).flatten(2))


def finish_block(block: nn.Module, x_bnd: torch.Tensor, o_bnd: torch.Tensor) -> torch.Tensor:
    """Add the residual, then the feed-forward network and its residual."""
    x_bnd = x_bnd + block.ls_1(o_bnd)
    return x_bnd + block.ls_2(block.mlp(block.ln_2(x_bnd)))
