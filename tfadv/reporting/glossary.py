"""The meaning of each number in metrics.json, in plain words."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Column:
    """The name, meaning and format of a number.

    Attributes:
        name: its heading.
        meaning: one or two sentences, shown as a tooltip and under the table.
        better: "higher", "lower", or "" if neither is better.
        format: a format specification.
        group: a heading over adjacent columns, such as an encoder's name.
    """

    name: str
    meaning: str = ""
    better: str = ""
    format: str = "z.3f"
    group: str = ""

    @property
    def arrow(self) -> str:
        """↑, ↓ or nothing."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")


def _utility(name: str, meaning: str) -> Column:
    return Column(name, f"{meaning} Higher is more useful.", "higher")


def _leak(name: str, meaning: str, form: str = "z.3f", better: str = "lower") -> Column:
    return Column(name, f"{meaning} {better.capitalize()} is more private.", better, form)


def _identity(
    names: dict[str, str], subject: str, other: str = "another image", note: str = ""
) -> dict[str, Column]:
    """Returns how well people are found by comparing `subject` with other images.

    Args:
        names: metric -> heading, for rank 1, rank 5, AUC and EER.
        subject: what is compared.
        other: what it is compared with.
        note: a sentence for all four.
    """
    same = f"{other} of the same person"
    share = f"Share of test images for which {subject} is closest to {same}."
    share_of_five = (
        f"Share of test images for which {same} is among the five that are closest to {subject}."
    )
    chance = (
        f"Chance that {subject} is closer to {same} than to one of another person. 0.5 is chance "
        f"level."
    )
    error = (
        f"Error rate of verifying a person by {subject}, where false accepts equal false rejects. "
        f"50% is chance level."
    )
    forms = ((share, "z.1%"), (share_of_five, "z.1%"), (chance,), (error, "z.1%", "higher"))
    return {
        metric: _leak(heading, meaning + note, *form)
        for (metric, heading), (meaning, *form) in zip(names.items(), forms, strict=True)
    }


_SCALE = "1 is perfect, 0 is chance level."
_TUNED = "with each attribute's threshold tuned on held-out private images."
_OUTSIDE = "mean over the attributes outside the task"
_CONVERGED = (
    "1 if training ended because held-out public images no longer improved. 0 if it ended at its "
    "limit on steps, which flatters the defence."
)
_STEPS = "Number of training steps, including those after the best point."
_STANDARDISED = "the trace of the covariance matrix of standardised features."

