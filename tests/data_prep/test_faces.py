import itertools

import cv2
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score

from data_prep.faces import ATTRIBUTES, render_face

IDENTITIES = 500
LEARNT_FROM = 400  # identities; the others are for the test
HAIR_COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")


@pytest.fixture(scope="module")
def faces():
    """Two images of each identity: images [500, 2, 32, 32, 3] and attributes [500, 2, A]."""
    drawn = [[render_face(who, shot, size=32) for shot in (0, 1)] for who in range(IDENTITIES)]
    images = np.array([[face.image for face in pair] for pair in drawn])
    return images, np.array([[face.attributes for face in pair] for pair in drawn])


@pytest.fixture(scope="module")
def features(faces):
    """The 200 strongest components of the pixels, float32 [1000, 200]."""
    flat = pixels(faces[0].reshape(-1, 32, 32, 3))
    components = PCA(200, svd_solver="randomized", random_state=0).fit(flat[: 2 * LEARNT_FROM])
    return components.transform(flat)


def shown(faces, name):
    return faces[1][..., ATTRIBUTES.index(name)].astype(bool)


def pixels(images):
    return images.reshape(len(images), -1) / np.float32(255)


def test_same_arguments_give_the_same_bytes():
    first, second = render_face(7, 3, seed=5), render_face(7, 3, seed=5)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.attributes, second.attributes)


@pytest.mark.parametrize("other", [(8, 3, 5), (7, 4, 5), (7, 3, 6)])
def test_identity_image_and_seed_each_change_the_image(other):
    identity, image, seed = other
    changed = render_face(identity, image, seed=seed).image.astype(int)
    assert np.abs(changed - render_face(7, 3, seed=5).image).mean() > 5


@pytest.mark.parametrize("size", [16, 64, 96, 128, 224])
def test_image_and_attributes_have_the_promised_form(size):
    face = render_face(1, 2, size=size)
    assert face.image.shape == (size, size, 3)
    assert face.image.dtype == np.uint8
    assert face.attributes.shape == (len(ATTRIBUTES),)
    assert face.attributes.dtype == np.uint8
    assert set(face.attributes.tolist()) <= {0, 1}


def test_size_changes_the_resolution_alone():
    small, large = render_face(3, 1, size=64), render_face(3, 1, size=128)
    halved = cv2.resize(large.image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(halved - small.image).mean() < 4
    np.testing.assert_array_equal(small.attributes, large.attributes)


@pytest.mark.parametrize(
    "wrong", [{"identity": -1}, {"image": -1}, {"seed": -1}, {"size": 15}], ids=str
)
def test_an_argument_out_of_range_is_named(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        render_face(**({"identity": 0, "image": 0} | wrong))


def test_attribute_names_are_sorted_as_in_celeba():
    assert list(ATTRIBUTES) == sorted(ATTRIBUTES)
    assert len(set(ATTRIBUTES)) >= 12


@pytest.mark.parametrize(
    "name", ["Big_Nose", "Bushy_Eyebrows", "Goatee", "Male", "Mustache", "Pale_Skin"]
)
def test_a_trait_is_the_same_in_all_images_of_an_identity(faces, name):
    first, second = shown(faces, name).T
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["Eyeglasses", "Mouth_Slightly_Open", "Smiling", "Wearing_Hat"])
def test_a_condition_changes_between_images_of_an_identity(faces, name):
    first, second = shown(faces, name).T
    assert (first != second).mean() > 0.05


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_is_neither_rare_nor_the_rule(faces, name):
    assert 0.06 < shown(faces, name).mean() < 0.6


@pytest.mark.parametrize(
    "pair",
    [
        *itertools.combinations(HAIR_COLOURS, 2),
        *itertools.product(["Bald"], [*HAIR_COLOURS, "Bangs", "Wavy_Hair", "Wearing_Hat"]),
        ("Bangs", "Wearing_Hat"),
        *itertools.product(["Wearing_Lipstick"], ["Male", "Mustache", "Goatee"]),
    ],
    ids="-".join,
)
def test_no_two_attributes_contradict_each_other(faces, pair):
    assert not (shown(faces, pair[0]) & shown(faces, pair[1])).any()


@pytest.mark.parametrize("name", ["Mustache", "Goatee", "Wearing_Necktie"])
def test_only_men_have_what_only_men_have_here(faces, name):
    assert not (shown(faces, name) & ~shown(faces, "Male")).any()


def test_the_numbers_of_an_image_do_not_repeat_those_of_its_identity(faces):
    # Independent, so the correlation's standard error is 1/sqrt(500) = 0.045.
    for male, smiling in zip(shown(faces, "Male").T, shown(faces, "Smiling").T, strict=True):
        assert abs(np.corrcoef(male, smiling)[0, 1]) < 0.18


# Balanced accuracy of guessing is 0.5, whatever the rate.
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("Bald", 0.85),
        ("Bangs", 0.65),
        ("Big_Nose", 0.58),
        ("Black_Hair", 0.8),
        ("Blond_Hair", 0.8),
        ("Bushy_Eyebrows", 0.62),
        ("Eyeglasses", 0.8),
        ("Goatee", 0.8),
        ("Gray_Hair", 0.75),
        ("Male", 0.85),
        ("Mouth_Slightly_Open", 0.6),
        ("Mustache", 0.68),
        ("Pale_Skin", 0.85),
        ("Rosy_Cheeks", 0.8),
        ("Smiling", 0.6),
        ("Wavy_Hair", 0.65),
        ("Wearing_Earrings", 0.75),
        ("Wearing_Hat", 0.8),
        ("Wearing_Lipstick", 0.7),
        ("Wearing_Necktie", 0.9),
    ],
)
def test_a_linear_model_reads_the_attribute_from_32_pixels(faces, features, name, accuracy):
    labels, known = shown(faces, name).ravel(), 2 * LEARNT_FROM
    model = RidgeClassifier(alpha=3, class_weight="balanced").fit(features[:known], labels[:known])
    guessed = model.predict(features[known:])
    assert balanced_accuracy_score(labels[known:], guessed) > accuracy


def test_an_unseen_identity_is_found_again_among_a_hundred(faces):
    heads = faces[0][:, :, 5:29, 6:26]  # without most of the background
    known = pixels(heads[:LEARNT_FROM].reshape(-1, 24, 20, 3))
    components = PCA(100, svd_solver="randomized", random_state=0).fit(known)
    between = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1, n_components=40)
    between.fit(components.transform(known), np.repeat(np.arange(LEARNT_FROM), 2))

    def embedding(images):
        features = between.transform(components.transform(pixels(images)))
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    gallery, probes = (embedding(heads[LEARNT_FROM:, shot]) for shot in (0, 1))
    found = (probes @ gallery.T).argmax(1) == np.arange(IDENTITIES - LEARNT_FROM)
    assert found.mean() > 0.2  # chance is 0.01
