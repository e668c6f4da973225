"""`cpunorm.torch.accelerate`: models on our kernels, with the same numbers, also compiled and exported; or refused."""

import copy
import importlib.util
import io
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fresh
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import cpunorm.torch  # noqa: E402
from cpunorm.torch import accelerate  # noqa: E402

nn = torch.nn
PATH = Path(__file__).parent.parent / "examples" / "accelerate_torch.py"
spec = importlib.util.spec_from_file_location("accelerate_torch", PATH)
example = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = example  # where torch.compile looks for it
spec.loader.exec_module(example)
NETWORKS = example.networks(small=True)
# Each kind of norm with and without its options, and an input.
NORMS = {
    "BatchNorm1d": (nn.BatchNorm1d(6), (5, 6)),
    "BatchNorm1d of positions": (nn.BatchNorm1d(6, affine=False), (5, 6, 7)),
    "BatchNorm2d": (nn.BatchNorm2d(6), (2, 6, 5, 7)),
    "BatchNorm2d of the batch": (nn.BatchNorm2d(6, track_running_stats=False), (2, 6, 5, 7)),
    "BatchNorm3d": (nn.BatchNorm3d(6), (2, 6, 3, 5, 7)),
    "InstanceNorm1d": (nn.InstanceNorm1d(6), (2, 6, 7)),
    "InstanceNorm2d": (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (2, 6, 5, 7)),
    "InstanceNorm2d of one": (nn.InstanceNorm2d(6, affine=True), (6, 5, 7)),
    "InstanceNorm3d": (nn.InstanceNorm3d(6), (2, 6, 3, 5, 7)),
    "GroupNorm": (nn.GroupNorm(3, 6), (2, 6, 5, 7)),
    "GroupNorm plain": (nn.GroupNorm(2, 6, affine=False), (2, 6)),
    "LayerNorm": (nn.LayerNorm(7), (2, 6, 7)),
    "LayerNorm of matrices": (nn.LayerNorm((6, 7), bias=False), (2, 6, 7)),
    "LayerNorm plain": (nn.LayerNorm(7, elementwise_affine=False), (2, 6, 7)),
    "RMSNorm": (nn.RMSNorm(7), (2, 6, 7)),
    "RMSNorm eps": (nn.RMSNorm((6, 7), eps=1e-3, elementwise_affine=False), (2, 6, 7)),
}


def norm_of(name, dtype=torch.float32):
    """A module with parameters and statistics that are not 0 and 1, in evaluation, and an input of mean 3."""
    module, shape = NORMS[name]
    module = copy.deepcopy(module).to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module.eval(), (torch.randn(shape, generator=generator) * 2 + 3).to(dtype)


