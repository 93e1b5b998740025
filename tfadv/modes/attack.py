"""--mode=attack: runs all attacks on encoders that can only be called, and reports."""

from functools import partial

import numpy as np

from tfadv.attacks import registry
from tfadv.attacks.black_box import PredictionsClassifier, PredictionsEncoder
from tfadv.attacks.references import CHANCE, MEAN_FACE, REAL_IMAGE, measure_references
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import Dataset
from tfadv.evaluation.leakage_measures import HARD_PREDICTIONS, UNPROTECTED
from tfadv.evaluation.recognition.embedding_cache import cache_folder
from tfadv.models import build
from tfadv.modes import loading, tensorboard
from tfadv.modes.scope import Announce, in_scope, quiet
from tfadv.reporting import attack as page
from tfadv.reporting import common
from tfadv.reporting.conclusion import conclude
from tfadv.training import trainer

_REFERENCES = (MEAN_FACE, CHANCE, REAL_IMAGE)


@in_scope
def run(run: RunFolder, announce: Announce = quiet) -> None:
    """Attacks each encoder, compares with the references, and reports.

    If an unprotected encoder of ours is among them, its hard predictions are attacked, too: they
    are the floor for every encoder that does this task.
    """
    config = run.config
    precision = trainer.set_up(config.runtime)
    dataset = Dataset(config.data)
    attacks = registry.build_attacks(config, partial(build.measure_scale, dataset=dataset))
    # metrics.json has ENCODER/METRIC and ATTACK/METRIC
    reserved = (*_REFERENCES, HARD_PREDICTIONS, *attacks)
    paths = loading.name_encoders(config.encoder, reserved, with_baseline=True)
    encoders, classifiers = loading.load_encoders(paths, config.black_box, dataset)
    recognizers = loading.load_recognizers(config.recognizer, config.data.dataset)
    suite = loading.start(run, dataset, precision, encoders, recognizers, attacks)
    if classify := classifiers.get(UNPROTECTED):
        encoders[HARD_PREDICTIONS] = PredictionsEncoder(encoders[UNPROTECTED], classify, hard=True)
        classifiers[HARD_PREDICTIONS] = PredictionsClassifier(classify.attributes)
    results = {}
    for name, encoder in encoders.items():
        announce(name)
        classify = classifiers.get(name)
        results[name] = suite.run(
            name,
            encoder,
            run.path / "encoders" / name,
            classify=classify,
            task=classify.attributes if classify else config.task.attributes,
            with_separation=True,
        )
    cache = cache_folder(config.data.dir, run.path)
    references = measure_references(dataset, suite.test, recognizers, cache)
    metrics = registry.flat_metrics(results, references)
    tensorboard.write_metrics(trainer.make_writer(run.path), 0, metrics)
    people = len(np.unique(suite.test.identities))
    conclusion = conclude(results, references, people, common.next_steps(run))
    table = page.write(run, dataset, suite, results, references, recognizers, conclusion)
    run.finish(metrics)
    common.print_results(run, table, conclusion)
