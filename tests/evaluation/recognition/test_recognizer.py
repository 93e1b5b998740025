import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.recognizers import (
    BIAS,
    WEIGHTS,
    caffe,
    card,
    load,
    onnx,
    smooth_images,
    torch7,
    torch7_in_numpy,
    unit,
)
from tfadv.config.errors import UserError
from tfadv.evaluation.recognition.alignment import align
from tfadv.evaluation.recognition.files import ARCFACE_TEMPLATE
from tfadv.evaluation.recognition.recognizer import Embeddings

ROOT = Path(__file__).parents[3]
MOBILEFACENET = ROOT / "../shared/data/mobilefacenet/mobilefacenet.caffemodel"


def test_a_torch_file_gives_what_numpy_computes(tmp_path):
    recognizer = load(torch7(tmp_path / "openface.t7"))
    images = smooth_images(5, 96)
    found, (embedding, flat) = recognizer(images), torch7_in_numpy(images)
    assert (found.embedding.dtype, found.inner.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found.embedding, embedding, atol=1e-4)
    np.testing.assert_allclose(found.inner, flat, atol=1e-3)


@pytest.mark.parametrize("write", [onnx, caffe])
def test_a_caffe_and_an_onnx_file_give_what_numpy_computes(tmp_path, write):
    recognizer = load(write(tmp_path / f"face.{'onnx' if write is onnx else 'caffemodel'}"))
    images = smooth_images(35, 112)
    found = recognizer(images)
    means = (127.5 * images).mean((1, 2)) / 128
    np.testing.assert_allclose(found.embedding, unit(means @ WEIGHTS.T + BIAS), atol=1e-5)
    np.testing.assert_allclose(found.inner, means, atol=1e-5)


def test_a_recognizer_describes_itself(tmp_path):
    recognizer = load(caffe(tmp_path / "face.caffemodel"), "celeba")
    assert (recognizer.name, recognizer.layer, recognizer.alignment) == ("face", "mean", "celeba")
    wanted = {"name": "face", "embedding": 5, "inner": 3, "input_size": 112, "layer": "mean"}
    assert wanted.items() <= recognizer.description.items()
    json.dumps(recognizer.description)


def test_the_embedding_of_an_image_does_not_depend_on_the_other_images(tmp_path):
    recognizer = load(torch7(tmp_path / "openface.t7"))
    images = smooth_images(4, 64)
    together = recognizer(images)
    for i in range(4):
        alone = recognizer(images[i : i + 1])
        np.testing.assert_allclose(alone.embedding[0], together.embedding[i], atol=1e-6)
        np.testing.assert_allclose(alone.inner[0], together.inner[i], atol=1e-5)


