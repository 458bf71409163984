"""The server's optimizers against plain whole-vector float64, the order of sums, and traps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from hiso_ray.server import optimizers

D = optimizers._SLICE + 321  # more than one slice, and a short one
LR, BETA1, BETA2, EPS = 0.1, 0.9, 0.99, 1e-3
PLAIN = {"lr": LR, "beta1": BETA1, "beta2": BETA2, "eps": EPS}


def normal(seed: int, d: int = D, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(d)).astype(np.float32)


def plain(optimizer: str, x0: np.ndarray, updates: list[np.ndarray], beta1: float) -> np.ndarray:
    """Algorithm 2 of arXiv 2003.00295 on whole float64 vectors."""
    x = x0.astype(np.float64)
    m, v = np.zeros_like(x), np.full_like(x, EPS**2)
    for delta in (update.astype(np.float64) for update in updates):
        if optimizer == "sgd":
            x = x + LR * delta
            continue
        m = beta1 * m + (1 - beta1) * delta
        v = {
            "adam": BETA2 * v + (1 - BETA2) * delta**2,
            "yogi": v - (1 - BETA2) * delta**2 * np.sign(v - delta**2),
            "adagrad": v + delta**2,
        }[optimizer]
        x = x + LR * m / (np.sqrt(v) + EPS)
    return x


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
@pytest.mark.parametrize("beta1", [0.0, BETA1])
def test_step_agrees_with_the_plain_algorithm(optimizer: str, beta1: float) -> None:
    # Deltas about as large as τ, so that every term of the denominator counts.
    x0, updates = normal(0), [normal(1 + r, scale=2e-3 / (1 + r)) for r in range(4)]
    before = [update.copy() for update in updates]
    state = optimizers.initial(optimizer, x0, EPS)
    for update in updates:
        update.flags.writeable = False
        optimizers.step(state, update, optimizer, **PLAIN | {"beta1": beta1})
    moved = plain(optimizer, x0, updates, beta1) - x0
    np.testing.assert_allclose(state.x - x0, moved, rtol=1e-3, atol=1e-6)
    assert np.abs(moved).mean() > 1e-4, "nothing was tested"
    assert state.round == 4
    for update, old in zip(updates, before, strict=True):
        np.testing.assert_array_equal(update, old)
    assert {a.dtype for a in optimizers.tensors(state).values()} == {np.dtype(np.float32)}


def test_the_first_step_of_adam_has_no_bias_correction() -> None:
    # Δ = 0.1: m = 0.01, v = 0.99·1e-6 + 0.01·0.01 = 1.0099e-4, √v = 0.01004938,
    # x = 0.1 · 0.01 / (0.01004938 + 0.001) = 0.09050277. Corrected, it would be 0.1·0.1/0.1015.
    state = optimizers.initial("adam", np.zeros(1, np.float32), EPS)
    optimizers.step(state, np.array([0.1], np.float32), "adam", **PLAIN)
    assert state.x.item() == pytest.approx(0.09050277, rel=1e-5)


def test_v_of_yogi_follows_the_sign_where_v_of_adam_follows_the_ratio() -> None:
    # v = 1, β2 = 0.75. Δ² = 4 > v: yogi 1 + 0.25·4 = 2, adam 0.75 + 0.25·4 = 1.75.
    # Δ² = 0.25 < v: yogi 1 - 0.25·0.25 = 0.9375, adam 0.75 + 0.0625 = 0.8125.
    # Δ² = v: yogi keeps v, and so does adam. Δ = 0: yogi keeps v, adam forgets to 0.75.
    delta = np.array([-2.0, 0.5, 1.0, 0.0], np.float32)
    expected = {"yogi": [2.0, 0.9375, 1.0, 1.0], "adam": [1.75, 0.8125, 1.0, 0.75]}
    for optimizer, v in expected.items():
        state = optimizers.initial(optimizer, np.zeros(4, np.float32), 1.0)
        optimizers.step(state, delta, optimizer, lr=1.0, beta1=0.5, beta2=0.75, eps=1.0)
        assert state.v is not None
        assert state.v.tolist() == v


def test_the_state_holds_only_what_the_optimizer_needs() -> None:
    def held(optimizer: str, beta1: float) -> set[str]:
        state = optimizers.initial(optimizer, normal(0, 9), EPS)
        optimizers.step(state, normal(1, 9), optimizer, **PLAIN | {"beta1": beta1})
        return set(optimizers.tensors(state))

    assert held("sgd", 0.9) == {"x"}
    assert held("adagrad", 0.0) == {"x", "v"}
    assert held("adagrad", 0.9) == held("adam", 0.9) == held("yogi", 0.9) == {"x", "m", "v"}


def test_the_server_owns_its_weights() -> None:
    x0, update = normal(0, 50), normal(1, 50)
    state = optimizers.initial("adagrad", x0, EPS)
    optimizers.step(state, update, "adagrad", **PLAIN | {"beta1": 0.0})
    np.testing.assert_array_equal(x0, normal(0, 50))
    for array in optimizers.tensors(state).values():
        assert not np.shares_memory(array, x0)
        assert not np.shares_memory(array, update)


@pytest.mark.parametrize("optimizer", optimizers.OPTIMIZERS)
def test_a_loaded_state_goes_on_with_the_same_bits(optimizer: str) -> None:
    updates = [normal(r, 40, 0.01) for r in range(4)]
    straight = optimizers.initial(optimizer, normal(9, 40), EPS)
    resumed = optimizers.initial(optimizer, normal(9, 40), EPS)
    for r, update in enumerate(updates):
        saved = optimizers.tensors(resumed)
        resumed = optimizers.restored(optimizer, saved, r)
        assert not any(
            np.shares_memory(a, saved[n]) for n, a in optimizers.tensors(resumed).items()
        )
        for state in (straight, resumed):
            optimizers.step(state, update, optimizer, **PLAIN)
    assert straight.round == resumed.round == 4
    for name, array in optimizers.tensors(straight).items():
        np.testing.assert_array_equal(array, optimizers.tensors(resumed)[name])


@pytest.mark.parametrize("m", [1, 2, 15, 16, 17, 31, 32, 33, 50, 100, 161, 1000, 4097])
def test_chunks_cover_the_cohort_in_order_and_evenly(m: int) -> None:
    cohort = list(range(3, 3 + 2 * m, 2))
    parts = optimizers.chunks(np.array(cohort))
    assert [client for part in parts for client in part] == cohort
    assert all(type(client) is int for part in parts for client in part)
    largest = -(-m // 16)
    assert len(parts) <= 16
    assert max(map(len, parts)) == largest
    assert min(map(len, parts)) >= max(1, largest - 1)
    other = optimizers.chunks(range(m))
    assert [len(part) for part in other] == [len(part) for part in parts]


def test_an_empty_cohort_has_no_chunks() -> None:
    assert optimizers.chunks([]) == []


def deltas(cohort: range) -> dict[int, np.ndarray]:
    """Weighted deltas of very different sizes, whose float32 sum depends on every bracket."""
    made = {i: normal(i, scale=10.0 ** (i % 7 - 3)) for i in cohort}
    for delta in made.values():
        delta[:10] = -0.0  # 0 + (-0) is +0, so a sum must not start from zeros
    return made


def test_the_mean_has_the_same_bits_however_the_chunks_were_summed() -> None:
    cohort = range(5, 45)
    own, parts = deltas(cohort), optimizers.chunks(cohort)
    whole = {chunk[0]: optimizers.add_up(own[i] for i in chunk) for chunk in parts}
    mixed = {i: own[i] for chunk in parts[::2] for i in chunk}
    mixed |= {chunk[0]: whole[chunk[0]] for chunk in parts[1::2]}
    backwards = dict(reversed(own.items()))
    for array in own.values():
        array.flags.writeable = False

    expected = optimizers.weighted_mean(whole, parts, 40.0)
    for way in (own, mixed, backwards):
        assert optimizers.weighted_mean(way, parts, 40.0).tobytes() == expected.tobytes()
    assert np.signbit(expected[:10]).all()

    flat = optimizers.add_up(own.values()) / np.float32(40)
    assert flat.tobytes() != expected.tobytes(), "the order did not matter: nothing was tested"
    exact = np.mean(np.stack(list(own.values())).astype(np.float64), 0)
    np.testing.assert_allclose(expected, exact, rtol=1e-3, atol=1e-3)
    assert expected.dtype == np.float32


def test_the_mean_is_divided_by_the_weights_and_is_new_memory() -> None:
    # Client 1 holds 3 examples and client 4 holds 1: (3·2 + 1·6) / 4 = 3.
    parts = {1: np.full(5, 6, np.float32), 4: np.full(5, 6, np.float32)}
    mean = optimizers.weighted_mean(parts, [(1,), (4,)], 4.0)
    assert mean.tolist() == [3.0] * 5
    alone = optimizers.weighted_mean({1: parts[1]}, [(1,)], 1.0)
    alone += 1
    assert parts[1].tolist() == [6.0] * 5


def test_a_missing_or_foreign_delta_is_not_left_out_silently() -> None:
    one = np.ones(3, np.float32)
    with pytest.raises(AssertionError, match="neither"):
        optimizers.weighted_mean({2: one}, [(1, 2)], 2.0)
    with pytest.raises(AssertionError, match="neither"):
        optimizers.weighted_mean({1: one, 2: one}, [(1, 2, 3)], 3.0)
    with pytest.raises(AssertionError, match="outside"):
        optimizers.weighted_mean({1: one, 9: one}, [(1,)], 1.0)


def test_bad_input_is_named() -> None:
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"'adamw'.*sgd, adam, yogi, adagrad"):
        optimizers.initial("adamw", x, EPS)
    with pytest.raises(ValueError, match=r"eps is 0.*above 0"):
        optimizers.initial("adam", x, 0)
    with pytest.raises(ValueError, match=r"adam holds \['v', 'x'\]"):
        optimizers.restored("adam", {"x": x}, 3)
    with pytest.raises(ValueError, match="another method"):
        optimizers.restored("sgd", {"x": x, "h": x}, 3)
    with pytest.raises(ValueError, match="one shape"):
        optimizers.restored("yogi", {"x": x, "v": x[:2]}, 3)


def test_the_server_needs_no_torch() -> None:
    code = "import sys, hiso_ray.server.optimizers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
