"""`llmseg download`: weights put in place before a robot goes into the field."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from llmseg_ros.cli.common import CommandError, note, printable, resolve_config


class EncoderName(str, Enum):
    """The encoders there are."""

    imagenet = 'imagenet'
    open_clip = 'open_clip'
    simseg = 'simseg'


def download(
    encoder: Annotated[
        EncoderName | None,
        typer.Option(help="Encoder.  [default: the configuration's, else open_clip]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar='FILE', help='Configuration that names the model and its weights.'),
    ] = None,
) -> None:
    """Download the weights an encoder needs, once; at run time no network is used.

    Prints the files that are in place. A file that is there already is checked, not fetched.

    Example: llmseg download --config config/seg.yaml
    """
    from llmseg_ros.config import SegmenterConfig
    from llmseg_ros.config_files import load_config

    settings = SegmenterConfig() if config is None else load_config(resolve_config(config))
    if encoder is not None:
        name = encoder.value
    else:
        name = 'open_clip' if config is None else settings.encoder.name
    if name == 'imagenet':
        note('nothing to download, the weights of the imagenet encoder are installed with it')
        return
    from llmseg_ros.encoders.download import download_bert_tokenizer, download_open_clip

    if name == 'open_clip':
        note(f'downloading {settings.open_clip.model}, {settings.open_clip.pretrained}')
        paths = download_open_clip(settings.open_clip)
    else:
        note('downloading the tokenizer of SimSeg')
        paths = download_bert_tokenizer()
    for path in paths:
        print(f'{printable(path)}: SHA-256 checked', flush=True)
    if name == 'simseg':
        require_simseg_checkpoint(settings.simseg.checkpoint)


def require_simseg_checkpoint(checkpoint: str) -> None:
    """Raise CommandError where the checkpoint, which no program can fetch, is not there yet."""
    from llmseg_ros.encoders import EncoderUnavailable
    from llmseg_ros.encoders.simseg import find_checkpoint
    from llmseg_ros.encoders.weights import weights_folder

    try:
        print(printable(find_checkpoint(checkpoint)), flush=True)
    except EncoderUnavailable as error:
        raise CommandError(
            'the tokenizer is in place; the checkpoint is not: fetch simseg.vit-s.pth by hand, by '
            f'the link in the README of muyangyi/SimSeg, into {weights_folder("simseg")}'
        ) from error
