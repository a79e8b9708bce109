"""Published code as it stands in folders of fetched repositories, run beside ours.

Of a file only the definitions that are named are taken, without its imports: the frameworks they
are written for (mmseg, mmcv, apex) need not be installed, and of those the few parts that are used
have a stand-in here. Nothing of the repositories is kept.
"""

from __future__ import annotations

import ast
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from torch import nn
from torch.nn import functional

REPOSITORIES = {
    'NACLIP': 'sinahmr/NACLIP',
    'SCLIP': 'wangf3014/SCLIP',
    'ClearCLIP': 'mc-lan/ClearCLIP',
    'MaskCLIP': 'chongzhou96/MaskCLIP',
    'SimSeg': 'muyangyi/SimSeg',
    'LLM-supervision': 'lmsdss/Training-Free-Semantic-Segmentation-via-LLM-Supervision',
    '1-stage-wseg': 'visinf/1-stage-wseg',
    'CHILS': 'acmi-lab/CHILS',
}
VISION = {'image_size': 224, 'layers': 3, 'width': 128, 'patch_size': 16}
JOINT = 512
COMMON = {
    'torch': torch,
    'nn': nn,
    'F': functional,
    'np': np,
    'math': math,
    'OrderedDict': OrderedDict,
    '__name__': 'published',
}


def definitions(path: Path, names: Sequence[str] = (), **given: Any) -> SimpleNamespace:
    """Run the classes, functions and constants of a file that are named, or all it has.

    Args:
        path: a Python file.
        names: of what is wanted.
        given: what they use and the file imports, beside torch, nn, F, np and math.
    """
    tree = ast.parse(path.read_text(encoding='utf-8'))
    kept = [node for node in tree.body if wanted(node, names)]
    for node in ast.walk(ast.Module(kept, [])):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            if isinstance(node, ast.ClassDef):
                node.decorator_list = []  # that register it with a framework
            for part in ([*node.args.args, node.args]) if isinstance(node, ast.FunctionDef) else ():
                part.annotation = None  # type: ignore[attr-defined]
            if isinstance(node, ast.FunctionDef):
                node.returns = None
        if isinstance(node, ast.ClassDef):
            node.body = [part for part in node.body if not isinstance(part, ast.AnnAssign)]
    space = {**COMMON, **given}
    exec(compile(ast.Module(kept, []), str(path), 'exec'), space)
    return SimpleNamespace(**{key: space[key] for key in space if not key.startswith('__')})


def wanted(node: ast.stmt, names: Sequence[str]) -> bool:
    """Tell whether a statement defines one of the names; imports are never wanted."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return not names or node.name in names
    if isinstance(node, ast.Assign):
        targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return not names or any(target in names for target in targets)
    return False


class Segmentor(nn.Module):
    """Stands for mmseg's BaseSegmentor."""

    def __init__(self, data_preprocessor: object = None) -> None:
        super().__init__()


class Sample:
    """Stands for mmseg's data sample."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.metainfo = {'ori_shape': shape}
        self.found: dict[str, Any] = {}

    def set_data(self, data: dict[str, Any]) -> None:
        self.found = data


class Weights(NamedTuple):
    """Random weights of one CLIP: as a table and in an open_clip checkpoint."""

    state: dict[str, torch.Tensor]
    path: Path


class Remembered:
    """A text encoder that is asked for the same texts again and again."""

    def __init__(self, encode: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.encode = encode

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        key = tokens.numpy().tobytes()
        if key not in TEXTS:
            TEXTS[key] = self.encode(tokens)
        return TEXTS[key].clone()


TEXTS: dict[bytes, torch.Tensor] = {}  # of the one random CLIP


class Norm(nn.LayerNorm):
    """Stands for what mmcv's build_norm_layer makes of type LN."""


def build_norm_layer(config: dict[str, Any], width: int, postfix: int) -> tuple[str, nn.Module]:
    return f'ln{postfix}', Norm(width, eps=config['eps'])


