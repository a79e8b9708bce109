"""The sizes of a CLIP model small enough for references that are written out."""

NAME = 'tiny-published'
VISION = {'image_size': 64, 'layers': 2, 'width': 48, 'head_width': 24, 'patch_size': 16}
TEXT = {'context_length': 77, 'vocab_size': 49408, 'width': 16, 'heads': 2, 'layers': 1}
