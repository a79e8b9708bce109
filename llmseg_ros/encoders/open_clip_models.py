"""Models of open_clip: which can be used, and loading them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.config import OpenClipConfig
from llmseg_ros.encoders.activation import check_activation, needs_quickgelu
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.model_folders import (
    find_tokenizer,
    has_own_description,
    model_folder,
    read_description,
    refuse_own_code,
    text_repository,
    tokenizer_files,
    weights_in,
)
from llmseg_ros.encoders.timm_towers import build_tower, is_timm, why_not, without_memory
from llmseg_ros.encoders.weights import (
    OPENAI_NUMBERS,
    SUFFIXES,
    absent,
    checksum,
    find_weights,
    first_line,
    given_weights,
    load_once,
    load_strictly,
    read_state_dict,
    weights_folder,
)

if TYPE_CHECKING:
    import torch

PROBE = 'A photo of the Cat, 3 dogs & a (small) café!'  # what tokenizers differ in
BLOCKS = ('visual.transformer.resblocks.', 'visual.trunk.blocks.')  # of towers, in a checkpoint


@dataclass(frozen=True)
class SharedModel:
    """A loaded model and what belongs to its weights.

    Attributes:
        name: model and tag, or model and the start of a local checkpoint's checksum.
        tag: of the weights, None where they are those of a file or folder.
        digest: SHA-256 of the weight file, in hex.
        text_digest: of what else the embedding of a text depends on.
        width: of the joint space.
        model: of open_clip, in evaluation mode, without gradients.
        tokenize: texts to (n, context) int64 tokens.
        mean: of the pixels on a scale of 0 to 1, per channel.
        std: likewise.
        interpolation: by which images were resized in training, `bicubic` or `bilinear`.
    """

    name: str
    tag: str | None
    digest: str
    text_digest: str
    width: int
    model: Any
    tokenize: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


def shared_model(name: str, pretrained: str, device: torch.device) -> SharedModel:
    """Load a model once per process, weights and device, however many encoders use it.

    Args:
        name: of the model in open_clip, or `local-dir:FOLDER` or `hf-hub:NAME`.
        pretrained: a tag whose weights were downloaded, or a checkpoint file; without effect where
            the name is that of a folder.
        device: where it runs.

    Raises:
        EncoderUnavailable: it can't be loaded or used.
    """
    return load_shared(name, pretrained, device, with_blocks=True)


def text_model(name: str, pretrained: str, device: torch.device) -> SharedModel:
    """Load a model as shared_model does, its image tower without the blocks, which take most room.

    Raises:
        EncoderUnavailable: it can't be loaded or used.
    """
    return load_shared(name, pretrained, device, with_blocks=False)


def load_shared(name: str, pretrained: str, device: torch.device, with_blocks: bool) -> SharedModel:
    """Load a model, or return the same one where this process has it already."""
    # first of all, in milliseconds: importing open_clip takes longer than a user should wait for
    # the news that there are no weights
    path = find_checkpoint(name, pretrained)
    digest = checksum(path)
    described = repr(read_description(name)) if has_own_description(name) else ''
    return load_once(
        ('open_clip', with_blocks, name, digest, described, device),
        lambda: load_model(name, pretrained, path, digest, device, with_blocks),
    )


def find_checkpoint(name: str, pretrained: str) -> Path:
    """Return the weight file of a tag or of a model's folder, or the checkpoint file given.

    Raises:
        EncoderUnavailable: it is not there, or of a model that can't be used.
    """
    if has_own_description(name):
        return weights_in(model_folder(name))
    if is_path(pretrained):
        return given_weights(pretrained)
    path = find_weights(weights_folder('open_clip', f'{name}--{pretrained}'))
    if path is None:
        usual = OpenClipConfig()
        is_default = (name, pretrained) == (usual.model, usual.pretrained)
        if not is_default:
            check_model(name, pretrained)  # else one would download what can't be used or isn't
        raise absent(f'weights of {name}, {pretrained},', 'open_clip', is_default)
    return path


def is_path(pretrained: str) -> bool:
    """Tell a checkpoint file from a tag."""
    return '/' in pretrained or Path(pretrained).suffix in SUFFIXES


def load_model(
    name: str,
    pretrained: str,
    path: Path,
    digest: str,
    device: torch.device,
    with_blocks: bool,
) -> SharedModel:
    """Build the model, load its weights, and make it ready for inference.

    Without the blocks of its image tower, these are not read either.
    """
    open_clip = import_open_clip()
    tag = None if is_path(pretrained) or has_own_description(name) else pretrained
    config = check_model(name, tag)
    if not with_blocks:
        config['vision_cfg'] = {**config['vision_cfg'], 'layers': 0}
    downloaded = weights_folder('open_clip', f'{name}--{pretrained}') / 'text'
    text_folders = downloaded, path.parent, path.parent / 'text'
    model, tokenize = build_model(name, config, text_folders, path)
    if not with_blocks and is_timm(model.visual):
        del model.visual.trunk.blocks[:]
    state = read_state_dict(path)
    if tag is None and not has_own_description(name):
        check_activation(name, path, digest, state)
    for number in OPENAI_NUMBERS:
        state.pop(number, None)
    state = fitting(state, model)
    if not with_blocks:
        state = {key: value for key, value in state.items() if not key.startswith(BLOCKS)}
    load_strictly(model, state, path)
    preprocess = pretrained_config(name, tag)
    return SharedModel(
        name=f'{name} {tag or digest[:12]}',
        tag=tag,
        digest=digest,
        text_digest=digest_of_text(config, tokenize),
        width=config['embed_dim'],
        model=model.eval().requires_grad_(False).to(device),
        tokenize=tokenize,
        mean=tuple(preprocess.get('mean') or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(preprocess.get('std') or open_clip.OPENAI_DATASET_STD),
        # as open_clip has it, where `random` is for training
        interpolation='bilinear' if preprocess.get('interpolation') == 'bilinear' else 'bicubic',
    )


def digest_of_text(config: dict[str, Any], tokenize: Any) -> str:
    """Return a digest of a text tower's configuration and of what its tokenizer does.

    A folder's description or tokenizer may be mended beside the same weights.
    """
    described = {key: value for key, value in config.items() if key != 'vision_cfg'}
    content = json.dumps([described, tokenize([PROBE]).tolist()], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def fitting(state: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors under the names that this open_clip has for them."""
    if 'text_projection' in state and not isinstance(model, import_open_clip().CLIP):
        from open_clip.model import convert_to_custom_text_state_dict

        state = convert_to_custom_text_state_dict(state)
    state.pop('text.transformer.embeddings.position_ids', None)  # transformers before 4.31
    return state


