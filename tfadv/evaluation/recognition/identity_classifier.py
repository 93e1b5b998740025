"""A face recognizer that is trained here: it learns to tell people apart (CosFace)."""

from pathlib import Path

import keras
import tensorflow as tf

from tfadv.data.images import normalize
from tfadv.models.bottleneck import downscaled
from tfadv.models.encoder import Encoder
from tfadv.models.export import in_float32, save_functions
from tfadv.training.distribution import all_reduce_mean, uniform_by_row

INNER = "avgpool"
EMBEDDING = 128

# Of the cosine logits. Wang et al. (2018, Eq. 6) bound the scale below by log(99 (K - 1)) for K
# people at a probability of 0.99: 9.9 for 200 people, 11.5 for 1,000. Their margin of 0.35 is for
# ten thousand people with fifty images each. With five to ten images each, a margin of 0.2 tells
# strangers apart no better than 0 does, on synthetic faces and on CelebA.
SCALE = 16.0
MARGIN = 0.1

# Of the augmentation, as shares of the image's side and of its range.
ZOOM = 0.1
SHIFT = 0.06
BRIGHTNESS = 0.2
CONTRAST = 0.2


class FaceEmbedder(keras.Model):
    """ResNet up to its pooled output, then a linear layer: an image to a point on a sphere.

    Args:
        depth: 18, 34 or 50.
        width: multiplier of the ResNet's channel counts.
        embedding: E, the dimensions of the embedding.
        dtype: Keras dtype policy; None is the global one.

    Raises:
        ValueError: there is no such ResNet.
    """

    def __init__(
        self,
        depth: int = 18,
        width: float = 0.5,
        embedding: int = EMBEDDING,
        dtype: keras.DTypePolicy | str | None = None,
    ):
        super().__init__(dtype=dtype, name="face_embedder", autocast=False)
        self.depth = depth
        self.width = width
        self.embedding = embedding
        self.encoder = Encoder(depth, width, INNER, dtype=dtype)
        self.linear = keras.layers.Dense(embedding, use_bias=False, dtype="float32")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for images [N, S, S, 3]; they do not depend on N and S."""
        self.encoder.build(input_shape)
        inner = self.encoder.feature_shape(input_shape[1])
        self.linear.build((None, *inner))

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Embeds images, float [N, S, S, 3] in [-1, 1].

        Returns:
            `embedding`, float32 [N, E] of length 1, and `inner`, the ResNet's pooled output,
            float32 [N, I].
        """
        inner = self.encoder(images, training=training)
        return {"embedding": tf.math.l2_normalize(self.linear(inner), axis=1), "inner": inner}

    def get_config(self) -> dict:
        """Returns the arguments of this architecture, without its precision."""
        return {"depth": self.depth, "width": self.width, "embedding": self.embedding}


class IdentityClassifier(keras.Model):
    """Trains an embedder to tell people apart, by softmax over people with a cosine margin.

    A step's data is {"images": uint8 [N, S, S, 3], "labels": int64 [N]}: the number of each person,
    from 0; -1 is unknown and does not count.

    Args:
        embedder: built: images in [-1, 1] to `embedding`, [N, E] of length 1.
        identities: K, the number of people.
    """

    measurements = ("identity", "accuracy")

    def __init__(self, embedder: FaceEmbedder, identities: int, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.embedder = embedder
        self.centres = self.add_weight(
            shape=(identities, embedder.embedding),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            dtype="float32",
            autocast=False,
            name="centres",
        )

    def compile(self, optimizer, **kwargs):
        """Takes the optimizer and builds it with the variables of embedder and centres."""
        # XLA on a CPU makes these convolutions 4 to 5 times slower.
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)

    def call(self, images, training=False):
        """Returns the cosines to each person's centre, float32 [N, K], of images in [-1, 1]."""
        embeddings = self.embedder(images, training=training)["embedding"]
        centres = tf.math.l2_normalize(self.centres.value, axis=1)
        return tf.matmul(embeddings, centres, transpose_b=True)

    def train_step(self, data):
        """Minimises the margin softmax on augmented images; returns the loss and the accuracy."""
        # New at each step, and the same again when training resumes.
        seed = tf.stack([tf.cast(self.optimizer.iterations.value, tf.int32), 0])
        images, labels = augment(normalize(data["images"]), seed), data["labels"]
        with tf.GradientTape() as tape:
            cosines = self(images, training=True)
            loss = margin_softmax(labels, cosines)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        is_right = tf.cast(tf.argmax(cosines, axis=1) == labels, tf.float32)
        accuracy = tf.math.divide_no_nan(tf.reduce_sum(is_right), _count_known(labels))
        return {"identity": loss, "accuracy": accuracy}


