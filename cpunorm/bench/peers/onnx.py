"""Norms as ONNX models, which onnxruntime and OpenVINO run."""

from ..cases import EPS
from .base import Peer

OPSET = 21  # the first with GroupNormalization's parameters per channel
IR_VERSION = 10  # that opset's


class ONNXPeer(Peer):
    """A library that runs ONNX models: its `_call` takes arrays and model and returns the `Call`."""

    def has(self, case):
        """Channels first, contiguous, evaluation: its training updates statistics by another variance than torch's."""
        return not case.channels_last and case.mode != "train" and case.view is None

    def _norm(self, a, operator, *parameters, **attributes):
        from onnx import helper, numpy_helper

        names = [f"parameter{i}" for i in range(len(parameters))]
        dtype = helper.np_dtype_to_tensor_dtype(a.x.dtype)
        x, y = (helper.make_tensor_value_info(name, dtype, a.x.shape) for name in "xy")
        node = helper.make_node(operator, ["x", *names], ["y"], epsilon=EPS, **attributes)
        constants = [numpy_helper.from_array(values, name) for name, values in zip(names, parameters, strict=True)]
        graph = helper.make_graph([node], operator, [x], [y], constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        return self._call(a, model.SerializeToString())

    def batch_norm(self, case, a):
        """BatchNormalization."""
        return self._norm(a, "BatchNormalization", a.weight, a.bias, a.running_mean, a.running_var)

    def layer_norm(self, case, a):
        """LayerNormalization over the last axis."""
        return self._norm(a, "LayerNormalization", a.weight, a.bias)

    def group_norm(self, case, a):
        """GroupNormalization, all of it in the input's dtype."""
        from onnx.helper import np_dtype_to_tensor_dtype

        attributes = {"num_groups": case.layer.groups, "stash_type": np_dtype_to_tensor_dtype(a.x.dtype)}
        return self._norm(a, "GroupNormalization", a.weight, a.bias, **attributes)
