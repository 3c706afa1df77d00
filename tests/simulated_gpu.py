"""A GPU that the CPU stands for: tensors that say they are on "cuda", and errors where they meet tensors of the host.

Unlike the fake tensors of torch these have values, so that nothing need be known in advance: a neighbour list is as
long as it is. Autograd, optimisers and modules see tensors on the device "meta" (C++ of a build without CUDA knows no
other that fits); Python sees "cuda".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.simulated_capture import Captures

__all__ = ["OnGPU", "replayed", "simulated_gpu"]

_THERE, _CUDA = torch.device("meta"), torch.device("cuda", 0)
# Those of which the host must see the result, or which take from it.
_WAITS = ("_local_scalar_dense", "nonzero.", "equal.default", "masked_select", "_unique", "unique_", "bincount")
_WAITS = (*_WAITS, "_linalg_check_errors", "multinomial")
# Of the one GPU that there is.
_CAPTURES = Captures()
_COPIES, _INDEXED = ("aten.copy_.", "aten._to_copy."), ("aten.index.", "aten.index_put", "aten._index_put_impl_")


class OnGPU(Tensor):
    """A tensor on the GPU; `held` has its values."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: _CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGPU:
        options: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        return Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=_THERE, **options)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {}, [])

    def __deepcopy__(self, memo: dict) -> Tensor:
        made = OnGPU(self.held.clone()).requires_grad_(self.requires_grad)
        return memo.setdefault(id(self), torch.nn.Parameter(made, self.requires_grad) if self._is_param else made)

    _is_param = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        # As it comes back where there is no GPU, or with map_location="cpu".
        return self.held.detach().clone().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """Wait for the numbers."""
        return self.cpu().tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Refuse, as on a GPU; and an address means nothing to kernels of the host."""
        raise TypeError("a tensor on the GPU is no array of the host")

    __array__ = data_ptr = numpy


@contextmanager
def simulated_gpu() -> Iterator[list[str]]:
    """Put all that goes to "cuda" onto the simulated GPU; yields the operations that the host has waited for."""
    waits: list[str] = []
    stands_for = {
        "device": lambda *_: nullcontext(),
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "mem_get_info": lambda *_: (2**33, 2**34),
        "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 3e9,
        "get_device_name": lambda *_: "simulated",
        "empty_cache": lambda: None,
        "synchronize": lambda *_: None,
        **_CAPTURES.names(),
    }
    before = {name: getattr(torch.cuda, name) for name in stands_for}
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    # Another dtype for a module: its parameters cannot be given other values in place, as `held` would stay.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    for name, function in stands_for.items():
        setattr(torch.cuda, name, function)
    try:
        with _Names(), _Operations(waits):
            yield waits
    finally:
        for name, function in before.items():
            setattr(torch.cuda, name, function)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def replayed() -> int:
    """How often captures were replayed so far."""
    return _CAPTURES.replays


class _Names(TorchFunctionMode):
    """Calls the device "cuda" by the name that torch knows here."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.device:
            return function(*args, **kwargs or {})
        args, kwargs = tree_map(_there, args), tree_map(_there, kwargs or {})
        name = function.__name__
        if name in ("tensor", "as_tensor") and kwargs.get("device") == _THERE:
            return function(*args, **{**kwargs, "device": None}).to(_THERE)
        if name == "new_tensor":
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs, "device": None}).to(
                _there(args[0].device)
            )
        if name == "linear" and args[0].dim() == 1:
            # torch would take the dimension away in place that it adds, which a wrapper does not see.
            return function(args[0][None], *args[1:], **kwargs)[0]
        if name in ("__getitem__", "__setitem__"):
            # torch would make the index where the tensor is, without values.
            given = args[1] if isinstance(args[1], tuple) else (args[1],)
            args = (args[0], tuple(torch.tensor(i) if isinstance(i, list) else i for i in given), *args[2:])
        return function(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say no, as otherwise torch imports its compiler, for seconds."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _call(function, args, kwargs or {}, self.waits)


def _there(value: Any) -> Any:
    name = str(value) if isinstance(value, (str, torch.device)) else ""
    return _THERE if name.partition(":")[0] == "cuda" else value


def _call(function: Any, args: tuple, kwargs: dict, waits: list[str]) -> Any:
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    ours, target = [one for one in given if isinstance(one, OnGPU)], kwargs.get("device")
    made_there = target == _THERE if target is not None else bool(ours)
    if not (ours or made_there):
        return function(*args, **kwargs)
    before = len(waits)
    _check(function, args, given, made_there, waits)
    _CAPTURES.refuse(len(waits) > before, str(function))
    host = tree_map(_of_host, (args, kwargs))
    _CAPTURES.keep(function, *host)
    found = function(*host[0], **host[1])
    _CAPTURES.record(function, host, found)
    # Operations in place give back what they were given.
    back = {id(_held(one)): one for one in given}

    def placed(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return back[id(one)] if id(one) in back else OnGPU(one) if made_there else one

    return tree_map(placed, found)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGPU) else value


def _of_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.held if isinstance(value, OnGPU) else _CAPTURES.taken_along(value)
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _check(function: Any, args: tuple, given: list[Tensor], made_there: bool, waits: list[str]) -> None:
    """Refuse what a GPU refuses; note what the host waits for.

    A tensor without dimensions is a number to operations on each element; an index may come from the host.
    """
    name = str(function)
    if any(part in name for part in _WAITS):
        waits.append(name)
    if name.startswith(_COPIES):
        source = args[1] if name.startswith(_COPIES[0]) else args[0]
        target = isinstance(args[0], OnGPU) if name.startswith(_COPIES[0]) else made_there
        if isinstance(source, OnGPU) != target:
            waits.append(name)
        return
    host = [one for one in given if not isinstance(one, OnGPU)]
    if name.startswith(_INDEXED):
        indices = [one for one in args[1] if one is not None]
        waits += [name for one in indices if not isinstance(one, OnGPU) or one.dtype == torch.bool]
        host = [one for one in host if all(one is not index for index in indices)]
    if torch.Tag.pointwise in function.tags or name.startswith(("aten.where", "aten.index_put", "aten.fill_")):
        if name.startswith(("aten.where", "aten.index_put")):
            # Which send it there first.
            waits += [name for one in host if not one.dim()]
        host = [one for one in host if one.dim()]
    if host and len(given) > len(host):
        raise RuntimeError(f"{name} takes tensors {[tuple(one.shape) for one in host]} of the host beside others")