MEANINGS: dict[str, Column] = {
    "mcc": _utility(
        "Mean MCC",
        "How well the service predicts the attributes: Matthews correlation, mean over all "
        f"attributes of the data set. Attributes outside the task count as 0. {_SCALE}",
    ),
    "mcc_task": _utility(
        "Task MCC",
        "How well the service does its task: Matthews correlation (MCC), mean over the task's "
        f"attributes. {_SCALE}",
    ),
    "mcc_tuned": _utility("Mean MCC, tuned", f"Mean MCC {_TUNED}"),
    "mcc_task_tuned": _utility("Task MCC, tuned", f"Task MCC {_TUNED}"),
    "face_similarity": _leak(
        "Face similarity",
        "How similar a face recognizer finds the reconstruction and the image: mean cosine of "
        "their embeddings. 1 is identical.",
    ),
    "face_similarity_inner": _leak(
        "Face similarity, inner layer",
        "Face similarity at an inner layer of the recognizer, which describes the look of a face "
        "more than its identity: mean cosine. 1 is identical.",
    ),
    "feature_similarity": _leak(
        "Feature similarity",
        "How well a face embedding is guessed from the feature alone: mean cosine of the guessed "
        "and the true embedding. 1 is identical.",
    ),
    "ssim": _leak(
        "SSIM",
        "Structural similarity of the reconstruction and the image: brightness, contrast and "
        "structure. 1 is identical.",
    ),
    "psnr": _leak(
        "PSNR (dB)",
        "Peak signal-to-noise ratio: how close the reconstruction is to the image, pixel by pixel, "
        "in decibels.",
        "z.2f",
    ),
    "mse": _leak(
        "MSE",
        "Mean squared error between the reconstruction and the image, with pixels from -1 to 1. "
        "0 is identical.",
        "z.4f",
        "higher",
    ),
    **_identity(
        {
            "reid_rank1": "Re-identification, rank 1",
            "reid_rank5": "Re-identification, rank 5",
            "verification_auc": "Verification AUC",
            "verification_eer": "Verification EER",
        },
        "the attack's result",
        note=" The result is a reconstruction, a guessed face embedding, or the feature itself.",
    ),
    **_identity(
        {
            "feature_reid_rank1": "Re-identification by guessed embedding, rank 1",
            "feature_reid_rank5": "Re-identification by guessed embedding, rank 5",
            "feature_verification_auc": "Verification AUC by guessed embedding",
            "feature_verification_eer": "Verification EER by guessed embedding",
        },
        "the face embedding guessed from the feature",
    ),
    **_identity(
        {
            "linkage_rank1": "Linkage, rank 1",
            "linkage_rank5": "Linkage, rank 5",
            "linkage_auc": "Linkage AUC",
            "linkage_eer": "Linkage EER",
        },
        "the image's feature",
        "the feature of another image",
        " Features are compared by a metric learned on public people, without a decoder. An audit "
        "also compares the face embeddings guessed from features.",
    ),
    "info_nce_bits": _leak(
        "Information on identity, bits",
        "Lower bound (InfoNCE) on the information that two features of one person share, and so on "
        "the information that a feature holds about identity (Eq. 11 to 15). A small value proves "
        "nothing.",
    ),
    "dfil": _leak(
        "dFIL",
        "Fisher information that a noisy feature holds about one value of the image, on average. "
        "Its inverse bounds the squared error of unbiased reconstructions. An attacker who knows "
        "what faces look like is not bound by it.",
    ),
    "lda_within": Column(
        "LDA within, S_w",
        f"How much the features of one person vary: {_STANDARDISED} S_w and S_b add up to the "
        "number of dimensions.",
    ),
    "lda_between": Column(
        "LDA between, S_b",
        f"How much the mean features of people vary: {_STANDARDISED} S_w and S_b add up to the "
        "number of dimensions.",
    ),
    "lda_score": _leak(
        "LDA score",
        "How far apart people are in feature space, relative to how much each person's features "
        "vary: S_b / S_w, on standardised features. With few images per person it is larger by "
        "chance.",
    ),
    "attribute_mcc": _leak(
        "Attribute inference, MCC",
        f"How well the attack infers attributes: Matthews correlation, {_OUTSIDE}. {_SCALE}",
    ),
    "attribute_auc": _leak(
        "Attribute inference, AUC",
        "Chance that an image with an attribute gets a higher score than an image without it, "
        f"{_OUTSIDE}. 0.5 is chance level.",
    ),
    "attribute_accuracy": _leak(
        "Attribute inference, accuracy",
        f"Share of correct predictions, {_OUTSIDE}. Compare it with the majority's accuracy.",
        "z.1%",
    ),
    "attribute_majority_accuracy": Column(
        "Majority, accuracy",
        f"Accuracy of always predicting the more frequent value, {_OUTSIDE}. It needs no "
        "feature. An attack with the same accuracy can still infer much: see its AUC.",
        format="z.1%",
    ),
    "images_per_s": Column(
        "Training images/s", "Images per second in training. Higher is faster.", "higher", ",.0f"
    ),
    "attack_steps": Column("Attack steps", _STEPS, format=",.0f"),
    "attack_converged": Column("Attack converged", _CONVERGED, format=".0f"),
    "feature_map_steps": Column("Steps of the embedding guess", _STEPS, format=",.0f"),
    "feature_map_converged": Column("Embedding guess converged", _CONVERGED, format=".0f"),
    "held_out_loss": Column(
        "Held-out loss",
        "The attack's loss at its best point, on public images that it did not learn from. Compare "
        "it only between attacks that minimise the same loss.",
        format="z.4f",
    ),
    "test_examples": Column("Test images", "Number of test images.", format=",.0f"),
}


