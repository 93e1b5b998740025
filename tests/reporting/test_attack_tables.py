from tfadv.attacks.battery import Leak
from tfadv.attacks.scoring import Finding
from tfadv.reporting.attack_tables import strongest, summary

LEAK = Leak(
    utility={"mcc_task": 0.5},
    attackers={
        "decoder": Finding({"psnr": 13.0, "ssim": 0.4, "reid_rank1": 0.02}),
        "ridge": Finding({"psnr": 14.0, "ssim": 0.3, "reid_rank1": 0.01}),
        "feature_map": Finding({"feature_similarity": 0.3, "feature_reid_rank1": 0.05}),
        "linkage": Finding({"linkage_rank1": 0.04, "linkage_auc": 0.8}),
    },
    efforts={},
    probes={},
)


def test_the_strongest_attacker_of_a_measure_is_named():
    assert strongest(LEAK, "psnr") == ("ridge", 14.0)
    assert strongest(LEAK, "ssim") == ("decoder", 0.4)
    assert strongest(LEAK, "reid_rank1") == ("feature_map", 0.05)
    assert strongest(LEAK, "face_similarity") is None


def test_the_summary_is_of_the_strongest_attackers():
    assert summary(LEAK) == {"mcc_task": 0.5, "psnr": 14.0, "ssim": 0.4, "reid_rank1": 0.05}
