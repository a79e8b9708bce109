"""Models of open_clip: which can be used, and loading them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.encoders.activation import check_activation, needs_quickgelu
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.weights import (
    OPENAI_NUMBERS,
    SUFFIXES,
    absent,
    checksum,
    find_weights,
    given_weights,
    load_once,
    load_strictly,
    read_state_dict,
    weights_folder,
)
from llmseg_ros.system.memory import free_memory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SharedModel:
    """A loaded model and what belongs to its weights.

    Attributes:
        name: model and tag, or model and the start of a local checkpoint's checksum.
        digest: SHA-256 of the weight file, in hex.
        model: of open_clip, in evaluation mode, without gradients.
        tokenize: texts to (n, context) int64 tokens.
        mean: of the pixels on a scale of 0 to 1, per channel.
        std: likewise.
    """

    name: str
    digest: str
    model: Any
    tokenize: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def shared_model(name: str, pretrained: str, device: torch.device) -> SharedModel:
    """Load a model once per process, weights and device, however many encoders use it.

    Args:
        name: of the model in open_clip.
        pretrained: a tag whose weights were downloaded, or a checkpoint file.
        device: where it runs.

    Raises:
        EncoderUnavailable: it can't be loaded or used.
    """
    # first of all, in milliseconds: importing open_clip takes longer than a user should wait for
    # the news that there are no weights
    path = find_checkpoint(name, pretrained)
    digest = checksum(path)
    return load_once(
        ('open_clip', name, digest, device),
        lambda: load_model(name, pretrained, path, digest, device),
    )


def text_model(name: str, pretrained: str, device: torch.device) -> SharedModel:
    """Load a model as shared_model does, its image tower without the blocks, which take most room.

    Raises:
        EncoderUnavailable: it can't be loaded or used.
    """
    path = find_checkpoint(name, pretrained)
    digest = checksum(path)

    def load() -> SharedModel:
        shared = load_model(name, pretrained, path, digest, device)
        shared.model.visual.transformer = None
        free_memory()
        return shared

    return load_once(('open_clip text', name, digest, device), load)


def find_checkpoint(name: str, pretrained: str) -> Path:
    """Return the weight file of a tag, or the checkpoint file given.

    Raises:
        EncoderUnavailable: it is not there.
    """
    if is_path(pretrained):
        return given_weights(pretrained)
    path = find_weights(weights_folder('open_clip', f'{name}--{pretrained}'))
    if path is None:
        raise absent(f'weights of {name}, {pretrained},', 'open_clip')
    return path


def is_path(pretrained: str) -> bool:
    """Tell a checkpoint file from a tag."""
    return '/' in pretrained or Path(pretrained).suffix in SUFFIXES


def load_model(
    name: str, pretrained: str, path: Path, digest: str, device: torch.device
) -> SharedModel:
    """Build the model, load its weights, and make it ready for inference."""
    open_clip = import_open_clip()
    tag = None if is_path(pretrained) else pretrained
    config = check_model(name, tag)
    text_folder = weights_folder('open_clip', f'{name}--{pretrained}') / 'text'
    model, tokenize = build_model(name, config, text_folder)
    state = read_state_dict(path)
    if tag is None:
        check_activation(name, path, digest, state)
    for number in OPENAI_NUMBERS:
        state.pop(number, None)
    if 'text_projection' in state and not isinstance(model, open_clip.CLIP):
        from open_clip.model import convert_to_custom_text_state_dict

        state = convert_to_custom_text_state_dict(state)
    state.pop('text.transformer.embeddings.position_ids', None)  # transformers before 4.31
    load_strictly(model, state, path)
    preprocess = pretrained_config(name, tag)
    return SharedModel(
        name=f'{name} {tag or digest[:12]}',
        digest=digest,
        model=model.eval().requires_grad_(False).to(device),
        tokenize=tokenize,
        mean=tuple(preprocess.get('mean', open_clip.OPENAI_DATASET_MEAN)),
        std=tuple(preprocess.get('std', open_clip.OPENAI_DATASET_STD)),
    )


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
    """Return what open_clip knows of a tag; of the model's first tag where none is given."""
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag is None and tags:
        tag = tags[0]
    return open_clip.get_pretrained_cfg(name, tag) if tag else {}


def check_model(name: str, tag: str | None) -> dict[str, Any]:
    """Return the configuration of a model that can be a dense encoder with these weights.

    Raises:
        EncoderUnavailable: the model or tag is unknown to this open_clip, the image tower is not
            its VisionTransformer, or model and tag differ in their activation.
    """
    open_clip = import_open_clip()
    config = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise EncoderUnavailable(
            f'{library()} has no model {name!r}, '
            '`python -c "import open_clip; print(open_clip.list_models())"` lists them'
        )
    vision = config['vision_cfg']
    if 'timm_model_name' in vision:
        raise EncoderUnavailable(
            f'{name} has an image tower of timm ({vision["timm_model_name"]}), which is not '
            'supported yet: choose a ViT of open_clip itself, such as ViT-B-16-quickgelu'
        )
    if not isinstance(vision['layers'], int) or vision.get('attentional_pool'):
        kind = 'an attentional pooler' if isinstance(vision['layers'], int) else 'a ResNet tower'
        raise EncoderUnavailable(f'{name} has {kind}, its patches are not in the joint space')
    special = ('block_type', 'qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner')
    if any(vision.get(key) for key in (*special, 'scale_attn', 'scale_fc')):
        raise EncoderUnavailable(f'{name} has blocks of a special kind, which are not supported')
    if tag is not None:
        check_tag(name, tag, bool(config.get('quick_gelu')))
    return config


def check_tag(name: str, tag: str, has_quickgelu: bool) -> None:
    """Raise EncoderUnavailable where a tag is unknown or was trained with another activation."""
    open_clip = import_open_clip()
    if needs_quickgelu(name, tag) and not has_quickgelu:
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


def build_model(name: str, config: dict[str, Any], text_folder: Path) -> tuple[Any, Any]:
    """Build the model with random weights, and its tokenizer, without touching the network.

    Args:
        name: of the model.
        config: of the model, as open_clip has it.
        text_folder: where the configuration and tokenizer of a Hugging Face text tower were
            downloaded to.

    Raises:
        EncoderUnavailable: the model needs those and they are absent.
    """
    open_clip = import_open_clip()
    text = config['text_cfg']
    if needs_hub_text(config):
        if not text_folder.is_dir():
            raise absent(f'tokenizer of {name}', 'open_clip')
        for key in ('hf_model_name', 'hf_tokenizer_name'):
            if key in text:
                text[key] = str(text_folder)
        text['hf_model_pretrained'] = False
    custom_text = config.pop('custom_text', False) or 'hf_model_name' in text
    model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    context = text.get('context_length', 77)
    if 'hf_tokenizer_name' in text:
        options = text.get('tokenizer_kwargs') or {}
        return model, open_clip.HFTokenizer(str(text_folder), context_length=context, **options)
    return model, open_clip.SimpleTokenizer(context_length=context)


def needs_hub_text(config: dict[str, Any]) -> bool:
    """Tell whether the text tower or its tokenizer come from the Hugging Face hub."""
    return bool({'hf_model_name', 'hf_tokenizer_name'} & set(config['text_cfg']))
