"""Norms as ONNX models, which onnxruntime and OpenVINO run."""

from ..cases import EPS, NORMS
from .base import Peer

OPSET = 23  # the first with RMSNormalization; 21 brought GroupNormalization's parameters per channel
IR_VERSION = 11  # that opset's
CONTRIBUTED = "com.microsoft"  # onnxruntime's own operators, some of which OpenVINO reads too
ACTIVATIONS = {  # operators, and what they take beside the value: "before" is the input of the step before
    None: (),
    "relu": (("Relu", ()),),
    "silu": (("Sigmoid", ()), ("Mul", ("before",))),
    "gelu": (("Gelu", ()),),
}


class ONNXPeer(Peer):
    """A library that runs ONNX models: its `_call` takes arrays and model and returns the `Call`."""

    def has(self, case):
        """Channels first, contiguous, evaluation: its training updates statistics by another variance than torch's."""
        usual = not case.channels_last and case.mode != "train" and case.view is None
        known = hasattr(self, case.norm) and case.layer.activation in ACTIVATIONS
        known = known and not (case.norm.startswith("add_") and len(case.layer.shape) > 3)  # "Skip" takes no more
        return usual and known and case.dtype in ("float32", "float64")

    def _norm(self, case, a, operator, *parameters, **attributes):
        """The model of an operator, behind it what the case does to its result, as libraries are left to fuse it."""
        from onnx import helper, numpy_helper

        names = [f"parameter{i}" for i in range(len(parameters))]
        dtype = helper.np_dtype_to_tensor_dtype(a.x.dtype)
        x, y = (helper.make_tensor_value_info(name, dtype, a.x.shape) for name in "xy")
        sums = NORMS[case.norm].sums
        steps = [(operator, ["x", *(["residual"] if sums else []), *names], {"epsilon": EPS, **attributes})]
        constants = dict(zip(names, parameters, strict=True))
        if case.layer.residual:
            steps.append(("Add", ["residual"], {}))
        if a.residual is not None:
            constants["residual"] = a.residual
        steps += [(name, inputs, {}) for name, inputs in ACTIVATIONS[case.layer.activation]]
        nodes, result = [], None
        for number, (name, inputs, options) in enumerate(steps):
            inputs = (
                inputs if result is None else [result, *(nodes[-2].output[0] if v == "before" else v for v in inputs)]
            )
            result = "y" if number == len(steps) - 1 else f"step{number}"
            domain = CONTRIBUTED if "Skip" in name else ""
            results = [result, "", "", "total"] if sums else [result]
            nodes.append(helper.make_node(name, inputs, results, domain=domain, **options))
        outputs = [y, helper.make_tensor_value_info("total", dtype, a.x.shape)] if sums else [y]
        graph = helper.make_graph(
            nodes, operator, [x], outputs, [numpy_helper.from_array(v, name) for name, v in constants.items()]
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIBUTED, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return self._call(a, model.SerializeToString())

    def batch_norm(self, case, a):
        """BatchNormalization."""
        return self._norm(case, a, "BatchNormalization", a.weight, a.bias, a.running_mean, a.running_var)

    def layer_norm(self, case, a):
        """LayerNormalization over the last axis."""
        return self._norm(case, a, "LayerNormalization", a.weight, a.bias)

    def rms_norm(self, case, a):
        """RMSNormalization over the last axis."""
        return self._norm(case, a, "RMSNormalization", a.weight)

    def instance_norm(self, case, a):
        """InstanceNormalization."""
        return self._norm(case, a, "InstanceNormalization", a.weight, a.bias)

    def add_layer_norm(self, case, a):
        """onnxruntime's SkipLayerNormalization, with its sum."""
        return self._norm(case, a, "SkipLayerNormalization", a.weight, a.bias)

    def add_rms_norm(self, case, a):
        """onnxruntime's SkipSimplifiedLayerNormalization, with its sum."""
        return self._norm(case, a, "SkipSimplifiedLayerNormalization", a.weight)

    def group_norm(self, case, a):
        """GroupNormalization, all of it in the input's dtype."""
        from onnx.helper import np_dtype_to_tensor_dtype

        attributes = {"num_groups": case.layer.groups, "stash_type": np_dtype_to_tensor_dtype(a.x.dtype)}
        return self._norm(case, a, "GroupNormalization", a.weight, a.bias, **attributes)
