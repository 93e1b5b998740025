import dataclasses
import json
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import correlate
from skimage.transform import estimate_transform
from sklearn.metrics import roc_auc_score

from tfadv import embedding_cache, recognition
from tfadv.config import Data, UserError
from tfadv.data import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset, normalise
from tfadv.embedding_cache import embed_split
from tfadv.recognition import Embeddings, align, check_recognizer, load_recognizer

RANDOM = np.random.default_rng(0)
ROOT = Path(__file__).parents[1]
MOBILEFACENET = ROOT / "../shared/data/mobilefacenet/mobilefacenet.caffemodel"


def pictures(count, size, seed=0):
    """Smooth pictures in [-1, 1]."""
    noise = np.random.default_rng(seed).uniform(-0.6, 0.6, (count, 3, 3, 3)).astype(np.float32)
    return align(noise, size)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# --- files of the three formats, written byte by byte


def field(number, value):
    """A field of a protocol buffer: a whole number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(number):
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


WEIGHTS = RANDOM.normal(size=(5, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=5).astype(np.float32)


def onnx(path, shape=(1, 3, 112, 112), spatial="GlobalAveragePool"):
    """Mean over the pixels, then `WEIGHTS` and `BIAS`."""

    def node(kind, inputs, output, *attributes):
        names = b"".join(field(1, name) for name in inputs)
        return field(
            1, names + field(2, output) + field(3, output) + field(4, kind) + b"".join(attributes)
        )

    def tensor(name, values):
        dims = b"".join(field(1, size) for size in values.shape)
        return field(5, dims + field(2, 1) + field(8, name) + field(9, values.tobytes()))

    def value(number, name, sizes):
        dims = b"".join(field(1, field(1, size)) for size in sizes)
        return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, dims))))

    transposed = field(5, field(1, "transB") + field(3, 1) + field(20, 2))
    nodes = node(spatial, ["image"], "mean")
    nodes += node("Flatten", ["mean"], "flat")
    nodes += node("Gemm", ["flat", "W", "b"], "face", transposed)
    graph = nodes + field(2, "face") + tensor("W", WEIGHTS) + tensor("b", BIAS)
    graph += value(11, "image", shape) + value(12, "face", (shape[0], 5))
    path.write_bytes(field(1, 7) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return path


def caffe(path, pool="global_pooling: true"):
    """The same network."""

    def blob(values):
        shape = field(7, field(1, b"".join(map(varint, values.shape))))
        return field(7, shape + field(5, values.tobytes()))

    path.with_suffix(".prototxt").write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape '
        "{ dim: 1 dim: 3 dim: 112 dim: 112 } } }\n"
        f'layer {{ name: "mean" type: "Pooling" bottom: "data" top: "mean" '
        f"pooling_param {{ pool: AVE {pool} }} }}\n"
        'layer { name: "face" type: "InnerProduct" bottom: "mean" top: "face" '
        "inner_product_param { num_output: 5 } }\n"
    )
    layer = field(1, "face") + field(2, "InnerProduct") + blob(WEIGHTS) + blob(BIAS)
    path.write_bytes(field(1, "faces") + field(100, layer))
    return path


class Torch:
    """Torch7's binary serialisation of an nn.Sequential."""

    def __init__(self):
        self.objects = 0

    def string(self, text):
        return struct.pack("<i", len(text)) + text.encode()

    def new(self, kind):
        self.objects += 1
        return struct.pack("<ii", kind, self.objects)

    def torch(self, name):
        return self.new(4) + self.string("V 1") + self.string(name)

    def value(self, value):
        if isinstance(value, bytes):
            return value
        if isinstance(value, bool):
            return struct.pack("<ii", 5, value)
        if isinstance(value, int | float):
            return struct.pack("<id", 1, value)
        if isinstance(value, np.ndarray):
            return self.tensor(value.astype(np.float32))
        return self.longs(value)

    def longs(self, values):
        head = self.torch("torch.LongStorage")
        return head + struct.pack(f"<{1 + len(values)}q", len(values), *values)

    def tensor(self, values):
        head = self.torch("torch.FloatTensor")
        steps = [stride // 4 for stride in np.ascontiguousarray(values).strides]
        count = values.ndim
        head += struct.pack(f"<i{2 * count}qq", count, *values.shape, *steps, 1)
        head += self.torch("torch.FloatStorage")
        return head + struct.pack("<q", values.size) + values.tobytes()

    def table(self, entries):
        """A table whose values are made in order, so that their numbers are those read."""
        data = self.new(3) + struct.pack("<i", len(entries))
        for key, value in entries:
            name = (
                struct.pack("<i", 2) + self.string(key) if isinstance(key, str) else self.value(key)
            )
            data += name + (value() if callable(value) else self.value(value))
        return data

    def module(self, name, **entries):
        return lambda: self.torch(f"nn.{name}") + self.table(list(entries.items()))

    def sequential(self, *modules):
        head = self.torch("nn.Sequential")
        return head + self.table([("modules", lambda: self.table(list(enumerate(modules, 1))))])


KERNELS = RANDOM.normal(size=(2, 3, 3, 3)).astype(np.float32)
MEAN, VARIANCE = np.float32([0.2, -0.1]), np.float32([1.5, 0.7])
GAIN, OFFSET = np.float32([1.2, 0.8]), np.float32([0.1, 0.6])
LINEAR = RANDOM.normal(size=(4, 2 * 24 * 24)).astype(np.float32)


def torch7(path):
    """Convolution, batch normalisation, ReLU, maxima, a view without a batch, and so on."""
    t = Torch()
    window = {"dW": 2, "dH": 2}
    path.write_bytes(
        t.sequential(
            t.module(
                "SpatialConvolutionMM",
                weight=KERNELS.reshape(2, -1),
                bias=np.zeros(2),
                nInputPlane=3,
                nOutputPlane=2,
                kW=3,
                kH=3,
                padW=1,
                padH=1,
                **window,
            ),
            t.module(
                "SpatialBatchNormalization",
                running_mean=MEAN,
                running_var=VARIANCE,
                weight=GAIN,
                bias=OFFSET,
                eps=1e-5,
            ),
            t.module("ReLU", inplace=True),
            t.module("SpatialMaxPooling", kW=2, kH=2, padW=0, padH=0, ceil_mode=False, **window),
            t.module("View", size=[2 * 24 * 24], numElements=2 * 24 * 24),
            t.module("Linear", weight=LINEAR, bias=np.zeros(4)),
            t.module("Normalize", p=2, eps=1e-10),
        )
    )
    return path


def torch7_in_numpy(images):
    """What that file computes from pictures in [-1, 1] of 96 pixels: embedding, flat maxima."""
    flat = []
    for image in (images + 1) / 2:
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        maps = [correlate(padded, k.transpose(1, 2, 0), "valid")[::2, ::2, 0] for k in KERNELS]
        normal = (np.stack(maps) - MEAN[:, None, None]) / np.sqrt(VARIANCE + 1e-5)[:, None, None]
        active = np.maximum(GAIN[:, None, None] * normal + OFFSET[:, None, None], 0)
        flat.append(active.reshape(2, 24, 2, 24, 2).max((2, 4)).ravel())
    flat = np.array(flat)
    return unit(flat @ LINEAR.T), flat


def card(path, **content):
    Path(f"{path}.json").write_text(json.dumps(content))


def load(path, alignment="whole", layer="", dataset="synthetic"):
    return load_recognizer(str(path), alignment, layer, dataset)


# --- networks that OpenCV reads


def test_a_torch_file_gives_what_numpy_computes(tmp_path):
    recognizer = load(torch7(tmp_path / "openface.t7"))
    images = pictures(5, 96)
    found, (embedding, flat) = recognizer(images), torch7_in_numpy(images)
    assert (found.embedding.dtype, found.inner.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(found.embedding, embedding, atol=1e-4)
    np.testing.assert_allclose(found.inner, flat, atol=1e-3)


@pytest.mark.parametrize("write", [onnx, caffe])
def test_a_caffe_and_an_onnx_file_give_what_numpy_computes(tmp_path, write):
    recognizer = load(write(tmp_path / f"face.{'onnx' if write is onnx else 'caffemodel'}"))
    images = pictures(recognition._BATCH + 3, 112)
    found = recognizer(images)
    means = (127.5 * images).mean((1, 2)) / 128
    np.testing.assert_allclose(found.embedding, unit(means @ WEIGHTS.T + BIAS), atol=1e-5)
    np.testing.assert_allclose(found.inner, means, atol=1e-5)


def test_a_recognizer_says_what_it_is(tmp_path):
    recognizer = load(caffe(tmp_path / "face.caffemodel"), "celeba")
    assert (recognizer.name, recognizer.layer, recognizer.alignment) == ("face", "mean", "celeba")
    wanted = {"name": "face", "embedding": 5, "inner": 3, "input_size": 112, "layer": "mean"}
    assert wanted.items() <= recognizer.description.items()
    json.dumps(recognizer.description)


def test_what_a_picture_gives_does_not_depend_on_the_pictures_beside_it(tmp_path):
    recognizer = load(torch7(tmp_path / "openface.t7"))
    images = pictures(4, 64)
    together = recognizer(images)
    for i in range(4):
        alone = recognizer(images[i : i + 1])
        np.testing.assert_allclose(alone.embedding[0], together.embedding[i], atol=1e-6)
        np.testing.assert_allclose(alone.inner[0], together.inner[i], atol=1e-5)


def test_a_network_made_for_one_picture_gets_one_at_a_time(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    prototxt = path.with_suffix(".prototxt")
    layer = (
        'layer { name: "flat" type: "Reshape" bottom: "mean" top: "flat" '
        "reshape_param { shape { dim: 1 dim: -1 } } }\n"
    )
    mean, face = prototxt.read_text().replace('bottom: "mean"', 'bottom: "flat"').splitlines()[1:]
    prototxt.write_text("\n".join([prototxt.read_text().splitlines()[0], mean, layer, face]))
    images = pictures(5, 112)
    found, means = load(path)(images), (127.5 * images).mean((1, 2)) / 128
    np.testing.assert_allclose(found.embedding, unit(means @ WEIGHTS.T + BIAS), atol=1e-5)
    np.testing.assert_allclose(found.inner, means, atol=1e-5)


def test_later_pictures_leave_earlier_results_alone(tmp_path):
    recognizer = load(onnx(tmp_path / "face.onnx"))
    first = recognizer(pictures(2, 112, 1))
    kept = first.embedding.copy(), first.inner.copy()
    recognizer(pictures(2, 112, 2))
    np.testing.assert_array_equal(first.embedding, kept[0])
    np.testing.assert_array_equal(first.inner, kept[1])


def test_another_layer_can_be_the_inner_one(tmp_path):
    path = torch7(tmp_path / "openface.t7")
    default = load(path).layer
    layers = recognition._read(path).getLayerNames()
    other = load(path, layer=layers[1])
    assert (other.layer, other.layer == default) == (layers[1], False)
    assert other(pictures(1, 96)).inner.shape == (1, 2 * 48 * 48)


def test_a_card_overrides_the_defaults(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    card(path, size=32, mean=[10, 20, 30], scale=0.5, channels="BGR", layer="face")
    images = pictures(2, 32)
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
    images = pictures(2, 112)
    means = (127.5 * images).mean((1, 2)) / 128
    classes = load(path)(images).embedding
    card(path, output="face")
    faces = load(path)(images).embedding
    np.testing.assert_allclose(faces, unit(means @ WEIGHTS.T + BIAS), atol=1e-5)
    np.testing.assert_allclose(classes, unit(np.exp(means @ WEIGHTS.T + BIAS)), atol=1e-5)


def test_one_mean_in_a_card_is_for_all_channels(tmp_path):
    path = onnx(tmp_path / "face.onnx")
    card(path, mean=100)
    assert recognition.read_card(path).mean == (100, 100, 100)


def test_the_template_grows_with_the_size_that_a_card_gives(tmp_path):
    path = onnx(tmp_path / "face.onnx")
    card(path, size=224)
    doubled = 2 * np.array(recognition.ARCFACE_TEMPLATE)
    np.testing.assert_allclose(recognition.read_card(path).template, doubled)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"sizes": 3}', "unknown key sizes; it may have size, mean"),
        ('{"size": "96"}', "size is '96'; it must be a whole number"),
        ('{"size": true}', "size is True"),
        ('{"size": 0}', "size is 0"),
        ('{"mean": [1, 2]}', "mean is .*a number, or three"),
        ('{"mean": [1, 2, "3"]}', "mean is "),
        ('{"mean": null}', "mean is None"),
        ('{"scale": NaN}', "scale is nan"),
        ('{"channels": "GRB"}', "channels is 'GRB'; it must be RGB or BGR"),
        ('{"layer": 3}', "layer is 3; it must be the name of a layer"),
        ('{"output": 3}', "output is 3"),
        ('{"template": [[1, 2], [3, 4]]}', "template is .*five points"),
        ('{"template": [[1], [1], [1], [1], [1]]}', "template is .*five points"),
        ("[]", "must be a JSON object"),
        ("{", "can't be read"),
    ],
)
def test_a_card_that_is_wrong_is_an_error(tmp_path, content, message):
    path = onnx(tmp_path / "face.onnx")
    Path(f"{path}.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        check_recognizer(str(path))
    assert "face.onnx.json" in str(caught.value)
    assert "\n" not in str(caught.value)


# --- alignment


@pytest.mark.parametrize("size", [64, 178, 224])
def test_celebas_mean_landmarks_come_to_lie_on_the_template(size):
    template = np.array(recognition.ARCFACE_TEMPLATE)
    fitted = estimate_transform("similarity", np.array(recognition.CELEBA_LANDMARKS), template)
    # A blob around each landmark of a 178 x 218 picture, cut and resized as data.py does.
    rows, columns = np.mgrid[0:218, 0:178]
    for landmark in recognition.CELEBA_LANDMARKS:
        x, y = landmark
        blob = 2 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50) - 1
        square = blob[20:198, :, None].repeat(3, 2).astype(np.float32)
        aligned = align(align(square[None], size), 112, recognition.ARCFACE_TEMPLATE)[0, :, :, 0]
        weight = np.maximum(aligned + 1, 0) ** 2
        i, j = np.mgrid[0:112, 0:112]
        centre = (weight * j).sum() / weight.sum(), (weight * i).sum() / weight.sum()
        np.testing.assert_allclose(centre, fitted(landmark)[0], atol=0.1)


def test_the_similarity_transform_is_the_least_squares_fit_of_scikit_image():
    source, target = RANDOM.normal(size=(2, 5, 2))
    fitted = estimate_transform("similarity", source, target)
    found = recognition.similarity_transform(source, target)
    np.testing.assert_allclose(found, fitted.params[:2], atol=1e-9)


def test_a_picture_of_the_right_size_is_taken_whole_as_it_is():
    images = pictures(2, 96)
    np.testing.assert_array_equal(align(images, 96), images)


@pytest.mark.parametrize("template", [(), recognition.ARCFACE_TEMPLATE])
@pytest.mark.parametrize("size", [64, 256])
def test_aligned_pictures_stay_in_range(size, template):
    images = np.where(np.random.default_rng(0).random((2, size, size, 3)) < 0.5, -1, 1)
    aligned = align(images.astype(np.float32), 112, template)
    assert (aligned.shape, aligned.dtype) == ((2, 112, 112, 3), np.float32)
    assert np.abs(aligned).max() <= 1


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
def test_the_alignment_is_the_one_asked_for_or_the_datasets(tmp_path, alignment, dataset, expected):
    recognizer = load(onnx(tmp_path / "face.onnx"), alignment, dataset=dataset)
    assert recognizer.alignment == expected
    images = pictures(1, 64)
    template = recognition.ARCFACE_TEMPLATE if expected == "celeba" else ()
    means = 127.5 / 128 * align(images, 112, template).mean((1, 2))
    np.testing.assert_allclose(recognizer(images).inner, means, atol=1e-5)


def test_openface_takes_the_whole_picture_unless_its_card_has_a_template(tmp_path):
    path = torch7(tmp_path / "openface.t7")
    assert load(path, "celeba").alignment == "whole"
    card(path, template=[list(point) for point in recognition.ARCFACE_TEMPLATE])
    assert load(path, "celeba").alignment == "celeba"


# --- a SavedModel of ours


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
    images = pictures(3, 64)
    found, means = recognizer(images), align(images, 16).mean((1, 2))
    np.testing.assert_allclose(found.embedding, unit(means @ WEIGHTS.T), atol=1e-5)
    np.testing.assert_allclose(found.inner, means, atol=1e-6)


@pytest.mark.parametrize("changes", [{"outputs": ("embedding",)}, {"signature": "other"}])
def test_a_saved_model_without_the_signature_is_an_error(tmp_path, changes):
    folder = saved_model(tmp_path / "ours", **changes)
    with pytest.raises(UserError, match=r"no signature embed .*--mode=recognizer"):
        load(folder)


@pytest.mark.parametrize("missing", ["saved_model.pb", "recognizer.json"])
def test_a_folder_that_lacks_a_file_is_no_recognizer(tmp_path, missing):
    for name in {"saved_model.pb", "recognizer.json"} - {missing}:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"has no {missing}; .*--mode=recognizer"):
        check_recognizer(str(tmp_path))


