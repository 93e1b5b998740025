"""What the numbers of metrics.json mean, in plain words, and which way is private or useful."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Column:
    """What a number is: its name, what it means, which way is better, how it is printed.

    Attributes:
        name: its heading.
        meaning: in plain words, with which way is private or useful; the page's tooltip.
        better: "higher", "lower", or "" where neither is.
        format: a format specification, of its numbers.
        group: a heading over it and its neighbours of the same group, such as an encoder's name.
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


_CONVERGED = (
    "1 where it ended by itself, as held-out public pictures no longer improved; 0 where a cap on "
    "its steps ended it, which flatters the defence."
)
_TO_WHAT = (
    "to what the attacker made of a feature (a reconstruction, a guessed embedding, or the "
    "feature itself)"
)
_LINKAGE = (
    "Features are compared by a metric learned on public people, with no decoder; in an audit also "
    "by the faces guessed from them."
)


def _probes(kind: str, name: str, what: str) -> dict[str, Column]:
    """What a probe for the attributes outside the task tells, by each of its measures."""
    task = f"How well {what}, trained on public features, predicts attributes outside the task"
    return {
        f"probe_{kind}/mcc": Column(
            f"MCC, {name}",
            f"{task}: Matthews correlation, their mean. 1 is perfect, 0 is chance. "
            "Lower is more private.",
            "lower",
        ),
        f"probe_{kind}/auc": Column(
            f"AUC, {name}",
            f"{task}: the chance that a picture with the attribute scores higher than one without, "
            "their mean. 0.5 is a coin toss. Lower is more private.",
            "lower",
        ),
        f"probe_{kind}/accuracy": Column(
            f"Accuracy, {name}",
            f"{task}: the share of right answers, their mean. Compare it with the majority's. "
            "Lower is more private.",
            "lower",
            "z.1%",
        ),
    }