def close(result, expected, dtype):
    """Within what both may be off: 1e-5 in float32, a few units in the last place of half precision."""
    allowed = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(result, expected, rtol=allowed / 2, atol=allowed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_norms(name, dtype):
    if dtype == torch.bfloat16:
        pytest.importorskip("ml_dtypes")
    module, x = norm_of(name, dtype)
    with torch.inference_mode():
        expected = module(x)
        shown, state = repr(module), module.state_dict()
        assert accelerate(module) is module
        assert type(module).__module__ == "cpunorm.torch"
        assert (repr(module), list(module.state_dict())) == (shown, list(state))
        result = module(x)
    assert (result.dtype, result.stride()) == (expected.dtype, expected.stride())
    close(result, expected, dtype)


@pytest.mark.parametrize("name", NORMS)
def test_it_is_our_result(name):
    """Bit for bit that of the module of the same name on the same memory, so it does come from our kernels."""
    module, x = norm_of(name)
    kind = type(module).__name__
    arguments = (module.num_groups, module.num_channels) if kind == "GroupNorm" else ()
    arguments = arguments or (getattr(module, "num_features", getattr(module, "normalized_shape", None)),)
    options = {"affine": module.weight is not None} if kind[0] in "BIG" else {}
    options |= {"track_running_stats": module.track_running_stats} if kind[0] in "BI" else {}
    options |= {"elementwise_affine": module.weight is not None} if kind[0] in "LR" else {}
    options |= {"bias": module.bias is not None} if kind == "LayerNorm" else {}
    own = getattr(cpunorm, kind)(*arguments, eps=module.eps, **options).eval()
    own.load_state_dict(module.state_dict())
    with torch.no_grad():
        assert accelerate(module)(x).numpy().tobytes() == own(x.numpy()).tobytes()


def layouts():
    x = torch.arange(2 * 6 * 5 * 7, dtype=torch.float32).reshape(2, 6, 5, 7).sin()
    return {
        "contiguous": x,
        "channels_last": x.to(memory_format=torch.channels_last),
        "transposed": x.permute(2, 1, 3, 0),
        "every other": torch.cat([x, x], 3)[::1, :, :, ::2],
        "expanded": x[:1].expand(3, -1, -1, -1),
        "one pixel, channels_last": x[:, :, :1, :1].contiguous(memory_format=torch.channels_last),
        "one channel": x[:, :1].expand(-1, 6, -1, -1),
        "float16": x.half(),
        "empty": x[:0],
    }


@pytest.mark.parametrize("layout", layouts())
def test_operators(layout):
    """What compile and export believe of them is true: shape, dtype, strides, no aliasing."""
    x = layouts()[layout]
    w, b = torch.rand(6), torch.rand(6)
    positions = x.shape[2] * x.shape[3] > 1
    calls = {
        "batch_norm": (x, b, w, w, b, 1e-5),
        "instance_norm": (x, None, None, w, None, 1e-5) if positions else (x, b, w, w, b, 1e-5),
        "group_norm": (x, 2, None, b, 1e-5),
        "layer_norm": (x, [x.shape[-1]], None, None, 1e-5),
        "rms_norm": (x, list(x.shape[-2:]), None, None),
    }
    for name, arguments in calls.items():
        torch.library.opcheck(getattr(torch.ops.cpunorm, name).default, arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    network, x = NETWORKS[name]
    with torch.inference_mode():
        expected = network(x)
        fast = accelerate(copy.deepcopy(network))
        close(fast(x), expected, torch.float32)
    norms = [module for module in fast.modules() if "Norm" in type(module).__name__]
    assert norms
    assert {type(module).__module__ for module in norms} == {"cpunorm.torch"}


@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_and_exported(name):
    network, x = NETWORKS[name]
    fast = accelerate(copy.deepcopy(network))
    with torch.no_grad():
        expected = fast(x)
        compiled = torch.compile(fast, backend="aot_eager", fullgraph=True, dynamic=False)(x)
        exported = torch.export.export(fast, (x,))
    close(compiled, expected, torch.float32)
    assert torch.equal(exported.module()(x), expected)
    called = [str(node.target) for node in exported.graph.nodes if str(node.target).startswith("cpunorm")]
    norms = [module for module in fast.modules() if type(module).__module__ == "cpunorm.torch"]
    assert len(called) == len(norms)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++")
@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("name", ["U-Net blocks", "MiniLM"])
def test_compiled_by_inductor(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network, x = NETWORKS[name]
    fast = accelerate(copy.deepcopy(network))
    with torch.no_grad():
        close(torch.compile(fast, fullgraph=True)(x), network(x), torch.float32)


def test_dynamic_batches():
    network = accelerate(nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4), nn.BatchNorm1d(4)).eval())
    batch = torch.export.Dim("batch", min=2, max=64)
    with torch.no_grad():
        exported = torch.export.export(network, (torch.randn(5, 8),), dynamic_shapes=({0: batch},))
        x = torch.randn(9, 8)
        assert torch.equal(exported.module()(x), network(x))


def test_a_program_that_was_exported_is_saved_and_loaded():
    network = accelerate(nn.Sequential(nn.LayerNorm(4)).eval())
    file, x = io.BytesIO(), torch.randn(3, 4)
    with torch.no_grad():
        torch.export.save(torch.export.export(network, (x,)), file)
        file.seek(0)
        assert torch.equal(torch.export.load(file).module()(x), network(x))


def test_what_stays():
    """Parameters are the same objects, shared modules stay shared, hooks run, what is no norm of ours is left alone."""

    class Own(nn.LayerNorm):
        pass

    shared = nn.LayerNorm(4)
    model = nn.Sequential(shared, nn.Linear(4, 4), shared, Own(4), nn.Dropout()).eval()
    parameters, calls = list(model.parameters()), []
    shared.register_forward_hook(lambda *_: calls.append(1))
    accelerate(model)
    assert accelerate(model) is model  # twice is once
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert model[0] is model[2] is shared
    assert isinstance(shared, cpunorm.torch.LayerNorm)
    assert isinstance(shared, nn.LayerNorm)
    assert type(model[3]) is Own
    assert type(model[1]) is nn.Linear
    with torch.no_grad():
        x = torch.randn(2, 4)
        expected = model(x)
        assert len(calls) == 2
        model.load_state_dict(model.state_dict())
        assert torch.equal(model(x), expected)
        shared.weight.fill_(2.0)  # live, as torch's is
        shared.bias.fill_(1.0)
        assert shared(x).sum().item() == pytest.approx(8.0, abs=1e-5)


def test_pickle_and_deepcopy():
    module, x = norm_of("GroupNorm")
    accelerate(module)
    with torch.no_grad():
        for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
            assert type(twin) is cpunorm.torch.GroupNorm
            assert torch.equal(twin(x), module(x))


def test_training_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(RuntimeError, match=r"^1 is in training mode: call eval\(\)"):
        accelerate(model)
    assert type(model[1]) is nn.BatchNorm1d
    accelerate(model.eval()).train()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"BatchNorm1d was accelerated for inference: call eval"):
        model(torch.randn(3, 4))


