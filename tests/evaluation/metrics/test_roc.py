import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfadv.evaluation.metrics.roc import area_under, roc_curve


@pytest.mark.parametrize("decimals", [9, 0], ids=["distinct scores", "equal scores"])
@pytest.mark.parametrize("is_weighted", [True, False])
def test_the_area_is_scikit_learns(decimals, is_weighted):
    random = np.random.default_rng(0)
    genuine = np.sort(random.normal(1.0, 2.0, 60).round(decimals))
    impostor = np.sort(random.normal(0.0, 2.0, 200).round(decimals))
    weights = random.uniform(0.1, 5.0, 60) if is_weighted else np.ones(60)
    expected = roc_auc_score(
        np.repeat([1, 0], [60, 200]),
        np.concatenate([genuine, impostor]),
        sample_weight=np.concatenate([weights, np.ones(200)]),
    )
    assert area_under(*roc_curve(genuine, impostor, weights)) == pytest.approx(expected, abs=1e-12)


def test_the_curve_rises_from_0_to_1():
    for rates in roc_curve(np.array([0.0, 1.0, 3.0]), np.array([-1.0, 1.0]), np.ones(3)):
        assert (rates[0], rates[-1]) == (0.0, 1.0)
        assert (np.diff(rates) >= 0).all()
