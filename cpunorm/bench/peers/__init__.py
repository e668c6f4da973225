"""Who is measured: one registry of libraries. A new one is a class with a method per norm, and its place in `PEERS`.

A method takes the case and its arrays and returns a `Call`; cpunorm and torch, which have the names and arguments of
`cases.NORMS`, need none for these. A norm that has no method, or a case that the class says it
doesn't have (`Peer.has`), is shown as n/a. Everything that is no part of the call is done before:
conversion, parameters, compilation.

Channels-last cases are the same memory to everyone, (N, H, W, C), each in their own idiom: cpunorm with
``data_format="channels_last"``, torch as an (N, C, H, W) tensor in ``torch.channels_last`` memory format,
NumPy and JAX with the channels on the last axis. ONNX has channels first only.
"""

from .albucore import Albucore
from .base import Call, Peer
from .bottleneck import Bottleneck
from .build import Build, OldCPUNorm
from .dask import Dask
from .jax import JAX
from .numbagg import Numbagg
from .numpy import NumPy
from .onnxruntime import BoundONNXRuntime, ONNXRuntime
from .opencv import OpenCV
from .openvino import OpenVINO
from .ours import CPUNorm
from .sklearn import ScikitLearn
from .torch import CompiledTorch, Torch

__all__ = ["PEERS", "Build", "CPUNorm", "Call", "NumPy", "OldCPUNorm", "Peer", "Torch"]

PEERS = {
    peer.name: peer
    for peer in (
        NumPy,
        Torch,
        CompiledTorch,
        ONNXRuntime,
        BoundONNXRuntime,
        OpenVINO,
        JAX,
        OpenCV,
        Albucore,
        Numbagg,
        Bottleneck,
        ScikitLearn,
        Dask,
    )
}