@pytest.mark.parametrize("description", [{"size": "16"}, {"size": 0}, {"inner": 3}])
def test_a_description_that_is_wrong_is_an_error(tmp_path, description):
    (tmp_path / "saved_model.pb").touch()
    content = {"size": 16, "inner": "avgpool", **description}
    (tmp_path / "recognizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"recognizer\.json: {next(iter(description))} is "):
        check_recognizer(str(tmp_path))


def test_a_damaged_saved_model_is_an_error(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    (tmp_path / "recognizer.json").write_text('{"size": 16, "inner": "avgpool"}')
    with pytest.raises(UserError, match="does not load") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_saved_model_has_no_other_inner_layer(tmp_path):
    with pytest.raises(UserError, match="no layer conv3; it has avgpool"):
        load(saved_model(tmp_path / "ours"), layer="conv3")


# --- mistakes


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx does not exist$"):
        check_recognizer(str(tmp_path / "none.onnx"))


def test_a_missing_torch_file_says_what_openfaces_is_called(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; .*nn4\.small2\.v1\.t7 .*OpenCV 4"):
        load(tmp_path / "openface.t7")


def test_a_caffe_file_needs_its_prototxt(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    path.with_suffix(".prototxt").unlink()
    with pytest.raises(UserError, match=r"needs face\.prototxt beside it"):
        check_recognizer(str(path))


def test_another_suffix_is_refused(tmp_path):
    (tmp_path / "face.pth").touch()
    with pytest.raises(UserError, match=r"face\.pth is of no known kind; it must be a \.t7, "):
        check_recognizer(str(tmp_path / "face.pth"))


@pytest.mark.parametrize("write", [onnx, caffe, torch7])
@pytest.mark.parametrize("damage", ["empty", "random", "cut"])
def test_a_file_that_opencv_can_not_read_is_one_line(tmp_path, write, damage, capfd):
    suffix = {onnx: "onnx", caffe: "caffemodel", torch7: "t7"}[write]
    path = write(tmp_path / f"face.{suffix}")
    content = path.read_bytes()
    random = np.random.default_rng(0).bytes(500)
    path.write_bytes({"empty": b"", "random": random, "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(
        UserError, match=rf"recognizer .*face\.{suffix} can't be run by OpenCV: ."
    ) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_output_that_is_no_vector_a_picture_is_an_error(tmp_path):
    path = onnx(tmp_path / "face.onnx")
    mean = load(path)._network._network.getLayerNames()[0]
    card(path, output=mean)
    with pytest.raises(UserError, match=r"gives \[1, 3, 1, 1\] .*must be \[N, E\]"):
        load(path)


def test_embeddings_that_are_not_finite_are_an_error(tmp_path):
    recognizer = load(onnx(tmp_path / "face.onnx"))
    with pytest.raises(UserError, match="not finite"):
        recognizer(np.full((1, 112, 112, 3), np.nan, np.float32))


def test_an_unknown_layer_is_answered_with_those_that_are_near(tmp_path):
    with pytest.raises(UserError, match="no layer maen; it has mean"):
        load(caffe(tmp_path / "face.caffemodel"), layer="maen")


def test_an_unknown_layer_is_answered_even_where_none_is_near(tmp_path):
    with pytest.raises(UserError, match=r"no layer 3; it has .*face"):
        load(caffe(tmp_path / "face.caffemodel"), layer="3")


def test_checking_a_recognizer_imports_no_tensorflow(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    program = (
        "import sys; from tfadv.recognition import check_recognizer, load_recognizer;"
        f"check_recognizer({str(path)!r}); load_recognizer({str(path)!r}, 'whole', '', 'x');"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


# --- the digest and the cache


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """From a recogniser's settings to how many pictures C was called with, and its answers."""
    path = caffe(tmp_path / "face.caffemodel")
    embed, seen = recognition.Recognizer.__call__, []

    def call(self, images):
        seen.append(len(images))
        return embed(self, images)

    def run(data, split=PUBLIC, part=WHOLE, **settings):
        recognizer = load(path, **settings)
        monkeypatch.setattr(recognition.Recognizer, "__call__", call)
        seen.clear()
        found = embed_split(recognizer, Dataset(data), split, part, tmp_path / "cache")
        monkeypatch.setattr(recognition.Recognizer, "__call__", embed)
        return sum(seen), found

    run.path, run.folder = path, tmp_path / "cache"
    return run


def test_a_split_is_embedded_in_its_order(counted, tiny_faces):
    batches = list(Dataset(tiny_faces).batches(PUBLIC, HELD_OUT).as_numpy_iterator())
    images = normalise(np.concatenate([batch["images"] for batch in batches])).numpy()
    for _ in range(2):  # computed, then read
        _, found = counted(tiny_faces, part=HELD_OUT)
        for kept, expected in zip(found, load(counted.path)(images), strict=True):
            assert kept.dtype == np.float32
            np.testing.assert_allclose(kept, expected, atol=1e-6)


def test_a_split_is_embedded_once(counted, tiny_faces):
    assert counted(tiny_faces)[0] == 60
    assert counted(tiny_faces)[0] == 0


def test_only_the_owner_can_read_the_embeddings(counted, tiny_faces):
    counted(tiny_faces)
    (file,) = counted.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "change",
    [
        {"alignment": "celeba"},
        {"layer": "face"},
        {"split": TEST},
        {"part": TRAIN},
    ],
)
def test_another_setting_is_computed_anew(counted, tiny_faces, change):
    counted(tiny_faces)
    assert counted(tiny_faces, **change)[0] > 0
    assert counted(tiny_faces)[0] == 0


def test_another_size_of_the_pictures_is_computed_anew(counted, tiny_faces):
    counted(tiny_faces)
    assert counted(dataclasses.replace(tiny_faces, size=64))[0] == 60


def test_another_share_held_out_is_computed_anew_where_it_matters(counted, tiny_faces):
    other = dataclasses.replace(tiny_faces, held_out=0.4)
    for part, expected in ((WHOLE, False), (HELD_OUT, True), (TRAIN, True)):
        counted(tiny_faces, part=part)
        assert bool(counted(other, part=part)[0]) == expected


def test_another_content_of_the_recognizers_files_is_computed_anew(counted, tiny_faces):
    counted(tiny_faces)
    content = counted.path.read_bytes()
    counted.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert counted(tiny_faces)[0] == 60
    prototxt = counted.path.with_suffix(".prototxt")
    prototxt.write_text(prototxt.read_text() + "\n")
    assert counted(tiny_faces)[0] == 60
    card(counted.path, mean=100)
    assert counted(tiny_faces)[0] == 60
    card(counted.path, mean=101)
    assert counted(tiny_faces)[0] == 60
    assert counted(tiny_faces)[0] == 0


def test_another_content_of_the_records_is_computed_anew(counted, tmp_path):
    from data_prep import synthetic

    for seed in (0, 1):
        flags = synthetic.define_flags()
        size = ["--identities=6", "--pictures=1", "--size=32"]
        flags(["", f"--data_dir={tmp_path}", f"--seed={seed}", *size])
        synthetic.main(flags)
    first, second = (tmp_path / f"synthetic/6x1_32px_seed{seed}/1.0.0" for seed in (0, 1))
    data = Data(dir=str(tmp_path), dataset="synthetic/6x1_32px_seed0", size=32)
    _, before = counted(data)
    (records,) = first.glob("*-public*")
    records.write_bytes((second / records.name).read_bytes())
    computed, after = counted(data)
    assert computed
    assert not np.allclose(before.inner, after.inner)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "fewer"])
def test_a_damaged_file_is_computed_again(counted, tiny_faces, damage):
    _, before = counted(tiny_faces)
    (file,) = counted.folder.iterdir()
    content = file.read_bytes()
    if damage == "other":
        np.savez(file, nothing=np.zeros(3))
    elif damage == "fewer":
        np.savez(file, embedding=before.embedding[1:], inner=before.inner[1:])
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        file.write_bytes({"empty": b"", "cut": content[:middle], "flipped": flipped}[damage])
    computed, after = counted(tiny_faces)
    assert computed == 60
    np.testing.assert_array_equal(after.embedding, before.embedding)
    assert counted(tiny_faces)[0] == 0


def test_an_interruption_leaves_no_file(counted, tiny_faces, monkeypatch):
    def savez(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding_cache.np, "savez", savez)
    with pytest.raises(KeyboardInterrupt):
        counted(tiny_faces)
    assert not list(counted.folder.iterdir())


def test_a_long_computation_shows_how_far_it_is(tiny_faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedding_cache, "_SILENT_S", -1)
    recognizer = load(caffe(tmp_path / "face.caffemodel"))
    embed_split(recognizer, Dataset(tiny_faces), PUBLIC, WHOLE, tmp_path)
    assert "face on public pictures  60/60" in capsys.readouterr().err
    embed_split(recognizer, Dataset(tiny_faces), PUBLIC, WHOLE, tmp_path)
    assert not capsys.readouterr().err


# --- the real one


def test_mobilefacenet_tells_real_people_apart():
    import cv2

    celeba = MOBILEFACENET.parents[1] / "celeba"
    if not MOBILEFACENET.exists() or not celeba.exists():
        pytest.skip("MobileFaceNet and CelebA are not here")
    words = (celeba / "identity_CelebA.txt").read_text().split()
    names, people = np.array(words[::2]), np.array(words[1::2])
    several = np.isin(people, np.unique(people)[:20])  # five pictures each
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
