"""The logistic head is scikit-learn's regression, whatever the scale of the features."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.data.tasks import Fit, logistic


def digits(classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    data = load_digits()
    chosen = data.target < classes
    # Features of very different scales, as those of a stranger's network may be.
    scales = np.logspace(-3, 3, data.data.shape[1])
    return (data.data[chosen] * scales).astype(np.float32), data.target[chosen]


def fitted(
    features: NDArray[np.float32], labels: NDArray[np.int64], seed: int = 0
) -> logistic.Fitted:
    classes = int(labels.max()) + 1
    return logistic.fit(features, labels, Fit(classes, seed, 2))


@pytest.mark.parametrize("classes", [2, 5])
def test_probabilities_are_those_of_scikit_learn(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-9)
    features, labels = digits(classes)
    half = len(labels) // 2
    model = fitted(features[:half], labels[:half])
    assert model.weights.shape == (64, classes)
    assert model.biases.shape == (classes,)
    expected = make_pipeline(
        StandardScaler(), LogisticRegression(C=model.strength, tol=1e-9, max_iter=50_000)
    ).fit(features[:half].astype(np.float64), labels[:half])
    actual = softmax(features[half:] @ model.weights + model.biases, axis=1)
    np.testing.assert_allclose(actual, expected.predict_proba(features[half:]), atol=1e-4)
    assert (actual.argmax(axis=1) == labels[half:]).mean() > 0.95


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_loss_is_at_most_that_of_scikit_learn(classes: int, balanced: bool) -> None:
    features, labels = digits(classes)
    rows = np.flatnonzero((labels > 0) | (np.arange(len(labels)) % 3 == 0))  # one class is rarer
    features, labels = (
        StandardScaler().fit_transform(features)[rows].astype(np.float32),
        labels[rows],
    )
    weight = len(labels) / classes / np.bincount(labels)[labels] if balanced else 1.0

    def loss(odds: NDArray[np.float64], weights: NDArray[np.float64], strength: float) -> float:
        own = log_softmax(odds, axis=1)[np.arange(len(labels)), labels]
        return float(0.5 / strength * (weights**2).sum() - (weight * own).sum())

    model = logistic.fit(features, labels, Fit(classes, 0, 2, balanced))
    scaler = StandardScaler().fit(features.astype(np.float64))
    standard = scaler.transform(features.astype(np.float64))
    oracle = LogisticRegression(
        C=model.strength, class_weight="balanced" if balanced else None, max_iter=5000
    ).fit(standard, labels)
    odds = oracle.decision_function(standard)
    if classes == 2:
        odds = np.stack([0 * odds, odds], axis=1)
    actual = loss(
        features @ model.weights + model.biases,
        model.weights * scaler.scale_[:, None],
        model.strength,
    )
    assert actual <= loss(odds, oracle.coef_, model.strength) + 1e-9


def test_the_strength_is_that_with_the_lowest_loss_on_images_left_out() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=90)
    noise = rng.normal(size=(90, 200)).astype(np.float32)
    held = fitted(noise, labels).strength
    assert held <= 1e-2, "nothing can be learnt"
    easy = noise.copy()
    easy[:, :3] += 8 * np.eye(3, dtype=np.float32)[labels]
    assert fitted(easy, labels).strength > held


@pytest.mark.parametrize("noise", [0.0, 3.0, 30.0])
def test_the_search_ends_where_trying_every_strength_does(noise: float) -> None:
    features, labels = digits(5)
    features = StandardScaler().fit_transform(features[:300])
    features += np.random.default_rng(0).normal(scale=noise, size=features.shape)
    features = StandardScaler().fit_transform(features)
    problem = logistic._Problem(features, labels[:300], 5, balanced=False)
    scores = [
        LogisticRegressionCV(
            Cs=[strength],
            l1_ratios=(0.0,),
            cv=problem.folds(0),
            scoring="neg_log_loss",
            max_iter=5000,
            use_legacy_attributes=False,
        )
        .fit(features, labels[:300])
        .scores_.mean()
        for strength in logistic.STRENGTHS
    ]
    best = np.max(scores)
    actual, losses, _ = logistic._chosen(problem, 0)
    assert scores[list(logistic.STRENGTHS).index(actual)] >= 1.02 * best, "as good, they are < 0"
    assert losses.shape == (3,)


def test_the_same_seed_gives_the_same_weights() -> None:
    features, labels = digits(4)
    item, two = fitted(features, labels), fitted(features, labels)
    assert item.weights.tobytes() == two.weights.tobytes()
    assert item.biases.tobytes() == two.biases.tobytes()


def test_a_class_with_one_image_is_fitted_all_the_same() -> None:
    features, labels = digits(3)
    first = [int(np.flatnonzero(labels == 2)[0])]
    rows = np.concatenate([np.flatnonzero(labels < 2)[:40], first])
    model = fitted(features[rows], labels[rows])
    assert len(model.losses) == 0
    assert np.isfinite(model.weights).all()


def test_features_that_are_all_the_same_do_no_harm() -> None:
    features, labels = digits(3)
    constant = np.hstack([features, np.ones((len(features), 2), np.float32)])
    assert np.isfinite(fitted(constant, labels).weights).all()
