"""FrozenBatchNorm2d is BatchNorm2d in evaluation, whatever its flag says, with torchvision's keys and repr."""

import copy
import io
import pickle

import hypothesis
import numpy as np
import oracle
import pytest
from hypothesis import strategies as st
from norms import SCALE, affine, running, values

import cpunorm

KEYS = ["weight", "bias", "running_mean", "running_var"]


def checkpoint(channels):
    """What a BatchNorm2d had learned of `values`."""
    return dict(zip(KEYS, (*affine(channels), *running(channels)), strict=True))


def loaded(channels, **options):
    norm = cpunorm.FrozenBatchNorm2d(channels, **options)
    norm.load_state_dict(checkpoint(channels))
    return norm


def torchvision_forward(torch, x, weight, bias, mean, var, eps):
    """The lines of torchvision.ops.FrozenBatchNorm2d.forward, in float64."""
    w, b, rm, rv = (torch.from_numpy(v).double().reshape(1, -1, 1, 1) for v in (weight, bias, mean, var))
    scale = w * (rv + eps).rsqrt()
    return (torch.from_numpy(x).double() * scale + (b - rm * scale)).numpy()


@hypothesis.given(
    st.tuples(*[st.integers(0, 4)] * 4),
    st.sampled_from([1e-5, 0.0, 3.0]),
    st.sampled_from(["channels_first", "channels_last"]),
    st.booleans(),
)
def test_values(engine, shape, eps, data_format, training):
    torch = pytest.importorskip("torch")
    x = values(shape)
    norm = loaded(shape[1], eps=eps, data_format=data_format).train(training)
    expected = oracle.batch_norm(x, *affine(shape[1]), eps, running(shape[1]))
    given_x = x if data_format == "channels_first" else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    y = norm(given_x)
    y = y if data_format == "channels_first" else np.moveaxis(y, -1, 1)
    assert (np.abs(y - expected) <= oracle.bound(expected, np.float32, 1.5, 1.0)).all()
    np.testing.assert_allclose(y, torchvision_forward(torch, x, *checkpoint(shape[1]).values(), eps), atol=1e-5)
    for name, value in checkpoint(shape[1]).items():
        np.testing.assert_array_equal(getattr(norm, name), value)


def test_bits_and_checkpoint_of_batch_norm(engine):
    trained = cpunorm.BatchNorm2d(6)
    x = values((2, 6, 4, 5))
    trained(x)
    state = trained.state_dict(prefix="layer.") | {"other.weight": np.ones(3)}
    frozen = cpunorm.FrozenBatchNorm2d(6)
    keys = frozen.load_state_dict(state, prefix="layer.")
    assert keys == ([], [])
    assert list(state) == [f"layer.{key}" for key in (*KEYS, "num_batches_tracked")] + ["other.weight"]
    np.testing.assert_array_equal(frozen(x), trained.eval()(x))
    out = np.empty_like(x)
    assert frozen(x, out=out) is out
    np.testing.assert_array_equal(out, frozen(x))


def test_state_dict():
    norm = cpunorm.FrozenBatchNorm2d(3)
    state = norm.state_dict()
    assert list(state) == KEYS
    for name, value in zip(KEYS, (1, 0, 0, 1), strict=True):
        np.testing.assert_array_equal(state[name], np.full(3, value, np.float32), strict=True)
    norm = loaded(3)
    norm.reset_parameters()
    for name in KEYS:
        np.testing.assert_array_equal(getattr(norm, name), state[name])
    assert norm.load_state_dict(checkpoint(3) | {"num_batches_tracked": 3, "more": 1}, strict=False) == ([], ["more"])
    with pytest.raises(RuntimeError, match=r"unexpected keys: more$"):
        norm.load_state_dict(checkpoint(3) | {"num_batches_tracked": np.array(3), "more": np.ones(1)})
    with pytest.raises(RuntimeError, match=r"unexpected keys: layer\.num_batches_tracked"):
        norm.load_state_dict(checkpoint(3) | {"layer.num_batches_tracked": np.array(1)})
    with pytest.raises(RuntimeError, match=r"missing keys: running_var"):
        norm.load_state_dict({k: v for k, v in checkpoint(3).items() if k != "running_var"})
    with pytest.raises(TypeError, match="mapping, got list"):
        norm.load_state_dict([])
    file = io.BytesIO()
    np.savez(file, num_batches_tracked=3, **checkpoint(3))
    file.seek(0)
    assert norm.load_state_dict(np.load(file)) == ([], [])
    np.testing.assert_array_equal(norm.running_mean, running(3)[0])


def test_reads_its_own_part_of_a_checkpoint_alone():
    class Checkpoint(dict):
        def __getitem__(self, key):
            assert key.startswith("layer.")
            return super().__getitem__(key)

    state = Checkpoint({f"layer.{key}": value for key, value in checkpoint(3).items()})
    state |= {"layer.num_batches_tracked": np.array(1), "other.weight": np.ones(3)}
    assert cpunorm.FrozenBatchNorm2d(3).load_state_dict(state, prefix="layer.") == ([], [])


def test_a_checkpoint_of_torch():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm2d(6).train()
    x = values((4, 6, 3, 3)) / SCALE
    theirs(torch.from_numpy(x))
    ours = cpunorm.FrozenBatchNorm2d(6)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    with torch.no_grad():
        np.testing.assert_allclose(ours(x), theirs.eval()(torch.from_numpy(x)).numpy(), rtol=1e-5)


def test_copies_and_repr():
    norm = loaded(4, eps=1e-3)
    assert repr(norm) == "FrozenBatchNorm2d(4, eps=0.001)"  # as torchvision's
    x = values((1, 4, 2, 2))
    for twin in (copy.copy(norm), copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        np.testing.assert_array_equal(twin(x), norm(x))


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: cpunorm.FrozenBatchNorm2d(3)(np.ones((2, 3, 4), np.float32)), ValueError, r"4-D .*\(2, 3, 4\)"),
        (lambda: cpunorm.FrozenBatchNorm2d(3)([1.0]), TypeError, "FrozenBatchNorm2d: input .*list"),
        (lambda: cpunorm.FrozenBatchNorm2d(3)(np.ones((1, 4, 1, 1), np.float32)), RuntimeError, "4 elements"),
        (lambda: cpunorm.FrozenBatchNorm2d(3, -1.0)(np.ones((1, 3, 1, 1), np.float32)), ValueError, "-1.0"),
        (lambda: cpunorm.FrozenBatchNorm2d(-1), RuntimeError, "num_features .*-1"),
        (lambda: cpunorm.FrozenBatchNorm2d(3.0), TypeError, "3.0"),
    ],
    ids=range(6),
)
def test_refused(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make()
    assert type(caught.value) is error
