import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from tfadv.evaluation.tsne import combined, embed, separation


def make_features(count=300, distance=0.0, seed=0, dimensions=8):
    """Features whose first two dimensions lie `distance` apart with Eyeglasses and with Smiling."""
    random = np.random.default_rng(seed)
    labels = {name: random.integers(0, 2, count) for name in ("Eyeglasses", "Smiling")}
    features = random.normal(size=(count, dimensions))
    features[:, :2] += distance * np.stack(list(labels.values()), axis=1)
    return features.astype(np.float32), labels


def test_classes_far_apart_lie_apart_in_the_plane():
    features, labels = make_features(distance=30.0)
    classes, _ = combined(labels)
    points = embed(features, seed=0)
    assert points.shape == (300, 2)
    near = KNeighborsClassifier(5).fit(points[::2], classes[::2])
    assert near.score(points[1::2], classes[1::2]) > 0.98


def test_a_seed_gives_the_same_points_again_whatever_the_scale():
    features, _ = make_features()
    points = embed(features, seed=3)
    np.testing.assert_array_equal(embed(features, seed=3), points)
    np.testing.assert_array_equal(embed(features * np.float32(1024), seed=3), points)
    constant = np.full((300, 2), [0.0, 1e6], np.float32)
    np.testing.assert_array_equal(embed(np.hstack([features, constant]), seed=3), points)


@pytest.mark.parametrize("shape", [(4, 3), (30, 1), (12, 2, 2, 3), (80, 60)])
def test_few_images_single_dimensions_and_maps_can_be_placed(shape):
    points = embed(np.random.default_rng(0).normal(size=shape).astype(np.float32), seed=0)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()


def test_combinations_of_attributes_are_classes():
    classes, names = combined({"Eyeglasses": [0, 0, 1, 1], "Smiling": [0, 1, 0, 1]})
    assert classes.tolist() == [0, 1, 2, 3]
    assert names == [
        "no Eyeglasses, no Smiling",
        "no Eyeglasses, Smiling",
        "Eyeglasses, no Smiling",
        "Eyeglasses, Smiling",
    ]


def test_an_attribute_in_the_features_is_predicted_and_another_is_not():
    features, labels = make_features(600, distance=8.0)
    labels["Male"] = np.random.default_rng(1).integers(0, 2, 600)
    found = separation(features, labels, seed=0)
    assert found["balanced_accuracy/Eyeglasses"] > 0.98
    assert found["balanced_accuracy/Smiling"] > 0.98
    assert found["balanced_accuracy/Male"] == pytest.approx(0.5, abs=0.07)
    assert found["left_out"] == []
    assert separation(features, labels, seed=0) == found


def test_the_silhouette_is_scikit_learns_on_standardised_features():
    features, labels = make_features(distance=4.0)
    expected = silhouette_score(StandardScaler().fit_transform(features), combined(labels)[0])
    assert separation(features, labels, seed=0)["silhouette"] == pytest.approx(expected, abs=1e-5)
    noise, labels = make_features(distance=0.0)
    assert separation(noise, labels, seed=0)["silhouette"] == pytest.approx(0, abs=0.03)


def test_a_rare_attribute_is_predicted_and_chance_stays_a_half():
    features, labels = make_features(500, distance=0.0)
    labels["Eyeglasses"] = (np.arange(500) < 25).astype(int)
    found = separation(features, labels, seed=0)
    assert found["balanced_accuracy/Eyeglasses"] == pytest.approx(0.5, abs=0.15)
    features[:25, 0] += 20
    assert separation(features, labels, seed=0)["balanced_accuracy/Eyeglasses"] > 0.98


def test_a_rare_attribute_counts_as_much_as_its_absence():
    random = np.random.default_rng(0)
    glasses = (np.arange(4000) < 200).astype(int)
    features = random.normal(size=(4000, 1)) + 2 * glasses[:, None]
    found = separation(features, {"Eyeglasses": glasses}, seed=0)["balanced_accuracy/Eyeglasses"]
    # Phi(1), of normal distributions 2 apart; the best plain accuracy would be at 0.66.
    assert found == pytest.approx(0.841, abs=0.04)


def test_a_class_with_fewer_members_than_folds_is_left_out_with_a_reason():
    features, labels = make_features()
    labels["Eyeglasses"] = (np.arange(300) < 3).astype(int)
    labels["Smiling"] = np.arange(300) % 2
    found = separation(features, labels, seed=0)
    assert "balanced_accuracy/Eyeglasses" not in found
    assert {"balanced_accuracy/Smiling", "silhouette"} <= set(found)
    assert found["left_out"] == [
        "Eyeglasses is not predicted: Eyeglasses has too few images, 3 for 5 folds",
        "not in the silhouette: Eyeglasses, no Smiling has too few images, 2 for 5 folds",
        "not in the silhouette: Eyeglasses, Smiling has too few images, 1 for 5 folds",
    ]
    labels["Eyeglasses"] = (np.arange(300) < 40).astype(int)
    people = np.arange(300) // 10
    assert separation(features, labels, 0, people)["left_out"] == [
        "Eyeglasses is not predicted: Eyeglasses has too few people, 4 for 5 folds"
    ]
    nobody = {"Eyeglasses": np.zeros(300, int)}
    assert set(separation(features, nobody, seed=0)) == {"left_out"}


def test_a_classifier_that_remembers_people_does_not_know_the_attributes_of_strangers():
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 10)
    glasses = {"Eyeglasses": random.integers(0, 2, 60)[people]}
    features = random.normal(size=(60, 100))[people] + 0.1 * random.normal(size=(600, 100))
    remembered = separation(features, glasses, seed=0)["balanced_accuracy/Eyeglasses"]
    asked = separation(features, glasses, seed=0, identities=people)
    assert remembered > 0.95
    assert asked["balanced_accuracy/Eyeglasses"] == pytest.approx(0.5, abs=0.2)
    unknown = separation(features, glasses, seed=0, identities=np.full(600, -1))
    assert unknown["balanced_accuracy/Eyeglasses"] > 0.95


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(9), r"features \(9,\) must be"),
        (np.ones((9, 3)), "all features are the same"),
        (np.array([[0.0, np.nan]] * 9), "9 features are not finite"),
        (np.eye(3), "at least 4 images, not 3"),
    ],
)
def test_features_that_cannot_be_placed_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        embed(features, seed=0)


@pytest.mark.parametrize(
    ("labels", "identities", "message"),
    [
        ({}, None, "one shape"),
        ({"a": [0, 1], "b": [0, 1, 1]}, None, "one shape"),
        ({"a": [0, 2] * 5}, None, "0 or 1"),
        ({"a": [0, 1] * 4}, None, "10 features, 8 labels"),
        ({"a": [0, 1] * 5}, np.arange(9), "9 identities"),
    ],
)
def test_labels_of_other_images_are_refused(labels, identities, message):
    with pytest.raises(ValueError, match=message):
        separation(np.random.default_rng(0).normal(size=(10, 2)), labels, 0, identities)