def margin_softmax(
    labels: tf.Tensor, cosines: tf.Tensor, scale: float = SCALE, margin: float = MARGIN
) -> tf.Tensor:
    """Returns the softmax cross entropy in which the right person must win by a margin: CosFace.

    From Wang et al. (2018), Eq. 4.

    Args:
        labels: number of the person, int [N]; -1 is unknown and does not count.
        cosines: of the angle between embedding and each person's centre, float [N, K].
        scale: s, of the logits.
        margin: m, subtracted from the right person's cosine.

    Returns:
        The mean over images of known people, in nats; 0 without any. In a replica, a part of the
        whole batch's mean: the mean over the replicas is the whole.
    """
    targets = tf.one_hot(labels, cosines.shape[-1])
    losses = tf.nn.softmax_cross_entropy_with_logits(targets, scale * (cosines - margin * targets))
    total = tf.reduce_sum(tf.where(labels >= 0, losses, 0.0))
    return tf.math.divide_no_nan(total, _count_known(labels))


def _count_known(labels: tf.Tensor) -> tf.Tensor:
    """The number of images of known people; in a replica, the mean over all replicas."""
    return all_reduce_mean(tf.math.count_nonzero(labels >= 0, dtype=tf.float32))


def augment(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns images flipped, zoomed, shifted, blurred and relit at random, each on its own.

    The blur is for reconstructions, which are blurred. A recognizer trained on sharp images alone
    takes any two blurred images for the same person.

    Args:
        images: float32 [N, S, S, 3] in [-1, 1]; S a multiple of 4.
        seed: int [2]; equal seeds give equal changes.

    Returns:
        float32 [N, S, S, 3], about in [-1, 1].
    """
    count, size = tf.shape(images)[0], images.shape[1]
    flip, zoom, down, across, blur, light, contrast = tf.unstack(
        uniform_by_row(count, 7, seed), axis=1
    )
    half = 0.5 - ZOOM * (zoom - 0.5)
    y, x = 0.5 + 2 * SHIFT * (down - 0.5), 0.5 + 2 * SHIFT * (across - 0.5)
    left = tf.where(flip < 0.5, -half, half)
    boxes = tf.stack([y - half, x + left, y + half, x - left], axis=1)
    images = tf.image.crop_and_resize(images, boxes, tf.range(count), (size, size))
    images = _blur(images, blur)
    contrast = 1.0 + 2 * CONTRAST * (contrast - 0.5)
    light = 2 * BRIGHTNESS * (light - 0.5)
    return images * contrast[:, None, None, None] + light[:, None, None, None]


def _blur(images: tf.Tensor, chance: tf.Tensor) -> tf.Tensor:
    """Half of the images as they are, a quarter enlarged from 1/2 of their side, one from 1/4."""
    chance = chance[:, tf.newaxis, tf.newaxis, tf.newaxis]
    soft = tf.where(chance < 0.75, downscaled(images, 2), downscaled(images, 4))
    return tf.where(chance < 0.5, images, soft)


def export_embedder(
    embedder: FaceEmbedder, size: int, folder: Path, *, identities: int, split: str, dataset: str
) -> None:
    """Writes an embedder as a SavedModel, with `recognizer.json` next to its graph.

    `serving_default` takes `images`, uint8 [N, H, W, 3] of any H and W; `embed` takes `images`,
    float32 [N, S, S, 3] in [-1, 1]. Both return `embedding`, float32 [N, E] of length 1, and
    `inner`, float32 [N, I]. It holds the embedder's variables, in float32 whatever the precision of
    training, and nothing else: no person's centre.

    Args:
        embedder: built, and trained at S = `size` pixels per side.
        identities: number of people it was trained on, in this split of the data set.
    """
    portable = in_float32(embedder, (None, size, size, 3))

    def embed(images):
        return portable(images, training=False)

    def serve(images):
        # Rounded like the training images, so that both signatures give the same embedding.
        resized = tf.image.resize(images, (size, size), antialias=True)
        return embed(normalize(tf.round(resized)))

    signatures = {
        "serving_default": (serve, tf.TensorSpec((None, None, None, 3), tf.uint8, "images")),
        "embed": (embed, tf.TensorSpec((None, size, size, 3), tf.float32, "images")),
    }
    description = {
        "size": size,
        "embedding": embedder.embedding,
        "inner": INNER,
        "identities": identities,
        "split": split,
        "dataset": dataset,
    }
    save_functions(portable, signatures, folder, {"recognizer.json": description})
