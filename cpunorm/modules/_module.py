"""What every module is: parameters, a training flag, a state_dict that torch can read and write."""

from typing import NamedTuple

import numpy as np

from cpunorm._arguments import HALVES

__all__ = ["Module"]


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not find, and found without a place for it."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def parameter_dtype(device, dtype):
    """The dtype for parameters: float32 for None.

    Raises
    ------
    RuntimeError
        A device other than the CPU, or a dtype that is no floating-point one.
    TypeError
        Not a dtype.
    """
    if device not in (None, "cpu"):
        raise RuntimeError(f"device must be None or 'cpu', got {device!r}")
    dtype = np.dtype(np.float32 if dtype is None else dtype)
    if dtype not in (np.float32, np.float64) and dtype.name not in HALVES:
        raise RuntimeError(f"dtype must be float32, float64, float16 or bfloat16, got {dtype}")
    return dtype


def _as_state(value):
    """A checkpoint's value, a NumPy array or a torch tensor, as an ndarray; None if it is neither."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if "bfloat16" in str(value.dtype):  # has no NumPy counterpart in torch
            value = value.float()
        value = value.numpy()
    return value if isinstance(value, np.ndarray | np.generic) else None


class Module:
    """The base of all modules; `_state` names what its state_dict holds, in torch's order."""

    _state = ("weight", "bias")

    def __init__(self):
        self.training = True

    def __call__(self, input, *, out=None):
        """The same as `forward`."""
        return self.forward(input, out=out)

    def train(self, mode=True):
        """Switch to training (or, with False, to evaluation); returns self.

        Raises
        ------
        ValueError
            `mode` is not a bool.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"training mode must be a bool, got {mode!r}")
        self.training = mode
        return self

    def eval(self):
        """Switch to evaluation; returns self."""
        return self.train(False)

    def reset_parameters(self):
        """Set weight to 1 and bias to 0, in place."""
        if self.weight is not None:
            self.weight.fill(1)
        if self.bias is not None:
            self.bias.fill(0)

    def state_dict(self, prefix=""):
        """The parameters and buffers that exist, by torch's names, each behind `prefix`.

        The arrays are the module's own, not copies, as in torch.
        """
        return {prefix + name: getattr(self, name) for name in self._state if getattr(self, name) is not None}

    def load_state_dict(self, state_dict, strict=True, *, prefix=""):
        """Copy a checkpoint into the parameters and buffers, in place: all of it or, on an error, nothing.

        Parameters
        ----------
        state_dict : mapping of str to ndarray or torch.Tensor
            From `state_dict` here or in torch, ``np.load("x.npz")``, ``safetensors.numpy.load_file("x.safetensors")``.
        strict : bool
            Whether missing and unexpected keys are errors. A missing ``num_batches_tracked`` (an old one) never is.
        prefix : str
            Take the keys that start with this alone, so that one layer can be loaded out of a whole model's checkpoint.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        RuntimeError
            All missing, unexpected, mis-shaped and non-numeric entries, in one message.
        TypeError
            `state_dict` is no mapping.

        Examples
        --------
        >>> import numpy as np, cpunorm
        >>> norm = cpunorm.LayerNorm(2)
        >>> norm.load_state_dict({"encoder.weight": np.ones(2), "encoder.bias": np.ones(2)}, prefix="encoder.")
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        """
        if not hasattr(state_dict, "keys"):
            raise TypeError(f"state_dict must be a mapping, got {type(state_dict).__name__}")
        given = {key.removeprefix(prefix): key for key in state_dict.keys() if key.startswith(prefix)}  # noqa: SIM118
        own = self.state_dict()
        missing = [prefix + name for name in own if name not in given and name != "num_batches_tracked"]
        unexpected = [key for name, key in given.items() if name not in own]
        errors, loaded = [], []
        if strict and missing:
            errors.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            errors.append(f"unexpected keys: {', '.join(unexpected)}")
        for name, target in own.items():
            if name not in given:
                continue
            value = _as_state(state_dict[given[name]])
            if value is None or (value.dtype.kind not in "biuf" and value.dtype.name not in HALVES):
                what = type(state_dict[given[name]]).__name__ if value is None else value.dtype
                errors.append(f"{given[name]} must be an array of real numbers, got {what}")
            elif value.shape != target.shape and not (target.ndim == 0 and value.size == 1):
                errors.append(
                    f"size mismatch for {given[name]}: shape {value.shape} in the checkpoint, {target.shape} here"
                )
            elif not target.flags.writeable:
                errors.append(f"{name} of this module is read-only")
            else:
                loaded.append((target, value.reshape(target.shape)))
        if errors:
            raise RuntimeError(f"can't load the state_dict into {type(self).__name__}: " + "; ".join(errors))
        with np.errstate(over="ignore"):  # beyond the range of a parameter's dtype is infinite, as in torch
            for target, value in loaded:
                np.copyto(target, value, casting="unsafe")
        return IncompatibleKeys(missing, unexpected)

    def extra_repr(self):
        """What stands between the brackets of the repr."""
        return ""

    def __repr__(self):
        return f"{type(self).__name__}({self.extra_repr()})"
