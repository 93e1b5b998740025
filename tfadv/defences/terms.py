"""The terms that a defence adds to the loss of Enc and f, each with its adversary if it has one.

A term is a `Defence`. To add one, write its class here and have `build.build_defences` make it
where a field of the config asks for it.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from tfadv.defences.distance_correlation import distance_correlation
from tfadv.models.adversary import Adversary
from tfadv.models.losses import protector_penalty

Batch = Mapping[str, tf.Tensor]
Losses = dict[str, tf.Tensor]

SIDE = 16  # pixels a side of the pictures that dependence is measured with


class Defence(keras.Model):
    """A term of the protector's loss.

    Batches are of pictures in [-1, 1]: "images", float32 [N, S, S, 3]; private ones have "labels",
    [N, A]; "identity", int64 [N], from 0 on, -1 where nobody is known; and "embeddings", float32
    [N, E]; the latter two where `modes.protect.private_facts` gives them to a term that needs them.

    Attributes:
        learns_from: "public" or "private": what `update` is called with before each penalty; "":
            there is no adversary, and `update` is not called.
        measurements: the names of what `penalise` measures.
        update_measurements: the names of what `update` measures.
    """

    learns_from = ""
    measurements: tuple[str, ...] = ()
    update_measurements: tuple[str, ...] = ()

    def __init__(self, name: str):
        super().__init__(name=name)
        self.built = True  # what it is made of is

    def update(self, batch: Batch, features: tf.Tensor) -> Losses:
        """Has the adversary learn from a batch and its features, whom no gradient reaches."""
        raise NotImplementedError

    def penalise(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns what is measured on a private batch, and what Enc is to minimise, weighted."""
        raise NotImplementedError


class Reconstruction(Defence):
    """The paper's: a decoder that learns to invert Enc does so badly (Eq. 7 to 9).

    Args:
        adversary: Dec, and D and g as its losses need them; compiled.
        lambda1: weight of the negative reconstruction loss.
        lambda2: weight of the negative perceptual distance; needs an adversary with g.
    """

    learns_from = "public"

    def __init__(self, adversary: Adversary, lambda1: float = 0.0, lambda2: float = 0.0):
        super().__init__(name="reconstruction")
        if not (lambda1 or lambda2):
            raise ValueError("lambda1 and lambda2 are 0: there is no defence")
        if lambda2 and adversary.g is None:
            raise ValueError(f"lambda2 = {lambda2} needs an adversary with g")
        self.adversary = adversary
        self.lambda1 = lambda1
        self.lambda2 = lambda2

    @property
    def measurements(self) -> tuple[str, ...]:
        """The pixels' distance, and the perceptual one where it counts."""
        return ("reconstruction", "perceptual") if self.lambda2 else ("reconstruction",)

    @property
    def update_measurements(self) -> tuple[str, ...]:
        """The losses of Dec and D."""
        return self.adversary.measurements

    def update(self, batch: Batch, features: tf.Tensor) -> Losses:
        """Update (a): Dec and D by Eq. 5."""
        return self.adversary.update(batch["images"], features)

    def penalise(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns L_p and L_perc, and -lambda_1 L_p - lambda_2 L_perc; Dec is held."""
        losses = self.adversary.distances(
            batch["images"], self.adversary(features), perceptual=bool(self.lambda2)
        )
        penalty = protector_penalty(
            losses["reconstruction"], losses.get("perceptual", 0.0), self.lambda1, self.lambda2
        )
        return losses, penalty


class NoPeek(Defence):
    """The distance correlation of Z and the picture is to be small (Vepakomma et al. 2020).

    Args:
        weight: of the bias-corrected squared distance correlation with the pixels at 16 x 16.
    """

    measurements = ("distance_correlation",)

    def __init__(self, weight: float):
        super().__init__(name="nopeek")
        self.weight = weight

    def penalise(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the distance correlation, and it weighted."""
        value = distance_correlation(features, thumbnails(batch["images"]))
        return {"distance_correlation": value}, self.weight * value


class Excess(Defence):
    """Z is not to depend on what a target has beyond its mean given the labels.

    What the labels say of the target, the task needs and Z has to say; the distance correlation is
    that of Z and the rest.

    Args:
        target: "pixels", at 16 x 16; or "identity", a face embedding, as a batch's "embeddings".
        weight: of the bias-corrected squared distance correlation.
        attributes: a, the labels of a picture.
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

    def adapt(self, batches) -> None:
        """Fits the target's mean given the labels, by least squares, on private batches.

        Do this once, before the first step; a checkpoint keeps the result.
        """
        products, moments = 0.0, 0.0
        for batch in batches:
            known = tf.cast(_with_one(batch["labels"]), tf.float64)
            products += tf.matmul(known, known, transpose_a=True)
            moments += tf.matmul(known, tf.cast(self._targets(batch), tf.float64), transpose_a=True)
        # Labels that never differ leave a direction without a value of its own: 0 is as good.
        inverse = tf.linalg.pinv(products)
        self._coefficients.assign(tf.cast(tf.matmul(inverse, moments), tf.float32))

    def penalise(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the distance correlation, and it weighted."""
        expected = tf.matmul(_with_one(batch["labels"]), self._coefficients.value)
        value = distance_correlation(features, self._targets(batch) - expected)
        return {self.measurements[0]: value}, self.weight * value

    def _targets(self, batch: Batch) -> tf.Tensor:
        if self.target == "identity":
            return batch["embeddings"]
        return thumbnails(batch["images"])


class MaxEntropy(Defence):
    """Who is in a picture is to be as uncertain as can be to a classifier of Z.

    MaxEnt-ARL of Roy and Boddeti (2019, Eq. 4 and 5): the classifier learns the people of the
    private pictures by cross entropy, and Enc raises the entropy of its answers.

    Args:
        classifier: built: features to a logit for each person.
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
        """Takes the optimiser of the classifier and builds it."""
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.classifier.trainable_variables)

    def update(self, batch: Batch, features: tf.Tensor) -> Losses:
        """The classifier learns who is who; people who aren't known teach nothing."""
        with tf.GradientTape() as tape:
            logits = self.classifier(features, training=True)
            targets = tf.one_hot(batch["identity"], logits.shape[-1])
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            loss = tf.reduce_mean(losses)
        variables = self.classifier.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"identity": loss}

    def penalise(self, batch: Batch, features: tf.Tensor) -> tuple[Losses, tf.Tensor]:
        """Returns the entropy as a share of the largest, and its negative weighted."""
        logs = tf.nn.log_softmax(self.classifier(features, training=False))
        entropy = -tf.reduce_mean(tf.reduce_sum(tf.exp(logs) * logs, axis=1))
        share = entropy / tf.math.log(float(logs.shape[-1]))
        return {"identity_entropy": share}, -self.weight * share


def thumbnails(images: tf.Tensor) -> tf.Tensor:
    """Pictures at 16 pixels a side as vectors, float32 [N, 768], by area averaging."""
    factor = images.shape[1] // SIDE
    small = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    return tf.reshape(small, (tf.shape(images)[0], SIDE * SIDE * 3))


def _with_one(labels: tf.Tensor) -> tf.Tensor:
    """Labels with a 1 behind them, float32 [N, A + 1]."""
    labels = tf.cast(labels, tf.float32)
    return tf.concat([labels, tf.ones_like(labels[:, :1])], axis=1)
