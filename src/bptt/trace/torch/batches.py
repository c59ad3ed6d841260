"""A batch for a model of which nothing is known but its layers."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from bptt.errors import InputError


def make_batch(model: nn.Module, T: int, B: int = 2) -> torch.Tensor:
    """Random numbers or ids (T, B, …), or (B, T, …) where a layer has its batch first, for the model's first layer.

    Raises:
        InputError: the first layer says nothing about its input.
    """
    numbers = torch.Generator().manual_seed(0)
    lead = (B, T) if any(getattr(module, "batch_first", False) for module in model.modules()) else (T, B)
    first: Any = next((m for m in _in_order(model) if any(p is not None for p in m._parameters.values())), None)
    if isinstance(first, nn.Embedding):
        return torch.randint(first.num_embeddings, lead, generator=numbers)
    width = _width(first)
    if width is None:
        got = "nothing with parameters" if first is None else f"a first layer of {type(first).__name__}"
        raise InputError("assert_reaches", got=got, expected="an embedding, a recurrent or a linear one", do="Give x.")
    dtype = next(p.dtype for p in first.parameters())
    return torch.randn(*lead, width, generator=numbers).to(dtype)


def _in_order(model: nn.Module) -> list[nn.Module]:
    """Modules in the order in which they were made."""
    return list(OrderedDict.fromkeys(model.modules()))


def _width(layer: Any) -> int | None:
    if isinstance(layer, nn.RNNBase | nn.RNNCellBase):
        return layer.input_size
    return layer.in_features if isinstance(layer, nn.Linear) else None
