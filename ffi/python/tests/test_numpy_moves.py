"""Prepared tensors whose memory moves, or changes its type, between two steps: the bits of an undisturbed run, or an
error before anything is written.
"""

from __future__ import annotations

import copy
import ctypes
import pickle
import random
from typing import Any, Callable

import numpy
import pytest
from common import bits, random_array

from koala_optim import Settings
from koala_optim.numpy import Tensor, new_state, predict, step, step_many

ROLES = ("parameters", "gradient", "v", "h", "scalars")
LENGTH = 1000
NOW: dict[str, Any] = {"loss": 0.7, "noise": 0.5}


def new_arrays(seed: int, dtype: str = "float32") -> dict[str, Any]:
    parameters = random_array(seed, LENGTH, dtype)
    arrays = (parameters, random_array(seed + 1, LENGTH, dtype), *new_state(parameters))
    return dict(zip(ROLES, arrays))


def in_torch(arrays: dict[str, Any]) -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    return {name: torch.tensor(array) for name, array in arrays.items()}


def state_of(arrays: dict[str, Any]) -> bytes:
    # Of copies: what NumPy has looked at, PyTorch does not move any more.
    return bits(*(copy.deepcopy(arrays[name]) for name in ROLES))


# What moves an array of NumPy. Its elements stay what they are.


def set_state(array: Any) -> None:
    array.__setstate__(array.copy().__reduce__()[2])


def other_memory(array: Any) -> None:
    # NumPy 2.4 has no such setter any more.
    try:
        array.data = array.copy().data
    except (AttributeError, ValueError):
        pytest.skip("this NumPy does not move an array to other memory")


NUMPY_MOVES = [set_state, other_memory]

# What moves a tensor of PyTorch.


def share(tensor: Any) -> None:
    tensor.share_memory_()


def clone(tensor: Any) -> None:
    tensor.data = tensor.data.clone()


def unshared(tensor: Any) -> None:
    # PyTorch crashes where shared memory is resized.
    if tensor.is_shared():
        clone(tensor)


def enlarge(tensor: Any) -> None:
    unshared(tensor)
    length = tensor.numel()
    tensor.resize_(40 * LENGTH).resize_(length)


def enlarge_storage(tensor: Any) -> None:
    unshared(tensor)
    tensor.untyped_storage().resize_(40 * LENGTH * 8)


def free_and_fill(tensor: Any) -> None:
    unshared(tensor)
    saved, size = tensor.clone(), tensor.untyped_storage().nbytes()
    tensor.untyped_storage().resize_(0)
    tensor.untyped_storage().resize_(size)
    tensor.copy_(saved)


def set_storage(tensor: Any) -> None:
    tensor.set_(tensor.clone())


def shift(tensor: Any) -> None:
    # Into the middle of other memory.
    wide = tensor.new_zeros(tensor.numel() + 8)
    wide[3:-5] = tensor
    tensor.set_(wide[3:-5])


TORCH_MOVES = [share, clone, enlarge, enlarge_storage, free_and_fill, set_storage, shift]


def undisturbed(arrays: dict[str, Any]) -> None:
    step(**arrays, **NOW)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("move", [*NUMPY_MOVES, *TORCH_MOVES])
def test_memory_that_moves_is_followed(move: Callable[[Any], None], role: str) -> None:
    oracle, arrays = new_arrays(1), new_arrays(1)
    if move in TORCH_MOVES:
        arrays = in_torch(arrays)
    tensor = Tensor(**arrays)
    for _ in range(3):
        step_many([tensor], **NOW)
        undisturbed(oracle)
        assert state_of(arrays) == state_of(oracle)
        move(arrays[role])


@pytest.mark.parametrize("move", NUMPY_MOVES)
def test_bfloat16_that_moves_is_followed(move: Callable[[Any], None]) -> None:
    oracle, arrays = new_arrays(1, "bfloat16"), new_arrays(1, "bfloat16")
    tensor = Tensor(**arrays)
    for _ in range(3):
        step_many([tensor], **NOW)
        undisturbed(oracle)
        assert state_of(arrays) == state_of(oracle)
        move(arrays["parameters"])