def import_open_clip() -> Any:
    """Import open_clip.

    Raises:
        EncoderUnavailable: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise EncoderUnavailable(
            f'encoder open_clip needs {error.name}: pip install open_clip_torch, '
            'or use `encoder: imagenet`'
        ) from error
    return open_clip


def pretrained_config(name: str, tag: str | None) -> dict[str, Any]:
    """Return what open_clip knows of a tag; of the model's first tag where none is given.

    Of a model with a folder: what the folder says of the pixels.
    """
    if has_own_description(name):
        return dict(read_description(name).get('preprocess_cfg') or {})
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag is None and tags:
        tag = tags[0]
    return open_clip.get_pretrained_cfg(name, tag) if tag else {}


def check_model(name: str, tag: str | None) -> dict[str, Any]:
    """Return the configuration of a model that can be a dense encoder with these weights.

    Raises:
        EncoderUnavailable: the model or tag is unknown to this open_clip, the image tower is no
            plain ViT of open_clip or timm, or model and tag differ in their activation.
    """
    config = model_config(name)
    if reason := hindrance(config):
        raise EncoderUnavailable(
            f'{name} has {reason}: its patches can not be compared with names; '
            '`llmseg doctor --models` lists the models that can be used'
        )
    if tag is not None:
        check_tag(name, tag, bool(config.get('quick_gelu')))
    return config


def model_config(name: str) -> dict[str, Any]:
    """Return the configuration of a model that open_clip knows or a folder describes.

    Raises:
        EncoderUnavailable: it is unknown.
    """
    open_clip = import_open_clip()
    if has_own_description(name):
        described = dict(read_description(name)['model_cfg'])
        # the weights of the whole model are there: none are fetched that a tower began with
        described['vision_cfg'] = {**described['vision_cfg'], 'timm_model_pretrained': False}
        return described
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise EncoderUnavailable(
            f'{library()} has no model {name!r}, `llmseg doctor --models` lists them'
        )
    return dict(config)


def hindrance(config: dict[str, Any], visual: Any = None) -> str:
    """Say what a model has that keeps it from being a dense encoder; empty where nothing does.

    Args:
        config: of the model, as open_clip has it.
        visual: its image tower, where it was built already.
    """
    vision = config['vision_cfg']
    if tower := vision.get('timm_model_name'):
        if ':' in str(tower):  # hf-hub:NAME: its description would be fetched
            return f'an image tower from elsewhere ({tower})'
        try:
            return why_not(visual or build_tower(config))
        except Exception as error:  # of timm or torch, for what they lack
            reason = ' '.join(str(error).split()) or type(error).__name__
            return f'an image tower that this timm can not build ({reason})'
    layers = vision.get('layers', 12)
    if not isinstance(layers, int):
        return 'a ResNet tower'
    if vision.get('attentional_pool'):
        return 'an attentional pooler'
    special = ('block_type', 'qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner')
    if any(vision.get(key) for key in (*special, 'scale_attn', 'scale_fc')):
        return 'blocks of a special kind, which are not supported'
    return 'a text tower that writes captions' if 'multimodal_cfg' in config else ''


def check_tag(name: str, tag: str, has_quickgelu: bool) -> None:
    """Raise EncoderUnavailable where a tag is unknown or was trained with another activation."""
    open_clip = import_open_clip()
    paired = f'{name}-quickgelu' in open_clip.list_models()
    if paired and needs_quickgelu(name, tag) and not has_quickgelu:
        raise EncoderUnavailable(
            f'weights {tag!r} were trained with QuickGELU and {name} has GELU: '
            f'use the model {name}-quickgelu'
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        known = f'there are {", ".join(tags)}' if tags else 'give a checkpoint file'
        raise EncoderUnavailable(f'{library()} has no weights {tag!r} of {name}: {known}')


def library() -> str:
    """Return the name and version of open_clip."""
    from open_clip.version import __version__

    return f'open_clip {__version__}'


def build_model(
    name: str, config: dict[str, Any], text_folders: tuple[Path, ...], weights: Path
) -> tuple[Any, Any]:
    """Build the model with random weights, and its tokenizer, without touching the network.

    Args:
        name: of the model.
        config: of the model, as open_clip has it.
        text_folders: where the configuration and tokenizer of a Hugging Face text tower may lie.
        weights: file of its weights: a model of more numbers than its bytes is not built.

    Raises:
        EncoderUnavailable: the model needs those and they are absent, or it can't be built.
    """
    open_clip = import_open_clip()
    text = dict(config['text_cfg'])
    context = text.get('context_length') or 77
    tokenize = None
    if needs_hub_text(config):
        folder = find_tokenizer(text, text_folders)
        if folder is None:
            raise EncoderUnavailable(
                f'tokenizer of {name} not found: put {" and ".join(tokenizer_files(text))} of '
                f'{text_repository(text)} on the hub beside {weights}, or run '
                '`llmseg download --config FILE` where there is a network'
            )
        if text.get('hf_model_name'):
            text['hf_model_name'] = str(folder)
            refuse_own_code(folder)
        text['hf_model_pretrained'] = False
        if text.get('hf_tokenizer_name'):
            tokenize = make_tokenizer(folder, context, text)
    custom_text = config.get('custom_text', False) or bool(text.get('hf_model_name'))
    towers = {key: value for key, value in config.items() if key != 'custom_text'}
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    try:
        with without_memory():  # first, so that no description takes the memory of a machine
            numbers = sum(p.numel() for p in kind(**{**towers, 'text_cfg': text}).parameters())
        if numbers > (size := weights.stat().st_size):
            raise ValueError(f'it has {numbers} numbers, and {weights} only {size} bytes')
        model = kind(**{**towers, 'text_cfg': text})
        return model, tokenize or open_clip.SimpleTokenizer(context_length=context)
    except Exception as error:  # of open_clip, timm or torch, for what a description has
        raise EncoderUnavailable(
            f'{library()} can not build {name}: {first_line(error)}'
        ) from error


def make_tokenizer(folder: Path, context: int, text: dict[str, Any]) -> Any:
    """Load a tokenizer of the Hugging Face hub, without running code from its folder.

    Args:
        folder: with its files.
        context: tokens of a text.
        text: the `text_cfg` of the model.

    Raises:
        EncoderUnavailable: it can't be loaded.
    """
    # `open_clip` itself does not have it in all versions
    from open_clip.tokenizer import HFTokenizer

    try:
        options = dict(text.get('tokenizer_kwargs') or {})
        if text.get('tokenizer_mode'):
            options['tokenizer_mode'] = text['tokenizer_mode']
        options['trust_remote_code'] = False  # whatever a description asks for; nor is anyone asked
        return HFTokenizer(str(folder), context_length=context, **options)
    except Exception as error:  # of transformers or tokenizers
        raise EncoderUnavailable(
            f'the tokenizer in {folder} can not be loaded: {first_line(error)}'
        ) from error


def needs_hub_text(config: dict[str, Any]) -> bool:
    """Tell whether the text tower or its tokenizer come from the Hugging Face hub."""
    return any(config['text_cfg'].get(key) for key in ('hf_model_name', 'hf_tokenizer_name'))
