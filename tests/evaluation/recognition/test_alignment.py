import numpy as np
import pytest
from skimage.transform import estimate_transform

from tests.recognizers import smooth_images
from tfadv.evaluation.recognition.alignment import CELEBA_LANDMARKS, align, similarity_transform
from tfadv.evaluation.recognition.files import ARCFACE_TEMPLATE

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", [64, 178, 224])
def test_celebas_mean_landmarks_move_to_the_template(size):
    template = np.array(ARCFACE_TEMPLATE)
    fitted = estimate_transform("similarity", np.array(CELEBA_LANDMARKS), template)
    # A blob around each landmark of a 178 x 218 image, cropped and resized as in `data`.
    rows, columns = np.mgrid[0:218, 0:178]
    for landmark in CELEBA_LANDMARKS:
        x, y = landmark
        blob = 2 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50) - 1
        square = blob[20:198, :, None].repeat(3, 2).astype(np.float32)
        aligned = align(align(square[None], size), 112, ARCFACE_TEMPLATE)[0, :, :, 0]
        weight = np.maximum(aligned + 1, 0) ** 2
        i, j = np.mgrid[0:112, 0:112]
        centre = (weight * j).sum() / weight.sum(), (weight * i).sum() / weight.sum()
        np.testing.assert_allclose(centre, fitted(landmark)[0], atol=0.1)


def test_the_similarity_transform_is_the_least_squares_fit_of_scikit_image():
    source, target = RANDOM.normal(size=(2, 5, 2))
    fitted = estimate_transform("similarity", source, target)
    found = similarity_transform(source, target)
    np.testing.assert_allclose(found, fitted.params[:2], atol=1e-9)


def test_an_image_of_the_right_size_stays_as_it_is():
    images = smooth_images(2, 96)
    np.testing.assert_array_equal(align(images, 96), images)


@pytest.mark.parametrize("template", [(), ARCFACE_TEMPLATE])
@pytest.mark.parametrize("size", [64, 256])
def test_aligned_images_stay_in_range(size, template):
    images = np.where(np.random.default_rng(0).random((2, size, size, 3)) < 0.5, -1, 1)
    aligned = align(images.astype(np.float32), 112, template)
    assert (aligned.shape, aligned.dtype) == ((2, 112, 112, 3), np.float32)
    assert np.abs(aligned).max() <= 1
