"""Small face recognizers in each format, written byte by byte, and images for them."""

import json
import struct
from pathlib import Path

import numpy as np
from scipy.signal import correlate

from tfadv.evaluation.recognition.alignment import align
from tfadv.evaluation.recognition.recognizer import load_recognizer

RANDOM = np.random.default_rng(0)


def smooth_images(count, size, seed=0):
    """Smooth images in [-1, 1]."""
    noise = np.random.default_rng(seed).uniform(-0.6, 0.6, (count, 3, 3, 3)).astype(np.float32)
    return align(noise, size)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


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
        """A table whose values are written in order, so that objects are numbered as in reading."""
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
    """What that file computes from images in [-1, 1] of 96 pixels: embedding, flat maxima."""
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