class Attention(nn.Module):
    """Stands for mmcv's MultiheadAttention: attention and residual."""

    def __init__(self, embed_dims: int, num_heads: int, bias: bool = True, **_: Any) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, bias=bias, batch_first=True)

    def forward(self, x: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        return identity + self.attn(x, x, x, need_weights=False)[0]


class FeedForward(nn.Module):
    """Stands for mmcv's FFN with two layers and GELU: with residual."""

    def __init__(self, embed_dims: int, feedforward_channels: int, **_: Any) -> None:
        super().__init__()
        hidden = nn.Sequential(nn.Linear(embed_dims, feedforward_channels), nn.GELU())
        self.layers = nn.Sequential(hidden, nn.Linear(feedforward_channels, embed_dims))

    def forward(self, x: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        return identity + self.layers(x)


class Base(nn.Module):
    """Stands for mmcv's BaseModule."""

    def __init__(self, init_cfg: object = None) -> None:
        super().__init__()


class Maskclip:
    """MaskCLIP's tower and head for a CLIP state dict, from pixels to cosines with names."""

    def __init__(self, root: Path, state: dict[str, torch.Tensor]) -> None:
        embed = definitions(
            root / 'mmseg/models/utils/embed.py',
            ('AdaptivePadding', 'PatchEmbed'),
            BaseModule=Base,
            to_2tuple=lambda x: x if isinstance(x, tuple) else (x, x),
            build_norm_layer=build_norm_layer,
            build_conv_layer=lambda config, **sizes: nn.Conv2d(
                **{key: value for key, value in sizes.items() if key != 'type'}
            ),
        )
        vit = definitions(
            root / 'mmseg/models/backbones/vit.py',
            ('TransformerEncoderLayer', 'VisionTransformer'),
            BaseModule=Base,
            ModuleList=nn.ModuleList,
            MultiheadAttention=Attention,
            FFN=FeedForward,
            build_norm_layer=build_norm_layer,
            PatchEmbed=embed.PatchEmbed,
            to_2tuple=lambda x: (x, x),
            resize=functional.interpolate,
            warnings=None,
            _BatchNorm=nn.BatchNorm2d,
        )
        head = definitions(
            root / 'mmseg/models/decode_heads/maskclip_head.py',
            ('MaskClipHead',),
            BaseDecodeHead=nn.Module,
        )
        weights = {k.removeprefix('visual.'): v for k, v in state.items() if k.startswith('visual')}
        width, _, patch, _ = weights['conv1.weight'].shape
        side = math.isqrt(len(weights['positional_embedding']) - 1)
        self.tower = vit.VisionTransformer(
            img_size=(side * patch, side * patch),
            patch_size=patch,
            patch_bias=False,
            embed_dims=width,
            num_layers=1 + max(int(k.split('.')[2]) for k in weights if 'resblocks' in k),
            num_heads=width // 64,
            norm_cfg={'type': 'LN', 'eps': 1e-6},
            pre_norm=True,
            final_norm=True,
            return_qkv=True,
        )
        self.tower.eval()
        self.tower.load_state_dict(
            {maskclip_key(k): maskclip_value(k, v) for k, v in weights.items() if k != 'proj'}
        )
        self.head = head.MaskClipHead.__new__(head.MaskClipHead)
        nn.Module.__init__(self.head)
        self.head.vit, self.head.pd_thresh, self.head.ks_thresh = True, 0.0, 0.0
        self.head.proj = nn.Conv2d(width, weights['proj'].shape[1], 1, bias=False)
        self.head.proj.weight.data = weights['proj'].T[:, :, None, None]
        self.head._transform_inputs = lambda inputs: list(inputs[-1])
        self.head.eval()

    @torch.no_grad()
    def features(self, image_1chw: torch.Tensor) -> torch.Tensor:
        """Return projected patches (h, w, d)."""
        value = self.tower(image_1chw)[-1][3]
        return self.head.proj(value)[0].permute(1, 2, 0)

    @torch.no_grad()
    def logits(self, image_1chw: torch.Tensor, texts_nd: torch.Tensor) -> torch.Tensor:
        """Return cosines on the patches (n, h, w)."""
        self.head.text_embeddings = texts_nd
        return self.head(self.tower(image_1chw))[0]


def maskclip_key(key: str) -> str:
    """Translate a key of CLIP's tower as MaskCLIP's conversion of the weights does."""
    for old, new in (
        ('class_embedding', 'cls_token'),
        ('positional_embedding', 'pos_embed'),
        ('conv1', 'patch_embed.projection'),
        ('ln_pre', 'ln0'),
        ('ln_post', 'ln1'),
        ('transformer.resblocks', 'layers'),
        ('mlp.c_fc', 'ffn.layers.0.0'),
        ('mlp.c_proj', 'ffn.layers.1'),
        ('attn.', 'attn.attn.'),
        ('ln_', 'ln'),
    ):
        key = key.replace(old, new)
    return key


def maskclip_value(key: str, value: torch.Tensor) -> torch.Tensor:
    if key == 'class_embedding':
        return value[None, None]
    return value[None] if key == 'positional_embedding' else value


def segmentor(root: Path, weights: Weights, **settings: Any) -> Any:
    """Return NACLIP's or SCLIP's own segmentor of mmseg on the random weights."""
    file, name = {
        'NACLIP': ('naclip.py', 'NACLIP'),
        'SCLIP': ('clip_segmentor.py', 'CLIPForSegmentation'),
    }[root.name]
    net = definitions(root / 'clip/model.py', Tuple=tuple, Union=tuple).build_model(
        {key: value.clone() for key, value in weights.state.items()}
    )
    net.float().eval().encode_text = Remembered(net.encode_text)
    templates = definitions(root / 'prompts/imagenet_template.py').openai_imagenet_template
    made = definitions(
        root / file,
        (name, 'get_cls_idx'),
        BaseSegmentor=Segmentor,
        SegDataPreProcessor=lambda **_: None,
        PixelData=lambda data: data,
        PAMR=definitions(root / 'pamr.py').PAMR,
        clip=SimpleNamespace(load=lambda *_, **__: (net, None), tokenize=open_clip.tokenize),
        openai_imagenet_template=templates,
        logging=logging,
    )
    names = root / 'configs' / f'cls_{settings.pop("names")}.txt'
    return vars(made)[name]('', str(names), device=torch.device('cpu'), **settings).eval()


def clearclip_segmentor(root: Path, weights: Weights, text: Any, **settings: Any) -> Any:
    """Return ClearCLIP's own segmentor on the random weights; `text` encodes tokens."""
    parts = definitions(
        root / 'open_clip/transformer.py',
        (
            *('LayerNormFp32', 'LayerNorm', 'QuickGELU', 'LayerScale', 'ResidualAttentionBlock'),
            *('_expand_token', 'Transformer', 'VisionTransformer'),
        ),
        to_2tuple=lambda x: (x, x),
    )
    visual = parts.VisionTransformer(
        VISION['image_size'],
        VISION['patch_size'],
        VISION['width'],
        VISION['layers'],
        VISION['width'] // 64,
        4.0,
        output_dim=JOINT,
        act_layer=parts.QuickGELU,
    )
    tower = {k.removeprefix('visual.'): v for k, v in weights.state.items() if 'visual.' in k}
    visual.load_state_dict(tower)
    net = nn.Module()
    net.visual, net.encode_text = visual, Remembered(text)
    net.encode_image = lambda image, kind, residual: visual(image, kind, residual)
    made = definitions(
        root / 'clearclip_segmentor.py',
        ('ClearCLIPSegmentation', 'get_cls_idx'),
        BaseSegmentor=Segmentor,
        SegDataPreProcessor=lambda **_: None,
        PixelData=lambda data: data,
        create_model=lambda *_, **__: net,
        tokenizer=SimpleNamespace(tokenize=open_clip.tokenize),
        openai_imagenet_template=definitions(
            root / 'prompts/imagenet_template.py'
        ).openai_imagenet_template,
    )
    names = root / 'configs' / f'cls_{settings.pop("names")}.txt'
    cpu = torch.device('cpu')
    return made.ClearCLIPSegmentation(
        'CLIP', 'ViT-B/16', 'ClearCLIP', str(names), cpu, **settings
    ).eval()
