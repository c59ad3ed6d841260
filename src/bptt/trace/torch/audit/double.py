"""Everything in float64, for as long as an audit lasts: a model's copy, its batch, and what its code asks for."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from bptt.errors import InputError

NARROW = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = {Tensor.float, Tensor.half, Tensor.bfloat16}


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing, with everything floating in float64.

    Raises:
        InputError: it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:  # a weight that was worked out; it will be again
                memo[id(value)] = value.detach().clone()
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        do = "Let its attributes be parameters, buffers or plain values."
        raise InputError("model", got=got, expected="a module that copy.deepcopy copies", do=do) from error
    made.double()
    for module in made.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.dtype in NARROW:
                vars(module)[name] = value.double()
    for parameter in made.parameters():
        parameter.grad = None
    return made


def widened(value: Any) -> Any:
    """The same nest with every floating tensor as a float64 copy of its own."""
    if isinstance(value, PackedSequence):
        return value._replace(data=widened(value.data))
    if isinstance(value, Tensor):
        wide = value.detach().clone()
        wide = wide.double() if wide.dtype in NARROW else wide
        return wide.requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {name: widened(item) for name, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(widened(item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(widened(item) for item in value)
    return value


def widen_call(func: Any, args: Any, kwargs: Any) -> tuple[Any, Any, Any]:
    """A call of torch as it would be in a program that was written for float64."""
    if func in _CASTS:
        func = Tensor.double
    if any(a in NARROW for a in args if isinstance(a, torch.dtype)):
        args = tuple(torch.float64 if isinstance(a, torch.dtype) and a in NARROW else a for a in args)
    if kwargs and isinstance(kwargs.get("dtype"), torch.dtype) and kwargs["dtype"] in NARROW:
        kwargs = {**kwargs, "dtype": torch.float64}
    if _mixed(args) and not (isinstance(args[0], Tensor) and args[0].dtype in NARROW and in_place(func)):
        args = tuple(a.double() if isinstance(a, Tensor) and a.dtype in NARROW else a for a in args)
    return func, args, kwargs


def in_place(func: Any) -> bool:
    """Whether a function writes into its first argument."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in ("__setitem__", "__set__") or name in _INPLACE


_INPLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__")


def _mixed(args: Any) -> bool:
    kinds = {a.dtype for a in args if isinstance(a, Tensor) and a.is_floating_point()}
    return torch.float64 in kinds and len(kinds) > 1
