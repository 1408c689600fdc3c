"""What the outputs of a head that was trained on ImageNet are called, by the libraries that know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn
from torchvision import models

# Tags such as a1_in1k or augreg_in21k_ft_in1k end in the set that the head is of.
_IMAGENET_TAG = re.compile(r"in(?:1k|12k|21k|22k)$|imagenet", re.IGNORECASE)


def imagenet_names_of(model: nn.Module) -> tuple[str, ...] | None:
    """Class names of a model whose configuration, in timm's form, says that it was trained on ImageNet.

    None where nothing says so, and where the head has another number of outputs than the configuration.
    """
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if not isinstance(config, Mapping) or not config.get("num_classes"):
        return None
    classes = int(config["num_classes"])
    if _outputs(model) != classes:
        return None
    own = config.get("label_names")
    if own and len(own) == classes:
        return tuple(map(str, own))
    is_imagenet = any(_says_imagenet(config.get(key)) for key in ("tag", "architecture", "hf_hub_id", "url"))
    return names_of_set(classes) if is_imagenet else None


def names_of_set(classes: int | None) -> tuple[str, ...] | None:
    """Names of the set of ImageNet that has so many classes; None where no library knows one."""
    try:
        data: Any = import_module("timm.data")
    except ModuleNotFoundError:
        known = tuple(models.ResNet18_Weights.DEFAULT.meta["categories"])
        return known if len(known) == classes else None
    subset = data.infer_imagenet_subset({"num_classes": classes})
    if not subset:
        return None
    info = data.ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))


def _outputs(model: nn.Module) -> int | None:
    """By the model's own account, else those of its last linear layer."""
    said: Any = getattr(model, "num_classes", None)
    if isinstance(said, int):
        return said
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else None


def _says_imagenet(value: object) -> bool:
    return isinstance(value, str) and _IMAGENET_TAG.search(value) is not None
