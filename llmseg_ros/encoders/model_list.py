"""What open_clip's models are, and which of them can be dense encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmseg_ros.encoders.open_clip import patch_side
from llmseg_ros.encoders.open_clip_models import hindrance, import_open_clip, pretrained_config
from llmseg_ros.encoders.timm_towers import build_tower, family_of, is_timm


@dataclass(frozen=True)
class ModelFacts:
    """A model of open_clip.

    Attributes:
        name: of the model.
        why_not: what keeps it from being a dense encoder; empty where nothing does.
        tower: its family and what is particular about it.
        parameters: of the image tower.
        patch: side in pixels, 0 where there is none.
        resolution: side of the images it was trained with, in pixels.
        weights: repository on the hub of its first tag, whose page has the licence; empty where
            open_clip knows none.
    """

    name: str
    why_not: str
    tower: str
    parameters: int
    patch: int
    resolution: int
    weights: str


def list_facts() -> list[ModelFacts]:
    """Return the facts of all models open_clip knows; none is downloaded or given memory.

    Raises:
        EncoderUnavailable: open_clip is not installed.
    """
    open_clip = import_open_clip()
    return [find_facts(name, open_clip.get_model_config(name)) for name in open_clip.list_models()]


def find_facts(name: str, config: dict[str, Any]) -> ModelFacts:
    """Return the facts of a model by its configuration."""
    vision = config['vision_cfg']
    timm_name = vision.get('timm_model_name', '')
    family = family_of(name) if timm_name else None
    visual = build_tower(config)
    reason = hindrance(config, visual)
    tags = import_open_clip().list_pretrained_tags_by_model(name)
    return ModelFacts(
        name=name,
        why_not=reason,
        tower=f'{family.name}: {family.tower}' if family else timm_name or 'CLIP',
        parameters=sum(p.numel() for p in visual.parameters()),
        patch=0 if reason else patch_side(visual),
        resolution=trained_at(visual, vision.get('image_size', 224)),
        # after the last slash is a file, or nothing
        weights=pretrained_config(name, tags[0]).get('hf_hub', '').rpartition('/')[0]
        if tags
        else '',
    )


def trained_at(visual: Any, said: int | list[int]) -> int:
    """Return the side of the images of a tower's positions: open_clip is wrong of ViTamin-XL-384.

    Args:
        visual: the tower.
        said: by the model's configuration.
    """
    embed = getattr(visual.trunk, 'patch_embed', None) if is_timm(visual) else None
    side = getattr(embed, 'img_size', None) or said
    return max(side) if isinstance(side, list | tuple) else side
