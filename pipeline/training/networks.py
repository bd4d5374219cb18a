"""The networks that can be trained end to end, each one logit a crop. Needs the `torch` extra."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from pipeline.training.backbone import load_backbone, required

torch: Any = required("torch")
nn: Any = torch.nn

Architecture: TypeAlias = Literal["small", "efficientnet_lite0", "efficientnet_b0", "resnet50", "vit_small"]
_TIMM = {"efficientnet_b0": "efficientnet_b0", "resnet50": "resnet50", "vit_small": "vit_small_patch16_384"}
_WIDTHS = (32, 64, 96, 128)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """(pixel / 255 - mean) / std for each of R, G, B."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""The published normalisation of CLIP's vision tower."""


class SmallNetwork(nn.Module):  # type: ignore[misc]  # torch is optional, so untyped here
    """A residual network of 0.5 million weights for the CPU, on pixels and on what a 3x3 mean leaves of them.

    The first two convolutions do not stride: a decoder's trace lies in the finest detail.
    """

    def __init__(self, widths: tuple[int, ...] = _WIDTHS) -> None:
        super().__init__()
        first = widths[0] // 2
        self.stem = nn.Sequential(_conv(6, first), _conv(first, first), _conv(first, widths[0], stride=2))
        blocks = []
        for width_in, width in pairwise(widths):
            blocks += [_Block(width_in), _conv(width_in, width, stride=2)]
        self.body = nn.Sequential(*blocks, _Block(widths[-1]))
        self.head = nn.Linear(2 * widths[-1], 1)

    def forward(self, x: Any) -> Any:
        """From float (N, 3, H, W), any size from 32, to (N, 1)."""
        residual = x - nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        found = self.body(self.stem(torch.cat([x, 4.0 * residual], 1)))
        return self.head(torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1))


class _Block(nn.Module):  # type: ignore[misc]  # as above
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _conv(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.inner(x))


def _conv(channels_in: int, channels: int, stride: int = 1) -> Any:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
    )


def build(architecture: Architecture, size_px: int, *, pretrained: bool = False) -> tuple[Any, Normalisation]:
    """A network with one output, and the normalisation it expects.

    Args:
        architecture: `small` is our own; the others are timm's, efficientnet_lite0 with the weights of a package.
        size_px: side of a crop; a vision transformer is built for it.
        pretrained: start from the weights that timm publishes (needs the network, or its cache).

    Raises:
        ValueError: pretrained weights for `small`, or a size that no transformer patch divides.
    """
    if architecture == "small":
        if pretrained:
            raise ValueError("pretrained: there are no weights for `small`; leave it out")
        return SmallNetwork(), HALF
    if architecture == "efficientnet_lite0":
        return _lite0(pretrained=pretrained), HALF
    if architecture == "vit_small" and size_px % 16:
        raise ValueError(f"size_px {size_px}: vit_small needs a multiple of 16")
    options = {"img_size": size_px} if architecture == "vit_small" else {}
    net = required("timm").create_model(_TIMM[architecture], pretrained=pretrained, num_classes=1, **options)
    return net, normalisation_of(net)


def _lite0(*, pretrained: bool) -> Any:
    if not pretrained:
        return required("timm").create_model("tf_efficientnet_lite0", pretrained=False, num_classes=1)
    net = load_backbone("efficientnet_lite0").requires_grad_(True)
    net.reset_classifier(1)
    return net


def normalisation_of(timm_model: Any) -> Normalisation:
    """As the model's own configuration states it."""
    config = timm_model.default_cfg
    return Normalisation(tuple(config["mean"]), tuple(config["std"]))


class CropsToLogits(nn.Module):  # type: ignore[misc]  # as above
    """Normalisation and network: uint8 crops (N, S, S, 3) to float32 (N,)."""

    def __init__(self, net: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.net = net
        for name in ("mean", "std"):
            value = torch.tensor(getattr(normalisation, name)).mul(255.0).reshape(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, crops: Any) -> Any:
        """One logit a crop."""
        return self.net((crops.permute(0, 3, 1, 2).float() - self.mean) / self.std).reshape(-1)
