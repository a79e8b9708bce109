"""Text templates a name is put into before it is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmseg_ros.config import ConfigError
from llmseg_ros.encoders.base import EncoderUnavailable
from llmseg_ros.files import shipped_path

if TYPE_CHECKING:
    import torch

SLOT = '{}'
PUBLISHED = ('llm_supervision', 'maskclip')
MAX_TEMPLATES = 1000


def load_templates(source: str) -> tuple[str, ...]:
    """Return templates, each with one {} for the name.

    Args:
        source: `imagenet`, the 80 of the CLIP paper; `short`, the 7 its authors found to do most
            of the work; `photo`, `a photo of a {}.`; `llm_supervision`, the 13 of Sun et al.'s code
            (CVPRW 2024); `maskclip`, the 85 of Zhou et al.'s (ECCV 2022); or a text file with a
            template a line.

    Raises:
        ConfigError: the file can't be read, or a line has not exactly one {}.
        EncoderUnavailable: open_clip, which has the lists, is not installed.
    """
    if source == 'photo':
        return ('a photo of a {}.',)
    if source in ('imagenet', 'short'):
        try:
            import open_clip
        except ImportError as error:
            raise EncoderUnavailable(
                f'templates {source!r} come with open_clip: pip install open_clip_torch, '
                "or choose 'photo'"
            ) from error
        fill = {
            'imagenet': open_clip.OPENAI_IMAGENET_TEMPLATES,
            'short': open_clip.SIMPLE_IMAGENET_TEMPLATES,
        }[source]
        return tuple(template(SLOT) for template in fill)
    if source in PUBLISHED:
        return _read_templates(shipped_path(f'config/templates/{source}.txt'))
    return _read_templates(Path(source))


def _read_templates(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f'templates {str(path)!r}: expected imagenet, short, photo or a text file, or the '
            f'published {" or ".join(PUBLISHED)} ({error})'
        ) from error
    templates = tuple(line.strip() for line in lines if line.strip())
    for template in templates:
        if template.count(SLOT) != 1:
            raise ConfigError(f'templates {path}: {template[:80]!a} has not exactly one {SLOT}')
    if not 1 <= len(templates) <= MAX_TEMPLATES:
        raise ConfigError(
            f'templates {path}: {len(templates)} lines, expected 1 to {MAX_TEMPLATES}'
        )
    return templates


def fill_templates(templates: Sequence[str], names: Sequence[str]) -> list[str]:
    """Put every name into every template, all texts of a name together."""
    # not str.format: a name is untrusted and may have braces
    return [template.replace(SLOT, name) for name in names for template in templates]


def average_templates(texts_md: torch.Tensor, templates: int) -> torch.Tensor:
    """Average the texts of every name: each normalised, then their mean normalised again.

    Args:
        texts_md: (n * templates, d), all texts of a name together.
        templates: number of templates.

    Returns:
        (n, d), rows of length 1.
    """
    from torch.nn.functional import normalize

    texts_ntd = normalize(texts_md, dim=-1).unflatten(0, (-1, templates))
    return normalize(texts_ntd.mean(dim=1), dim=-1)