@pytest.mark.parametrize("name", NORMS)
def test_gradients_are_refused(name):
    module, x = norm_of(name)
    accelerate(module)
    with pytest.raises(RuntimeError, match=r"no gradient.*inference_mode"):
        module(x.clone().requires_grad_())
    if list(module.parameters()):
        with pytest.raises(RuntimeError, match=r"no gradient.*inference_mode"):
            module(x)
    with torch.no_grad():
        module(x.clone().requires_grad_())
    module.requires_grad_(False)
    module(x)


def test_other_devices_are_refused():
    model = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4, device="meta")).eval()
    with pytest.raises(RuntimeError, match=r"^1 is on meta: call cpu\(\)"):
        accelerate(model)
    assert type(model[0]) is nn.LayerNorm
    with torch.no_grad(), pytest.raises(NotImplementedError, match=r"cpunorm::layer_norm.*SparseCPU"):
        accelerate(nn.LayerNorm(4).eval())(torch.ones(2, 4).to_sparse())


@pytest.mark.parametrize("value", [None, [nn.LayerNorm(4)], torch.ones(2), nn.LayerNorm])
def test_no_module(value):
    with pytest.raises(TypeError, match=re.escape(type(value).__name__)):
        accelerate(value)


def test_torch_rules_hold():
    module = accelerate(nn.BatchNorm2d(3).eval())
    with torch.no_grad():
        with pytest.raises(ValueError, match="4D"):
            module(torch.ones(2, 3))
        with pytest.raises(RuntimeError, match="3"):
            module(torch.ones(2, 5, 4, 4))


def test_it_is_imported_when_asked_for():
    assert (
        fresh.output("import cpunorm, sys; print('torch' in sys.modules, hasattr(cpunorm, 'torch'))") == "False False"
    )
    code = "import sys; sys.modules['torch'] = None\nimport cpunorm.torch"
    assert (
        fresh.error(code) == 'ModuleNotFoundError: cpunorm.torch needs torch; please run: pip install "cpunorm[torch]"'
    )


def test_example():
    """As its own script, small."""
    done = subprocess.run([sys.executable, str(PATH), "--small", "--turns", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[2:]
    assert [line[:18].strip() for line in lines] == [*NETWORKS, *example.trained()]
    assert all(float(line.split()[-1]) < 1e-5 for line in lines)
    assert all(np.isfinite([float(word) for word in line[18:].split()]).all() for line in lines)
