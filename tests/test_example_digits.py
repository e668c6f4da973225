"""The network that reads digits: its hand-written gradients and its scores are torch's, and it prints what is true."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.py"


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip('sklearn is not installed: pip install "cpunorm[examples]"')
    spec = importlib.util.spec_from_file_location("digits", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_network(torch, network, strides):
    """The same network in torch, in training, before the features are flattened as (N, H, W, C)."""
    layers = []
    for conv, norm, stride in zip(network.convs, network.norms, strides, strict=True):
        convolution = torch.nn.Conv2d(conv.shape[1], len(conv), 3, stride, padding=1, bias=False)
        convolution.load_state_dict({"weight": torch.from_numpy(conv)})
        batch_norm = torch.nn.BatchNorm2d(len(conv))
        batch_norm.load_state_dict({name: torch.from_numpy(value) for name, value in norm.state_dict().items()})
        layers += [convolution, batch_norm, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


def torch_scores(torch, layers, weight, bias, scans):
    features = layers(torch.from_numpy(scans).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return torch.nn.functional.linear(features.flatten(1), weight, bias)


def test_gradients_are_those_of_torch(example):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    network = example.untrained(rng)
    for norm in network.norms:
        norm.weight[:], norm.bias[:] = rng.uniform(0.5, 2, len(norm.weight)), rng.standard_normal(len(norm.bias))
    scans, target = (array[:16] for array in example.digits())
    layers = torch_network(torch, network, example.STRIDES)
    weight, bias = (torch.from_numpy(v.copy()).requires_grad_() for v in (network.weight, network.bias))
    scores = torch_scores(torch, layers, weight, bias, scans)
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(target)).backward()
    parameters = [weight, bias]
    for convolution, norm in ((layers[i], layers[i + 1]) for i in (6, 3, 0)):
        parameters += [norm.bias, norm.weight, convolution.weight]
    ours = list(example.gradients(network, scans, target))
    for (parameter, gradient), theirs in zip(ours, parameters, strict=True):
        np.testing.assert_array_equal(parameter, theirs.detach().numpy())
        largest = theirs.grad.abs().max().item()
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=0, atol=1e-4 * largest)
    for norm, theirs in zip(network.norms, layers[1::3], strict=True):
        np.testing.assert_allclose(norm.running_var, theirs.running_var.numpy(), rtol=1e-4)


def test_scores_are_those_of_torch(engine, example):
    torch = pytest.importorskip("torch")
    network, scans = example.train(), example.digits()[0][example.TRAINED :]
    layers = torch_network(torch, network, example.STRIDES).eval()
    with torch.inference_mode():
        expected = torch_scores(torch, layers, *map(torch.from_numpy, (network.weight, network.bias)), scans).numpy()
    np.testing.assert_allclose(example.predict(network, scans), expected, rtol=0, atol=1e-4)
    folded = example.predict_folded(network, example.fold(network), scans)
    np.testing.assert_allclose(folded, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_prints_what_is_true(example):
    warnings = ["-W", "error:::__main__", "-W", "error::RuntimeWarning"]
    done = subprocess.run([sys.executable, *warnings, str(EXAMPLE)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    network, (scans, target) = example.train(), example.digits()
    right = np.mean(example.predict(network, scans[example.TRAINED :]).argmax(axis=1) == target[example.TRAINED :])
    shown = [float(share) for share in re.findall(r"([0-9.]+)% +[0-9.]+ ms", done.stdout)]
    assert shown == pytest.approx([100 * right] * 2, abs=0.5)  # a run elsewhere may differ by a scan or two
    assert min(shown) > 93
    (difference,) = re.findall(r"^the same digits; largest difference of a score (\S+) of", done.stdout, re.MULTILINE)
    assert 0 < float(difference) < 1e-4


@pytest.mark.parametrize("module", ["sklearn", pytest.param("threadpoolctl", marks=pytest.mark.slow)])
def test_a_missing_package_is_named_with_its_remedy(module):
    pytest.importorskip("sklearn")  # which is asked for first
    hide = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run([sys.executable, "-P", "-c", hide, str(EXAMPLE)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert re.fullmatch(rf'{module}\S* is not installed; please run: pip install "cpunorm\[examples\]"\n', done.stderr)
