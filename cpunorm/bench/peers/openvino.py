"""OpenVINO."""

import numpy as np

from ..cases import NORMS
from .base import Call
from .onnx import ONNXPeer


class OpenVINO(ONNXPeer):
    """A compiled model, called on ndarrays; into given memory by an inference request of its own."""

    name = "openvino"
    packages = ("openvino", "onnx")
    settle = 0.01
    takes_out = True

    def __init__(self, threads):
        super().__init__(threads)
        import openvino

        self.openvino = openvino
        self.version = openvino.__version__.split("-")[0]

    def has(self, case):
        """float64 would be computed in float32; the norms of sums are onnxruntime's."""
        return super().has(case) and case.dtype == "float32" and not NORMS[case.norm].sums

    def _call(self, a, model):
        core = self.openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": "f32",  # not the bfloat16 that it prefers where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # it pins the calling thread too, to a CPU that others' threads then share
        }
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
        request = compiled.create_infer_request()
        out = np.empty_like(a.x)
        request.set_input_tensor(self.openvino.Tensor(a.x, shared_memory=True))
        request.set_output_tensor(self.openvino.Tensor(out, shared_memory=True))

        def into():
            request.infer()
            return out

        return Call(lambda: compiled(a.x)[0], into)
