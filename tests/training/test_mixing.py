"""Mixtures: partners within the batch, one share for examples, labels and weights."""

import numpy as np

from pipeline.training import mixing


def drawn(alpha: float, seed: int = 0) -> list[tuple[object, ...]]:
    inputs = np.arange(12, dtype=np.float32).reshape(6, 2)
    labels = np.eye(6, dtype=np.float32)
    weights = np.arange(6, dtype=np.float32)
    batches = [(inputs, labels, weights)] * 3
    return list(mixing.mixed(batches, alpha, np.random.default_rng(seed)))


def test_labels_and_weights_are_mixed_as_the_inputs_will_be() -> None:
    shares = []
    for (inputs, partners, share), labels, weights in drawn(0.4):
        assert inputs.shape == (6, 2)
        assert sorted(partners) == list(range(6))
        assert 0 <= share <= 1
        np.testing.assert_allclose(
            labels, share * np.eye(6) + (1 - share) * np.eye(6)[partners], rtol=1e-6
        )
        np.testing.assert_allclose(
            weights, share * np.arange(6) + (1 - share) * partners, rtol=1e-6
        )
        shares.append(share)
    assert len(set(shares)) == 3, "each batch has a share of its own"


def test_without_alpha_nothing_changes() -> None:
    for inputs, labels, weights in drawn(0.0):
        np.testing.assert_array_equal(inputs, np.arange(12).reshape(6, 2))
        np.testing.assert_array_equal(labels, np.eye(6))
        np.testing.assert_array_equal(weights, np.arange(6))


def test_the_same_generator_draws_the_same() -> None:
    one, two, other = drawn(0.4), drawn(0.4), drawn(0.4, seed=1)
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first[1], second[1])
    assert any((first[1] != second[1]).any() for first, second in zip(one, other, strict=True))
