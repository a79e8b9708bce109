"""Whether a checkpoint file was trained with GELU or QuickGELU, as far as that can be known."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection
from pathlib import Path

from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.encoders.weights import OPENAI_NUMBERS

QUICKGELU_TAGS = ('openai', 'dfn2b', 'dfn5b', 'metaclip_400m', 'metaclip_fullcc')
"""Trained with QuickGELU; open_clip before 2.30 does not say so."""

SUFFIX = '-quickgelu'

logger = logging.getLogger(__name__)


def check_activation(name: str, path: Path, digest: str, keys: Collection[str]) -> None:
    """Refuse a checkpoint file in a model of the other activation; warn where it can't be known.

    The tensors are of the same shapes, and the features quietly worse.

    Args:
        name: of the model in open_clip.
        path: of the checkpoint.
        digest: its SHA-256 in hex.
        keys: of its tensors.

    Raises:
        EncoderUnavailable: it was trained with the other activation.
    """
    import open_clip

    plain = name.removesuffix(SUFFIX)
    pair = plain, plain + SUFFIX
    if not all(model in open_clip.list_models() for model in pair):
        return
    quick = trained_with_quickgelu(path, digest, keys)
    if quick is None:
        logger.warning(
            '%s does not say whether it was trained with GELU, for the model %s, or QuickGELU, for '
            '%s, as weights of OpenAI, DFN and MetaCLIP were: it is used in %s',
            path,
            *pair,
            name,
        )
    elif quick != name.endswith(SUFFIX):
        raise EncoderUnavailable(
            f'checkpoint {path} was trained with {"QuickGELU" if quick else "GELU"}: '
            f'use the model {pair[quick]} instead of {name}'
        )


def trained_with_quickgelu(path: Path, digest: str, keys: Collection[str]) -> bool | None:
    """Tell by what lies beside a checkpoint, by its checksum, or by keys that OpenAI's alone have.

    Args:
        path: of the checkpoint.
        digest: its SHA-256 in hex.
        keys: of its tensors.

    Returns:
        None where it can't be told.
    """
    import open_clip

    if set(keys) >= set(OPENAI_NUMBERS):
        return True
    for model, tag in open_clip.list_pretrained():
        # addresses have the checksum in them, whole or its beginning
        url = open_clip.get_pretrained_url(model, tag)
        if any(digest.startswith(part) for part in re.findall(r'(?<![0-9a-f])[0-9a-f]{8,64}', url)):
            return needs_quickgelu(model, tag)
    try:  # of a repository on the Hugging Face hub
        text = (path.parent / 'open_clip_config.json').read_text(encoding='utf-8')
        return bool(json.loads(text)['model_cfg'].get('quick_gelu', False))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def needs_quickgelu(model: str, tag: str) -> bool:
    """Tell whether the weights of a tag were trained with QuickGELU."""
    import open_clip

    says_so = open_clip.get_pretrained_cfg(model, tag).get('quick_gelu', False)
    return bool(says_so or tag in QUICKGELU_TAGS)
