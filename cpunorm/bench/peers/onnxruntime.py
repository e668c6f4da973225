"""onnxruntime, on ndarrays and with bound memory."""

import numpy as np

from .base import Call
from .onnx import ONNXPeer


class ONNXRuntime(ONNXPeer):
    """`InferenceSession.run` on ndarrays, as most people call it."""

    name = "onnxruntime"
    packages = ("onnxruntime", "onnx")
    settle = 0.02

    def __init__(self, threads):
        super().__init__(threads)
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.version = onnxruntime.__version__

    def _session(self, model):
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        return self.onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def _call(self, a, model):
        session = self._session(model)
        inputs = {"x": a.x}
        return Call(lambda: session.run(None, inputs)[0])


class BoundONNXRuntime(ONNXRuntime):
    """`run_with_iobinding`: the input bound once, the output to given memory, or anew for one that it makes."""

    name = "onnxruntime-bound"
    takes_out = True
    memory = "into"

    def _call(self, a, model):
        session = self._session(model)
        fresh, into = session.io_binding(), session.io_binding()
        for binding in (fresh, into):
            binding.bind_cpu_input("x", a.x)
        out = self.onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(a.x))
        into.bind_ortvalue_output("y", out)

        def call():
            fresh.bind_output("y")  # or the next run would write to the output of the last
            session.run_with_iobinding(fresh)
            return fresh.get_outputs()[0]

        def call_into():
            session.run_with_iobinding(into)
            return out

        return Call(call, call_into)

    def to_numpy(self, case, y):
        """An OrtValue's values."""
        return y.numpy()