# In plain words, shown on cards, in tooltips and under the tables.
MEANINGS: dict[str, Column] = {
    "mcc": Column(
        "Mean MCC",
        "How well attributes are predicted: Matthews correlation, mean over all of the dataset's "
        "(0 for those outside the task). 1 is perfect, 0 is chance. Higher is more useful.",
        "higher",
    ),
    "mcc_task": Column(
        "Task MCC",
        "How well the service does its own job: Matthews correlation, mean over the task's "
        "attributes. 1 is perfect, 0 is chance. Higher is more useful.",
        "higher",
    ),
    "mcc_tuned": Column(
        "Mean MCC, tuned",
        "Mean MCC with each attribute's decision threshold tuned on held-out private pictures. "
        "Higher is more useful.",
        "higher",
    ),
    "mcc_task_tuned": Column(
        "Task MCC, tuned",
        "Task MCC with each attribute's decision threshold tuned on held-out private pictures. "
        "Higher is more useful.",
        "higher",
    ),
    "face_similarity": Column(
        "Face similarity",
        "How far a face recogniser takes the reconstruction for the same person: mean cosine of "
        "the two embeddings, at most 1. Lower is more private.",
        "lower",
    ),
    "face_similarity_inner": Column(
        "Face similarity, inner layer",
        "Face similarity at an inner layer of the recogniser, nearer to what a face looks like "
        "than to whose it is: mean cosine, at most 1. Lower is more private.",
        "lower",
    ),
    "feature_similarity": Column(
        "Feature similarity",
        "How well the face embedding can be guessed from the features alone: mean cosine of the "
        "guess and the true one, at most 1. Lower is more private.",
        "lower",
    ),
    "ssim": Column(
        "SSIM",
        "How alike the reconstruction and the picture look in structure, contrast and light. "
        "1 is identical. Lower is more private.",
        "lower",
    ),
    "psnr": Column(
        "PSNR (dB)",
        "How near the reconstruction comes to the picture pixel by pixel, in decibels. "
        "Lower is more private.",
        "lower",
        "z.2f",
    ),
    "mse": Column(
        "MSE",
        "How far the reconstruction lies from the picture: mean squared error of pixels in "
        "[-1, 1]. 0 is identical. Higher is more private.",
        "higher",
        "z.4f",
    ),
    "reid_rank1": Column(
        "Re-identified, rank 1",
        f"How often, among other pictures of the test people, the nearest {_TO_WHAT} shows the "
        "right person. Lower is more private.",
        "lower",
        "z.1%",
    ),
    "reid_rank5": Column(
        "Re-identified, rank 5",
        f"How often, among other pictures of the test people, one of the five nearest {_TO_WHAT} "
        "shows the right person. Lower is more private.",
        "lower",
        "z.1%",
    ),
    "verification_auc": Column(
        "Verification AUC",
        "Chance that what the attacker made of a feature (a reconstruction, a guessed embedding, "
        "or the feature itself) matches its own person better than a stranger. 0.5 is a coin toss. "
        "Lower is more private.",
        "lower",
    ),
    "verification_eer": Column(
        "Verification EER",
        "Error rate of matching what the attacker made of features (reconstructions, guessed "
        "embeddings, or the features themselves) to people, where false accepts equal false "
        "rejects. 50% is a coin toss. Higher is more private.",
        "higher",
        "z.1%",
    ),
    "feature_reid_rank1": Column(
        "Re-identified by M(Z), rank 1",
        "Features whose guessed face embedding M(Z) is nearest to the right person's among other "
        "pictures of the test people; nothing is rebuilt. Lower is more private.",
        "lower",
        "z.1%",
    ),
    "feature_reid_rank5": Column(
        "Re-identified by M(Z), rank 5",
        "Features whose guessed face embedding M(Z) has the right person among the five nearest "
        "faces; nothing is rebuilt. Lower is more private.",
        "lower",
        "z.1%",
    ),
    "feature_verification_auc": Column(
        "Verification AUC of M(Z)",
        "Chance that the face embedding M(Z), guessed from the features alone, matches its own "
        "person better than a stranger. 0.5 is a coin toss. Lower is more private.",
        "lower",
    ),
    "feature_verification_eer": Column(
        "Verification EER of M(Z)",
        "Error rate of matching the face embeddings M(Z), guessed from the features alone, to "
        "people, where false accepts equal false rejects. 50% is a coin toss. "
        "Higher is more private.",
        "higher",
        "z.1%",
    ),
    "linkage_rank1": Column(
        "Linked, rank 1",
        "Features whose nearest neighbour among the features of other pictures of the test people "
        f"is the right person. {_LINKAGE} Lower is more private.",
        "lower",
        "z.1%",
    ),
    "linkage_rank5": Column(
        "Linked, rank 5",
        "Features with the right person among the five nearest neighbours in the features of "
        f"other pictures of the test people. {_LINKAGE} Lower is more private.",
        "lower",
        "z.1%",
    ),
    "linkage_auc": Column(
        "Linkage AUC",
        "Chance that two features of one person lie nearer than those of two strangers. "
        f"{_LINKAGE} 0.5 is a coin toss. Lower is more private.",
        "lower",
    ),
    "info_nce_bits": Column(
        "Information on identity, bits",
        "A lower bound (InfoNCE) on what two features of one person say of each other, and so on "
        "what a feature says of who it is (Eq. 11 to 15). A small value proves nothing. Lower is "
        "more private.",
        "lower",
    ),
    "dfil": Column(
        "dFIL",
        "Fisher information that noisy features hold on a value of the picture, on average. Its "
        "inverse bounds the squared error of an unbiased reconstruction; whoever knows what faces "
        "look like is not bound by it. Lower is more private.",
        "lower",
    ),
    "linkage_eer": Column(
        "Linkage EER",
        "Error rate of telling whether two features are of one person, where false accepts equal "
        f"false rejects. {_LINKAGE} 50% is a coin toss. Higher is more private.",
        "higher",
        "z.1%",
    ),
    "lda_within": Column(
        "LDA within, S_w",
        "How far features of one person spread about their mean: the trace of the covariance of "
        "standardised features. With S_b it is the number of dimensions.",
    ),
    "lda_between": Column(
        "LDA between, S_b",
        "How far people's mean features spread: the trace of the covariance of standardised "
        "features. With S_w it is the number of dimensions.",
    ),
    "lda_score": Column(
        "LDA score",
        "How far apart people lie in feature space, beside how far each one's own features spread: "
        "S_b / S_w, on standardised features. Few pictures each raise it for chance too. "
        "Lower is more private.",
        "lower",
    ),
    **_probes("linear", "linear probe", "a linear classifier"),
    **_probes("mlp", "MLP probe", "a small neural network"),
    "probe_mcc": Column(
        "MCC, strongest probe",
        "How well the attributes outside the task are told from features by who learned it on "
        "public ones: Matthews correlation, their mean. 1 is perfect, 0 is chance. "
        "Lower is more private.",
        "lower",
    ),
    "probe_majority/accuracy": Column(
        "Accuracy, majority",
        "Accuracy on the attributes outside the task of always giving the more frequent answer, "
        "which needs no feature. A probe can be no better and yet tell much: see its AUC.",
        "",
        "z.1%",
    ),
    "images_per_s": Column(
        "Training images/s", "Pictures trained on a second. Higher is faster.", "higher", ",.0f"
    ),
    "attack_steps": Column(
        "Attack steps",
        "Steps that the attacker trained for, the patience after its best point included.",
        "",
        ",.0f",
    ),
    "attack_converged": Column("Attack converged", _CONVERGED, "", ".0f"),
    "feature_map_steps": Column(
        "Steps of M",
        "Steps that M trained for, the patience after its best point included.",
        "",
        ",.0f",
    ),
    "feature_map_converged": Column("M converged", _CONVERGED, "", ".0f"),
    "held_out_loss": Column(
        "Held-out loss",
        "The attacker's loss at its best point, on public pictures that it did not learn from: "
        "how hard it tried. Compare it only between attackers that minimise the same loss.",
        "",
        "z.4f",
    ),
    "test_examples": Column("Test pictures", "Pictures measured on.", "", ",.0f"),
}


def describe(name: str) -> Column:
    """What a metric of metrics.json means.

    Args:
        name: as in metrics.json. `mcc/ATTRIBUTE` is that attribute's; `METRIC/RECOGNISER` is a
            measure of identity by a recogniser that no attacker learned from.

    Returns:
        Its meaning; just the name if it is unknown.
    """
    base, _, suffix = name.partition("/")
    if name in MEANINGS or not suffix:
        return MEANINGS.get(name, Column(name))
    if base == "mcc":
        meaning = f"How well {suffix} is predicted: Matthews correlation. 1 is perfect, 0 is "
        return Column(f"MCC {suffix}", meaning + "chance. Higher is more useful.", "higher")
    if base in MEANINGS and base.startswith(("face_", "reid_", "verification_")):
        column = MEANINGS[base]
        meaning = f"{column.meaning} By {suffix}, a recogniser that no attacker learned from."
        return replace(column, name=f"{column.name} ({suffix})", meaning=meaning)
    return Column(name)