def test_a_network_for_single_images_gets_one_at_a_time(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    prototxt = path.with_suffix(".prototxt")
    layer = (
        'layer { name: "flat" type: "Reshape" bottom: "mean" top: "flat" '
        "reshape_param { shape { dim: 1 dim: -1 } } }\n"
    )
    mean, face = prototxt.read_text().replace('bottom: "mean"', 'bottom: "flat"').splitlines()[1:]
    prototxt.write_text("\n".join([prototxt.read_text().splitlines()[0], mean, layer, face]))
    images = smooth_images(5, 112)
    found, means = load(path)(images), (127.5 * images).mean((1, 2)) / 128
    np.testing.assert_allclose(found.embedding, unit(means @ WEIGHTS.T + BIAS), atol=1e-5)
    np.testing.assert_allclose(found.inner, means, atol=1e-5)


def test_later_images_leave_earlier_results_unchanged(tmp_path):
    recognizer = load(onnx(tmp_path / "face.onnx"))
    first = recognizer(smooth_images(2, 112, 1))
    kept = first.embedding.copy(), first.inner.copy()
    recognizer(smooth_images(2, 112, 2))
    np.testing.assert_array_equal(first.embedding, kept[0])
    np.testing.assert_array_equal(first.inner, kept[1])


def test_another_layer_can_be_the_inner_one(tmp_path):
    path = torch7(tmp_path / "openface.t7")
    default = load(path).layer
    layers = cv2.dnn.readNet(str(path)).getLayerNames()
    other = load(path, layer=layers[1])
    assert (other.layer, other.layer == default) == (layers[1], False)
    assert other(smooth_images(1, 96)).inner.shape == (1, 2 * 48 * 48)


def test_a_card_overrides_the_defaults(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    card(path, size=32, mean=[10, 20, 30], scale=0.5, channels="BGR", layer="face")
    images = smooth_images(2, 32)
    found = load(path)(images)
    inputs = (((images + 1) * 127.5 - [10, 20, 30]) * 0.5)[..., ::-1]
    faces = inputs.mean((1, 2)) @ WEIGHTS.T + BIAS
    np.testing.assert_allclose(found.embedding, unit(faces), atol=1e-5)
    np.testing.assert_allclose(found.inner, faces, rtol=1e-4)


def test_a_card_can_name_the_output(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    path.with_suffix(".prototxt").write_text(
        path.with_suffix(".prototxt").read_text()
        + 'layer { name: "classes" type: "Softmax" bottom: "face" top: "classes" }\n'
    )
    images = smooth_images(2, 112)
    means = (127.5 * images).mean((1, 2)) / 128
    classes = load(path)(images).embedding
    card(path, output="face")
    faces = load(path)(images).embedding
    np.testing.assert_allclose(faces, unit(means @ WEIGHTS.T + BIAS), atol=1e-5)
    np.testing.assert_allclose(classes, unit(np.exp(means @ WEIGHTS.T + BIAS)), atol=1e-5)


@pytest.mark.parametrize(
    ("alignment", "dataset", "expected"),
    [
        ("auto", "celeba/identity_70_20_10", "celeba"),
        ("auto", "celeb_a", "celeba"),
        ("auto", "synthetic", "whole"),
        ("celeba", "synthetic", "celeba"),
        ("whole", "celeba/identity_70_20_10", "whole"),
    ],
)
def test_the_alignment_is_as_set_or_follows_from_the_dataset(
    tmp_path, alignment, dataset, expected
):
    recognizer = load(onnx(tmp_path / "face.onnx"), alignment, dataset=dataset)
    assert recognizer.alignment == expected
    images = smooth_images(1, 64)
    template = ARCFACE_TEMPLATE if expected == "celeba" else ()
    means = 127.5 / 128 * align(images, 112, template).mean((1, 2))
    np.testing.assert_allclose(recognizer(images).inner, means, atol=1e-5)


def test_openface_takes_the_whole_image_unless_its_card_has_a_template(tmp_path):
    path = torch7(tmp_path / "openface.t7")
    assert load(path, "celeba").alignment == "whole"
    card(path, template=[list(point) for point in ARCFACE_TEMPLATE])
    assert load(path, "celeba").alignment == "celeba"


def saved_model(folder, outputs=("embedding", "inner"), signature="embed", **description):
    """Means of the channels times `WEIGHTS`, at 16 pixels."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(WEIGHTS)

    @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, "images")])
    def embed(images):
        mean = tf.reduce_mean(images, (1, 2))
        values = {"embedding": tf.matmul(mean, module.weights, transpose_b=True), "inner": mean}
        return {name: values[name] for name in outputs}

    tf.saved_model.save(module, str(folder), signatures={signature: embed})
    description = {"size": 16, "embedding": 5, "inner": "avgpool", **description}
    (folder / "recognizer.json").write_text(json.dumps(description))
    return folder


def test_a_saved_model_of_ours_is_called_at_its_size(tmp_path):
    recognizer = load(saved_model(tmp_path / "ours"), "celeba")
    assert (recognizer.name, recognizer.layer, recognizer.alignment) == ("ours", "avgpool", "whole")
    images = smooth_images(3, 64)
    found, means = recognizer(images), align(images, 16).mean((1, 2))
    np.testing.assert_allclose(found.embedding, unit(means @ WEIGHTS.T), atol=1e-5)
    np.testing.assert_allclose(found.inner, means, atol=1e-6)


def test_a_saved_model_is_a_function_that_gradients_pass(tmp_path):
    import tensorflow as tf

    recognizer = load(saved_model(tmp_path / "ours"))
    images = smooth_images(3, 16)
    with tf.GradientTape() as tape:
        variable = tf.Variable(images)
        (faces,) = recognizer.differentiable()(variable)
        total = tf.reduce_sum(faces[:, 0, 0, 0])
    np.testing.assert_allclose(faces[:, 0, 0], recognizer(images).embedding, atol=1e-5)
    assert np.abs(tape.gradient(total, variable)).max() > 0


def test_a_file_that_opencv_reads_has_no_gradients(tmp_path):
    assert load(onnx(tmp_path / "faces.onnx")).differentiable() is None


@pytest.mark.parametrize("changes", [{"outputs": ("embedding",)}, {"signature": "other"}])
def test_a_saved_model_without_the_signature_is_an_error(tmp_path, changes):
    folder = saved_model(tmp_path / "ours", **changes)
    with pytest.raises(UserError, match=r"no signature embed .*--mode=recognizer"):
        load(folder)


def test_a_damaged_saved_model_is_an_error(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    (tmp_path / "recognizer.json").write_text('{"size": 16, "inner": "avgpool"}')
    with pytest.raises(UserError, match="does not load") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_saved_model_has_no_other_inner_layer(tmp_path):
    with pytest.raises(UserError, match="no layer conv3; it has avgpool"):
        load(saved_model(tmp_path / "ours"), layer="conv3")


def test_an_error_about_the_size_names_the_card(tmp_path):
    path = onnx(tmp_path / "face.onnx", shape=(1, 3, 1, 1), spatial="Flatten")
    message = r"face\.onnx can't be run by OpenCV at 112 x 112 pixels \(face\.onnx\.json may name"
    with pytest.raises(UserError, match=message):
        load(path)
    card(path, size=1)
    assert load(path)(smooth_images(2, 1)).embedding.shape == (2, 5)


@pytest.mark.parametrize("write", [onnx, caffe, torch7])
@pytest.mark.parametrize("damage", ["empty", "random", "cut"])
def test_a_file_that_opencv_cannot_read_is_one_line(tmp_path, write, damage, capfd):
    suffix = {onnx: "onnx", caffe: "caffemodel", torch7: "t7"}[write]
    path = write(tmp_path / f"face.{suffix}")
    content = path.read_bytes()
    random = np.random.default_rng(0).bytes(500)
    path.write_bytes({"empty": b"", "random": random, "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(
        UserError, match=rf"recognizer .*face\.{suffix} can't be run by OpenCV( at 112 .*|): ."
    ) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_output_that_is_not_one_vector_per_image_is_an_error(tmp_path):
    path = onnx(tmp_path / "face.onnx")
    mean = load(path)._network._network.getLayerNames()[0]
    card(path, output=mean)
    with pytest.raises(UserError, match=r"gives \[1, 3, 1, 1\] .*must be \[N, E\]"):
        load(path)


def test_embeddings_that_are_not_finite_are_an_error(tmp_path):
    recognizer = load(onnx(tmp_path / "face.onnx"))
    with pytest.raises(UserError, match="not finite"):
        recognizer(np.full((1, 112, 112, 3), np.nan, np.float32))


def test_an_unknown_layer_is_answered_with_similar_names(tmp_path):
    with pytest.raises(UserError, match="no layer maen; it has mean"):
        load(caffe(tmp_path / "face.caffemodel"), layer="maen")


def test_an_unknown_layer_is_answered_even_without_similar_names(tmp_path):
    with pytest.raises(UserError, match=r"no layer 3; it has .*face"):
        load(caffe(tmp_path / "face.caffemodel"), layer="3")


def test_checking_a_recognizer_imports_no_tensorflow(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    program = (
        "import sys; from tfadv.evaluation.recognition.recognizer import load_recognizer;"
        "from tfadv.evaluation.recognition.files import check_recognizer;"
        f"check_recognizer({str(path)!r}); load_recognizer({str(path)!r}, 'whole', '', 'x');"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_mobilefacenet_distinguishes_real_people():
    celeba = MOBILEFACENET.parents[1] / "celeba"
    if not MOBILEFACENET.exists() or not celeba.exists():
        pytest.skip("MobileFaceNet and CelebA are not here")
    words = (celeba / "identity_CelebA.txt").read_text().split()
    names, people = np.array(words[::2]), np.array(words[1::2])
    several = np.isin(people, np.unique(people)[:20])  # five images each
    names, people = names[several], people[several]
    read = [cv2.imread(str(celeba / "img_align_celeba" / name)) for name in names]
    images = np.stack(read)[:, 20:198, :, ::-1].astype(np.float32) / 127.5 - 1
    recognizer = load(MOBILEFACENET, "auto", dataset="celeba/identity_70_20_10")
    found = recognizer(images)
    assert isinstance(found, Embeddings)
    assert (found.embedding.shape, found.inner.shape) == ((100, 128), (100, 512))
    pairs = np.triu_indices(100, 1)
    same = (people[:, None] == people)[pairs]
    assert same.sum() > 10
    assert roc_auc_score(same, (found.embedding @ found.embedding.T)[pairs]) > 0.95


@pytest.mark.parametrize("text", ["", 'input: "data"\ninput_dim: [1, 3, 112, 112]\n'])
def test_a_network_without_layers_is_an_error(tmp_path, text):
    path = caffe(tmp_path / "face.caffemodel")
    path.with_suffix(".prototxt").write_text(text)
    with pytest.raises(UserError, match=r"face\.caffemodel"):
        load(path)


def test_a_saved_model_of_another_size_than_its_description_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"does not take images \[1, 32, 32, 3\]") as caught:
        load(saved_model(tmp_path / "ours", size=32))
    assert len(str(caught.value)) < 300
