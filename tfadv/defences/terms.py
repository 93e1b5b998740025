"""The terms that a defence adds to the loss of encoder and classifier.

A term is a `Defence`: it alone knows the names of its logged losses. To add one, write its class
here, a weight in the config's `Loss`, and a line in `build.build_defences`.
"""

from collections.abc import Iterable, Mapping

import keras
import tensorflow as tf

from tfadv.defences.distance_correlation import distance_correlation
from tfadv.models.adversary import Adversary

Batch = Mapping[str, tf.Tensor]
Losses = dict[str, tf.Tensor]

SIDE = 16  # pixels a side of the thumbnails that distance correlation is measured with


class Defence(keras.Model):
    """A term of the protector's loss, with its adversary if it has one.

    A batch has "images", float32 [N, S, S, 3] in [-1, 1]. A private batch also has "labels",
    [N, A], and the inputs that the terms need: "identity", int64 [N], from 0 on, -1 for unknown
    people; "embeddings", float32 [N, E].

    Attributes:
        learns_from: "public" or "private": the batches that the adversary learns from, by `update`;
            "": there is no adversary.
        measurements: the names of the losses that `penalize` returns.
        update_measurements: the names of the losses that `update` returns.
    """

    learns_from = ""
    measurements: tuple[str, ...] = ()
    update_measurements: tuple[str, ...] = ()

    def __init__(self, name: str):
        super().__init__(name=name)
        self.built = True  # its parts are

    def update(self, batch: Batch, features: tf.Tensor) -> Losses:
        """Trains the adversary on a batch and its features, through which no gradient flows."""
        raise NotImplementedError

    def penalize(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the losses on a private batch, and the weighted penalty to minimise."""
        raise NotImplementedError


class Reconstruction(Defence):
    """The paper's defence: a decoder learns to invert the encoder and should fail (Eq. 7 to 9).

    Args:
        adversary: decoder, discriminator and perceptual network; compiled.
        lambda1: weight of the negative reconstruction loss.
        lambda2: weight of the negative perceptual distance; needs a perceptual network.
    """

    learns_from = "public"

    def __init__(self, adversary: Adversary, lambda1: float = 0.0, lambda2: float = 0.0):
        super().__init__(name="reconstruction")
        self.adversary = adversary
        self.lambda1 = lambda1
        self.lambda2 = lambda2

    @property
    def measurements(self) -> tuple[str, ...]:
        """The reconstruction loss and, if it has a weight, the perceptual distance."""
        return ("reconstruction", "perceptual") if self.lambda2 else ("reconstruction",)

    @property
    def update_measurements(self) -> tuple[str, ...]:
        """The losses of decoder and discriminator."""
        return self.adversary.measurements

    def update(self, batch: Batch, features: tf.Tensor) -> Losses:
        """Trains decoder and discriminator by Eq. 5: update (a)."""
        return self.adversary.update(batch["images"], features)

    def penalize(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns L_p and L_perc, and -lambda_1 L_p - lambda_2 L_perc."""
        losses = self.adversary.distances(
            batch["images"], self.adversary(features), perceptual=bool(self.lambda2)
        )
        penalty = -self.lambda1 * losses["reconstruction"]
        return losses, penalty - self.lambda2 * losses.get("perceptual", 0.0)


class NoPeek(Defence):
    """Lowers the distance correlation between features and images (Vepakomma et al. 2020).

    Args:
        weight: of the bias-corrected squared distance correlation with the pixels at 16 x 16.
    """

    measurements = ("distance_correlation",)

    def __init__(self, weight: float):
        super().__init__(name="nopeek")
        self.weight = weight

    def penalize(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the distance correlation, and its weighted value."""
        value = distance_correlation(features, thumbnails(batch["images"]))
        return {"distance_correlation": value}, self.weight * value


class Excess(Defence):
    """Lowers the distance correlation between features and a target's residual given the labels.

    The residual is the target minus its mean given the labels, by least squares. The task needs
    the information in the labels; the features should hold nothing else about the target.

    Args:
        target: "pixels": the image at 16 x 16; or "identity": a face embedding, a batch's
            "embeddings".
        weight: of the bias-corrected squared distance correlation.
        attributes: A, the labels of an image.
        size: T, the values of a target.
    """

    def __init__(self, target: str, weight: float, attributes: int, size: int):
        super().__init__(name=f"excess_{target}")
        self.target = target
        self.weight = weight
        self.measurements = (f"excess_{target}",)
        self._coefficients = self.add_weight(
            shape=(attributes + 1, size),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            name="coefficients",
        )

    def adapt(self, batches: Iterable[Batch]) -> None:
        """Fits the target's mean given the labels, on private batches.

        Call it once, before the first step; checkpoints keep the result.
        """
        products, moments = 0.0, 0.0
        for batch in batches:
            inputs = tf.cast(_with_one(batch["labels"]), tf.float64)
            targets = tf.cast(self._targets(batch), tf.float64)
            products += tf.matmul(inputs, inputs, transpose_a=True)
            moments += tf.matmul(inputs, targets, transpose_a=True)
        # The pseudo-inverse: labels that never vary make the matrix singular.
        inverse = tf.linalg.pinv(products)
        self._coefficients.assign(tf.cast(tf.matmul(inverse, moments), tf.float32))

    def penalize(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the distance correlation, and its weighted value."""
        expected = tf.matmul(_with_one(batch["labels"]), self._coefficients.value)
        value = distance_correlation(features, self._targets(batch) - expected)
        return {self.measurements[0]: value}, self.weight * value

    def _targets(self, batch: Batch) -> tf.Tensor:
        if self.target == "identity":
            return batch["embeddings"]
        return thumbnails(batch["images"])


class MaxEntropy(Defence):
    """Raises the entropy of an identity classifier's predictions from features.

    MaxEnt-ARL of Roy and Boddeti (2019, Eq. 4 and 5): the classifier learns the people of the
    private images by cross entropy, and the encoder raises the entropy of its predictions.

    Args:
        classifier: built: features to a logit for each of K people.
        weight: of the negative entropy, as a share of its largest value, log K.
    """

    learns_from = "private"
    measurements = ("identity_entropy",)
    update_measurements = ("identity",)

    def __init__(self, classifier: keras.Model, weight: float):
        super().__init__(name="max_entropy")
        self.classifier = classifier
        self.weight = weight

    def compile(self, optimizer, **kwargs):
        """Sets the classifier's optimiser and builds it."""
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.classifier.trainable_variables)

    def update(self, batch: Batch, features: tf.Tensor) -> Losses:
        """Trains the classifier by cross entropy; images of unknown people add a loss of 0."""
        with tf.GradientTape() as tape:
            logits = self.classifier(features, training=True)
            targets = tf.one_hot(batch["identity"], logits.shape[-1])
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses)
        variables = self.classifier.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"identity": loss}

    def penalize(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the entropy as a share of log K, and its negative weighted value."""
        logs = tf.nn.log_softmax(self.classifier(features, training=False))
        entropy = -tf.reduce_mean(tf.reduce_sum(tf.exp(logs) * logs, axis=1))
        share = entropy / tf.math.log(float(logs.shape[-1]))
        return {"identity_entropy": share}, -self.weight * share


def thumbnails(images: tf.Tensor) -> tf.Tensor:
    """Returns images at 16 pixels a side as vectors, float32 [N, 768], by area averaging."""
    factor = images.shape[1] // SIDE
    small = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    return tf.reshape(small, (tf.shape(images)[0], SIDE * SIDE * 3))


def _with_one(labels: tf.Tensor) -> tf.Tensor:
    """Returns labels with a constant 1 appended, float32 [N, A + 1]."""
    labels = tf.cast(labels, tf.float32)
    return tf.concat([labels, tf.ones_like(labels[:, :1])], axis=1)
