"""torch models on cpunorm's kernels, for inference on the CPU.

`accelerate` switches the norms of a model over. They then call operators that are registered with torch as
``torch.ops.cpunorm.*``, on the tensors' own memory, so that `torch.compile` and `torch.export` take them as they are; a
program that was exported needs ``import cpunorm.torch`` where it runs.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

try:
    import torch
except ModuleNotFoundError:
    message = 'cpunorm.torch needs torch; please run: pip install "cpunorm[torch]"'
    raise ModuleNotFoundError(message, name="torch") from None
from torch import Tensor, nn

from cpunorm import functional
from cpunorm._foreign import as_ndarray

__all__ = ["accelerate"]

Model = TypeVar("Model", bound=nn.Module)


# Operators. Library.define, for a call through torch.library.custom_op takes 10 us more.

_library = torch.library.Library("cpunorm", "DEF")


def _operator(schema: str) -> Callable[[Callable[..., np.ndarray]], Callable[..., np.ndarray]]:
    """Register a function of ndarrays as the operator of this schema, whose result is laid out as its first tensor."""

    def register(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        name = schema.partition("(")[0]

        def on_cpu(*arguments: Any) -> Tensor:
            y = function(*(as_ndarray(name, a.detach()) if isinstance(a, Tensor) else a for a in arguments))
            if arguments[0].dtype == torch.bfloat16:  # which torch.from_numpy doesn't know
                return torch.from_numpy(y.view(np.int16)).view(torch.bfloat16)
            return torch.from_numpy(y)

        _library.define(schema, tags=torch.Tag.pt2_compliant_tag)
        _library.impl(name, on_cpu, "CPU")
        torch.library.register_fake(f"cpunorm::{name}", lambda input, *others: torch.empty_like(input), lib=_library)
        return function

    return register


@_operator("batch_norm(Tensor x, Tensor? mean, Tensor? var, Tensor? weight, Tensor? bias, float eps) -> Tensor")
def _batch_norm(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> np.ndarray:
    return functional.batch_norm(x, mean, var, weight, bias, training=mean is None and var is None, eps=eps)


@_operator("instance_norm(Tensor x, Tensor? mean, Tensor? var, Tensor? weight, Tensor? bias, float eps) -> Tensor")
def _instance_norm(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> np.ndarray:
    return functional.instance_norm(x, mean, var, weight, bias, use_input_stats=mean is None, eps=eps)


@_operator("group_norm(Tensor x, SymInt num_groups, Tensor? weight, Tensor? bias, float eps) -> Tensor")
def _group_norm(x: Any, num_groups: int, weight: Any, bias: Any, eps: float) -> np.ndarray:
    return functional.group_norm(x, num_groups, weight, bias, eps)


@_operator("layer_norm(Tensor x, SymInt[] normalized_shape, Tensor? weight, Tensor? bias, float eps) -> Tensor")
def _layer_norm(x: Any, normalized_shape: list[int], weight: Any, bias: Any, eps: float) -> np.ndarray:
    return functional.layer_norm(x, tuple(normalized_shape), weight, bias, eps)


@_operator("rms_norm(Tensor x, SymInt[] normalized_shape, Tensor? weight, float? eps) -> Tensor")
def _rms_norm(x: Any, normalized_shape: list[int], weight: Any, eps: float | None) -> np.ndarray:
    return functional.rms_norm(x, tuple(normalized_shape), weight, eps)


# Modules: torch's own, which become of these classes where they are, and so keep parameters, hooks and names.


class _Accelerated(nn.Module):
    def _check_inference(self, input: Tensor) -> None:
        if self.training:
            raise RuntimeError(f"{type(self).__name__} was accelerated for inference: call eval() on the model")
        if torch.is_grad_enabled() and (input.requires_grad or any(p.requires_grad for p in self.parameters())):
            name = type(self).__name__
            raise RuntimeError(f"{name} was accelerated and has no gradient: call the model in torch.inference_mode()")


class _BatchNorm(_Accelerated, nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        self._check_inference(input)
        mean, var = self.running_mean, self.running_var
        return torch.ops.cpunorm.batch_norm(input, mean, var, self.weight, self.bias, self.eps)


class _InstanceNorm(_Accelerated, nn.modules.instancenorm._InstanceNorm):
    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        self._check_inference(input)
        mean, var = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        return torch.ops.cpunorm.instance_norm(input, mean, var, self.weight, self.bias, self.eps)


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` in evaluation."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` in evaluation."""


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` in evaluation."""


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` in evaluation."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` in evaluation."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` in evaluation."""


class GroupNorm(_Accelerated, nn.GroupNorm):
    """`torch.nn.GroupNorm` in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, of shape (N, C, ...)."""
        self._check_inference(input)
        return torch.ops.cpunorm.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm(_Accelerated, nn.LayerNorm):
    """`torch.nn.LayerNorm` in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, of shape (..., *normalized_shape)."""
        self._check_inference(input)
        return torch.ops.cpunorm.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(_Accelerated, nn.RMSNorm):
    """`torch.nn.RMSNorm` in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, of shape (..., *normalized_shape)."""
        self._check_inference(input)
        return torch.ops.cpunorm.rms_norm(input, self.normalized_shape, self.weight, self.eps)


ACCELERATED = {
    getattr(nn, kind.__name__): kind
    for kind in (
        BatchNorm1d,
        BatchNorm2d,
        BatchNorm3d,
        InstanceNorm1d,
        InstanceNorm2d,
        InstanceNorm3d,
        GroupNorm,
        LayerNorm,
        RMSNorm,
    )
}


def accelerate(model: Model) -> Model:
    """Let the norms of `model` run on cpunorm's kernels, for inference on the CPU.

    ``BatchNorm1d/2d/3d``, ``InstanceNorm1d/2d/3d``, ``LayerNorm``, ``GroupNorm`` and ``RMSNorm`` of `torch.nn` are
    switched over where they are, the model itself if it is one: parameters, state_dict, hooks and names stay. Their
    subclasses, and norms that are called as functions, stay torch's; so do those of `torch.nn.TransformerEncoderLayer`
    where torch runs the whole layer as one.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, its norms on the CPU, in float32, float64, float16 or bfloat16 (which needs ml_dtypes).

    Returns
    -------
    torch.nn.Module
        `model`. In training mode, or where gradients are asked for, its norms raise a RuntimeError: call it in
        ``torch.inference_mode()`` or ``torch.no_grad()``, and compile or export it there, too.

    Raises
    ------
    RuntimeError
        A norm in training mode or on another device than the CPU; nothing is switched over.
    TypeError
        Not a module.

    Notes
    -----
    A call of an operator takes some 6 us more than torch's; what large inputs gain is more (docs/embedding.md).

    Examples
    --------
    >>> import torch
    >>> from cpunorm.torch import accelerate
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8)).eval()
    >>> with torch.inference_mode():
    ...     x = torch.arange(8.0).reshape(2, 4)
    ...     before, after = model(x), accelerate(model)(x)
    >>> torch.allclose(before, after, atol=1e-5)
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate takes a torch.nn.Module, got {type(model).__name__}")
    norms = {name: module for name, module in model.named_modules() if type(module) in ACCELERATED}
    for name, module in norms.items():
        where = name or "the model"
        if module.training:
            raise RuntimeError(f"{where} is in training mode: call eval() on the model first")
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.device.type != "cpu":
                raise RuntimeError(f"{where} is on {tensor.device}: call cpu() on the model first")
    for module in norms.values():
        module.__class__ = ACCELERATED[type(module)]
    return model