def describe(name: str) -> Column:
    """Returns the column of a metric; a column with just the name if the metric is unknown.

    Args:
        name: as in metrics.json, a plain metric or
            `mcc/ATTRIBUTE`, `attribute_mcc/ATTRIBUTE` and the like: of one attribute;
            `METRIC_centred`: of identity, after the mean embeddings are subtracted;
            `METRIC/RECOGNIZER`: of identity, by a recognizer that no attack learned from;
            `ATTACK/METRIC` or `ENCODER/METRIC`: of another attack or encoder.
    """
    if name in MEANINGS:
        return MEANINGS[name]
    base, _, suffix = name.partition("/")
    if suffix and (base == "mcc" or base.startswith("attribute_")):
        return _of_one_attribute(base, suffix)
    if suffix and describe(suffix).meaning:
        column = describe(suffix)
        return replace(column, name=f"{column.name}, {base.replace('_', ' ')}")
    plain = base.removesuffix("_centred")
    if plain not in MEANINGS or not plain.startswith(("face_", "reid_", "verification_")):
        return Column(name)
    column = MEANINGS[plain]
    heading, meaning = column.name, column.meaning
    if plain != base:
        heading += ", centred"
        meaning += " The mean embedding of all reconstructions and that of all images are "
        meaning += "subtracted first."
    if suffix:
        heading += f" ({suffix})"
        meaning += f" Measured by {suffix}, a recognizer that no attack learned from."
    return replace(column, name=heading, meaning=meaning)


def _of_one_attribute(metric: str, attribute: str) -> Column:
    if metric == "mcc":
        meaning = f"How well the service predicts {attribute}: Matthews correlation. {_SCALE}"
        return _utility(f"MCC {attribute}", meaning)
    column = describe(metric)
    meaning = column.meaning.replace(_OUTSIDE, f"of {attribute} alone")
    return replace(column, name=f"{column.name}, {attribute}", meaning=meaning)


TERMS = {
    "attack": "A way to recover the image or the person from features. It learns from public "
    "images, and is measured on test images.",
    "attribute": "A yes-or-no fact about an image, such as Smiling. The task is to predict some.",
    "attribute inference": "Predicting an attribute that the task does not train, from features.",
    "bottleneck": "What the encoder does to a feature before it is sent: fewer values, noise, "
    "rounding to a few bits, or predictions in place of the feature.",
    "chance": "What an attacker gets without any feature, by guessing.",
    "classifier": "The service's network: from features to the attributes of the task.",
    "closure": "The share of the gap between no protection (0%) and hard predictions only (100%) "
    "that a defence closes. It can lie outside.",
    "converged": "An attack has converged if more training would gain next to nothing. Numbers of "
    "an attack that has not are too low, which flatters the defence.",
    "decoder": "A network that reconstructs the image from its feature. The defence trains against "
    "one; attackers train new ones. The paper calls an attacker's decoder Dec^a.",
    "discriminator": "A network that tells real images from reconstructions. It helps a decoder "
    "to make reconstructions that look real.",
    "encoder": "The network on the device: from an image to its feature.",
    "feature": "What the encoder sends in place of the image: numbers.",
    "genuine pair, impostor pair": "Two images of one person; two images of two people.",
    "guessed embedding": "The face embedding that an attack guesses from the feature, without an "
    "image. The paper calls it M(Z): M is the network, Z the feature.",
    "hard predictions": "Yes or no for each attribute of the task. No feature that allows these "
    "predictions leaks less, so they are the floor of every comparison.",
    "held-out images": "Images that nothing was trained on, by which settings and attacks are "
    "chosen. Results are reported on test images.",
    "identity": "The person in an image, as a number.",
    "interval": "The range that holds the value in 95% of cases if other people of the same kind "
    "had been measured, from bootstrap samples of the test people. It does not cover other "
    "trainings: for those, repeat the run with other seeds.",
    "linkage": "Finding the images of one person by comparing features with features, without "
    "reconstructions.",
    "logits": "The classifier's scores before they become yes or no.",
    "mean face": "The mean of all public images: the best reconstruction without any feature.",
    "private, public and test images": "The service trains on private images. Attackers learn from "
    "public ones. Everything is measured on test images.",
    "probe": "A small model that predicts attributes from features, for attribute inference.",
    "protected, unprotected": "An encoder that was trained with a defence; the same encoder, "
    "trained without one.",
    "recognizer": "A network that turns a face into an embedding, by which people are told apart. "
    "It measures whether a reconstruction shows the right person.",
    "re-identification": "Finding the right person among all test people. Rank 1: the first guess "
    "is right. Rank 5: one of the first five is.",
    "reconstruction": "The image that an attack makes from a feature.",
    "strongest attack": "The attack that recovers the most on held-out images, for one measure.",
    "verification": "Deciding whether two images show one person.",
}