def test_a_copy_that_moves_is_followed() -> None:
    arrays, rounded = new_arrays(1), numpy.zeros(LENGTH, "float16")
    tensor = Tensor(**arrays, copy=rounded)
    for _ in range(3):
        step_many([tensor], **NOW)
        assert bits(rounded) == bits(arrays["parameters"].astype("float16"))
        set_state(rounded)


@pytest.mark.parametrize("role", ROLES)
def test_an_array_that_is_lent_is_not_resized(role: str) -> None:
    oracle, arrays = new_arrays(1), new_arrays(1)
    tensor = Tensor(**arrays)
    for _ in range(3):
        step_many([tensor], **NOW)
        undisturbed(oracle)
        with pytest.raises(ValueError, match="cannot resize an array that"):
            arrays[role].resize(40 * LENGTH, refcheck=False)
        assert state_of(arrays) == state_of(oracle)
    del tensor
    arrays[role].resize(40 * LENGTH, refcheck=False)


def test_an_array_of_ctypes_that_moves_is_followed() -> None:
    oracle, arrays = new_arrays(1), new_arrays(1)
    theta = (ctypes.c_float * LENGTH)(*arrays["parameters"])
    tensor = Tensor(**{**arrays, "parameters": theta})
    for _ in range(3):
        step_many([tensor], **NOW)
        undisturbed(oracle)
        assert bytes(theta)[: 4 * LENGTH] == bits(oracle["parameters"])
        ctypes.resize(theta, 2 * ctypes.sizeof(theta))


@pytest.mark.parametrize("role", ROLES)
def test_an_array_that_may_not_be_written_any_more(role: str) -> None:
    arrays = new_arrays(1)
    tensor = Tensor(**arrays, exchange=True)
    # KOALA++ with weight decay exchanges nothing.
    tensor.settings = Settings(weight_decay=0.1)
    step_many([tensor], **NOW)
    arrays[role].flags.writeable = False
    before = state_of(arrays)
    with pytest.raises(ValueError, match=f'^tensor "0": {role} is not writable'):
        step_many([tensor], **NOW)
    assert state_of(arrays) == before
    arrays[role].flags.writeable = True
    step_many([tensor], **NOW)
    assert state_of(arrays) != before


def other_type(array: Any) -> None:
    array.dtype = "int32"


def shorter(array: Any) -> None:
    array.__setstate__(array[: LENGTH // 2].copy().__reduce__()[2])


def emptied(tensor: Any) -> None:
    tensor.untyped_storage().resize_(0)


def halved(tensor: Any) -> None:
    tensor.untyped_storage().resize_(tensor.nbytes // 2)


def other_type_of_torch(tensor: Any) -> None:
    tensor.data = tensor.data.double()


def reinterpreted(tensor: Any) -> None:
    import torch

    tensor.data = tensor.data.view(torch.int32)


def cut(tensor: Any) -> None:
    tensor.data = tensor.data[: LENGTH // 2]


def shrunken(tensor: Any) -> None:
    tensor.resize_(LENGTH // 2)


def spread(tensor: Any) -> None:
    tensor.data = tensor.new_zeros(2 * LENGTH)[::2]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (other_type, TypeError, "elements of int32, expected one of"),
        (shorter, ValueError, "has 1000 elements, the parameters 500"),
        (emptied, ValueError, "parameters has 1000 elements, and its storage 0 bytes"),
        (halved, ValueError, "parameters has 1000 elements, and its storage 2000 bytes"),
        (other_type_of_torch, TypeError, "gradient is of float32, the parameters of float64"),
        (reinterpreted, TypeError, "parameters has elements of 32 bits of DLPack's type 0"),
        (cut, ValueError, "has 1000 elements, the parameters 500"),
        (shrunken, ValueError, "has 1000 elements, the parameters 500"),
        (spread, ValueError, "parameters is not contiguous"),
    ],
)
def test_what_can_be_stepped_no_more(change: Callable[[Any], None], error: type[Exception], text: str) -> None:
    first, arrays = new_arrays(1), new_arrays(3)
    if change not in (other_type, shorter):
        arrays = in_torch(arrays)
    tensors = [Tensor(**first), Tensor(**arrays)]
    step_many(tensors, **NOW)
    change(arrays["parameters"])
    rest = {name: array for name, array in arrays.items() if name != "parameters"}
    before = copy.deepcopy([*first.values(), *rest.values()])
    for _ in range(2):
        with pytest.raises(error, match=f'^tensor "1": .*{text}'):
            step_many(tensors, **NOW)
        assert bits(*first.values(), *rest.values()) == bits(*before)


def test_storage_that_is_too_small_at_once() -> None:
    arrays = in_torch(new_arrays(1))
    halved(arrays["h"])
    with pytest.raises(ValueError, match="^h has 1000 elements, and its storage 2000 bytes"):
        step(**arrays, **NOW)


def test_a_gradient_of_jax_that_is_deleted() -> None:
    jax = pytest.importorskip("jax")
    arrays = new_arrays(1)
    gradient = jax.numpy.asarray(arrays["gradient"])
    tensor = Tensor(**{**arrays, "gradient": gradient})
    step_many([tensor], **NOW)
    gradient.delete()
    before = state_of(arrays)
    with pytest.raises(ValueError, match='^tensor "0": gradient is an array of JAX that has been deleted'):
        step_many([tensor], **NOW)
    assert state_of(arrays) == before


def test_a_prediction_follows_too() -> None:
    from koala_optim import KoalaM

    results = []
    for move in (lambda array: None, set_state):
        arrays = new_arrays(1)
        tensor, method = Tensor(**arrays), KoalaM()
        for _ in range(3):
            method = predict([tensor], method)
            move(arrays["parameters"])
            method = method.corrected(step_many([tensor], **NOW, method=method).gain)
            move(arrays["v"])
        results.append(state_of(arrays))
    assert results[0] == results[1]


# At random.


class Pair:
    """A tensor that is prepared once and disturbed, and arrays of its own to the same end, stepped one by one."""

    def __init__(self, seed: int, torch: bool) -> None:
        self.oracle = new_arrays(seed)
        self.torch = torch
        self.settings = Settings()
        arrays = new_arrays(seed)
        self.tensor = Tensor(**(in_torch(arrays) if torch else arrays))

    def step(self) -> None:
        step(**self.oracle, **NOW, settings=self.settings)

    def agrees(self) -> bool:
        return state_of({name: getattr(self.tensor, name) for name in ROLES}) == state_of(self.oracle)


def edit(pair: Pair, draw: random.Random) -> None:
    """One of all that a program may do between two steps."""
    role = draw.choice(ROLES)
    array = getattr(pair.tensor, role)
    moves = TORCH_MOVES if pair.torch else NUMPY_MOVES[:1]
    kind = draw.randrange(9)
    if kind < 3:
        draw.choice(moves)(array)
    elif kind == 3:
        setattr(pair.tensor, role, copy.deepcopy(array))
    elif kind == 4:
        pair.tensor = draw.choice([copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])(pair.tensor)
    elif kind == 5:
        pair.settings = pair.tensor.settings = Settings(learning_rate=draw.random())
    elif kind == 6:
        pair.oracle["scalars"][:] = 0
        pair.tensor.scalars[:] = 0  # type: ignore[index]
    elif kind == 7:
        gradient = random_array(draw.randrange(1000), LENGTH)
        pair.oracle["gradient"][:] = gradient
        pair.tensor.gradient[:] = in_torch({"g": gradient})["g"] if pair.torch else gradient  # type: ignore[index]
    else:
        # Others take the places of the two.
        for name in ("v", "h"):
            moves[0](getattr(pair.tensor, name))


@pytest.mark.parametrize("torch", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("seed", range(8))
def test_edits_at_random_do_not_change_a_bit(seed: int, torch: bool) -> None:
    draw = random.Random(seed)
    pairs = [Pair(10 * place, torch) for place in range(5)]
    for _ in range(40):
        stepped = draw.sample(pairs, draw.randrange(6))
        step_many([pair.tensor for pair in stepped], **NOW)
        for pair in stepped:
            pair.step()
        assert all(pair.agrees() for pair in pairs)
        for _ in range(draw.randrange(4)):
            edit(draw.choice(pairs), draw)
