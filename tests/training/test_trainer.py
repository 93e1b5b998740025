import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.config.schema import Runtime, Train
from tfadv.training import signals
from tfadv.training import trainer as training
from tfadv.training.trainer import Trainer, TrainingError, adam, make_writer

DIMENSIONS = 4
TRUTH = np.arange(1.0, DIMENSIONS + 1).astype(np.float32)


class Regression(keras.Model):
    """Least squares with a known solution, and a batch-normalised branch for its statistics."""

    measurements = ("loss", "error")

    def __init__(self):
        super().__init__()
        self.linear = keras.layers.Dense(1, use_bias=False)
        self.linear.build((None, DIMENSIONS))
        self.normalisation = keras.layers.BatchNormalization()
        self.normalisation.build((None, DIMENSIONS))

    def compile(self, optimizer):
        super().compile(optimizer=optimizer)
        self.optimizer.build(self.trainable_variables)

    def train_step(self, batch):
        with tf.GradientTape() as tape:
            predicted = self.linear(batch["x"])[:, 0]
            loss = tf.reduce_mean(tf.square(predicted - batch["y"]))
            total = loss + tf.reduce_mean(self.normalisation(batch["x"], training=True))
        gradients = tape.gradient(total, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss, "error": tf.sqrt(loss)}


def make_model():
    keras.utils.set_random_seed(3)
    model = Regression()
    model.compile(adam(0.05, clip_norm=5.0, decay_steps=400))
    return model


def batches(start):
    """Batch `i` is a function of `i` alone."""

    def make(i):
        x = tf.random.stateless_normal((8, DIMENSIONS), seed=(i, 0))
        return {"x": x, "y": tf.linalg.matvec(x, TRUTH)}

    return tf.data.Dataset.range(start, 10**9).map(make)


def train(folder, steps, config=None, evaluate=lambda step: ({}, True)):
    config = config or Train(
        steps=steps, batch=8, log_every=10, evaluate_every=25, checkpoint_every=20
    )
    trainer = Trainer(make_model(), config, folder, "regression")
    trainer.run(batches, evaluate)
    return trainer


def test_training_finds_the_known_solution(tmp_path):
    trainer = train(tmp_path, 400)
    weights = trainer.model.linear.kernel.numpy()[:, 0]
    np.testing.assert_allclose(weights, TRUTH, atol=0.02)


def test_loop_of_several_steps_equals_steps_one_by_one(tmp_path):
    trainer, alone = train(tmp_path, 30), make_model()
    for batch in batches(0).take(30):
        alone.train_step(batch)
    for ours, theirs in zip(trainer.model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_logged_values_are_means_over_the_steps_since_the_last_row(tmp_path):
    trainer, alone = train(tmp_path, 20), make_model()
    losses = [alone.train_step(batch)["loss"].numpy() for batch in batches(0).take(20)]
    steps, values = trainer.history.series("loss")
    assert steps == [10, 20]
    np.testing.assert_allclose(values, [np.mean(losses[:10]), np.mean(losses[10:])], rtol=1e-4)


def test_interrupted_training_resumes_to_the_very_same_weights_slots_and_history(tmp_path):
    whole = train(tmp_path / "whole", 60)

    class KilledError(Exception):
        pass

    def killer(step):
        if step == 50:
            raise KilledError  # 10 steps after the checkpoint at 40
        return {}, True

    config = Train(steps=60, batch=8, log_every=10, evaluate_every=25, checkpoint_every=20)
    with pytest.raises(KilledError):
        train(tmp_path / "broken", 60, config, killer)
    resumed = train(tmp_path / "broken", 60, config)

    assert resumed.step == whole.step == 60
    for ours, theirs in zip(
        resumed.model.get_weights() + [v.numpy() for v in resumed.model.optimizer.variables],
        whole.model.get_weights() + [v.numpy() for v in whole.model.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert resumed.history.series("loss") == whole.history.series("loss")


def test_checkpoint_holds_every_variable_of_model_and_optimizer(tmp_path):
    trainer = train(tmp_path, 20)
    saved = tf.train.list_variables(str(tmp_path / "checkpoints/ckpt-20"))
    kept = [v for v in trainer.model.variables if "seed" not in v.path]
    slots = trainer.model.optimizer.variables
    shapes = sorted(tuple(v.shape) for v in {id(v): v for v in [*kept, *slots]}.values())
    stored = [tuple(shape) for name, shape in saved if name.endswith("VARIABLE_VALUE")]
    for shape in set(shapes):
        assert stored.count(shape) >= shapes.count(shape), shape


def test_finished_training_is_not_trained_again(tmp_path):
    train(tmp_path, 20)
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "checkpoints").iterdir())]
    again = train(tmp_path, 20)
    assert again.step == 20
    assert before == [
        path.stat().st_mtime_ns for path in sorted((tmp_path / "checkpoints").iterdir())
    ]


def test_evaluation_comes_at_its_steps_and_at_the_end_and_can_stop_the_training(tmp_path):
    steps_seen = []
    trainer = train(tmp_path / "a", 60, evaluate=lambda step: (steps_seen.append(step) or {}, True))
    assert steps_seen == [25, 50, 60]
    trainer = train(tmp_path / "b", 60, evaluate=lambda step: ({"held_out": step}, step < 50))
    assert trainer.step == 50
    assert trainer.history.series("held_out") == ([25, 50], [25, 50])
    assert Trainer(make_model(), Train(), tmp_path / "b", "again").step == 50


def test_old_checkpoints_are_removed(tmp_path):
    train(tmp_path, 100)
    assert len(list((tmp_path / "checkpoints").glob("*.index"))) == 2


def test_loss_that_is_not_finite_stops_with_its_name_and_keeps_the_checkpoint(tmp_path):
    config = Train(steps=60, batch=8, log_every=10, evaluate_every=60, checkpoint_every=20)

    def poisoned(start):
        def spoil(i, batch):
            bad = tf.where(i + start >= 35, np.nan, 1.0)
            return batch | {"y": batch["y"] * tf.cast(bad, tf.float32)}

        return batches(start).enumerate().map(spoil)

    trainer = Trainer(make_model(), config, tmp_path, "regression")
    with pytest.raises(TrainingError, match="the loss loss is nan at step 36;"):
        trainer.run(poisoned, lambda step: ({}, True))
    assert Trainer(make_model(), config, tmp_path, "regression").step == 20


def spoiled(at, until=10**9):
    """Batches that are not finite at some steps, the first time that they are read."""
    steps_seen = []

    def batches_from(start):
        steps_seen.append(start)
        end = until if len(steps_seen) == 1 else 0

        def spoil(i, batch):
            bad = (i + start >= at) & (i + start < end)
            return batch | {"y": batch["y"] * tf.where(bad, np.nan, np.float32(1.0))}

        return batches(start).enumerate().map(spoil)

    return batches_from


def test_weight_that_is_not_finite_is_never_saved(tmp_path):
    config = Train(steps=60, batch=8, log_every=10, evaluate_every=30, checkpoint_every=20)
    trainer = Trainer(make_model(), config, tmp_path, "regression")

    def poison(step):
        trainer.model.normalisation.moving_variance.assign([1.0, np.inf, 1.0, 1.0])
        return {}, True

    with pytest.raises(TrainingError, match=r"moving_variance is not finite at step 40;.*rollback"):
        trainer.run(batches, poison)
    assert Trainer(make_model(), config, tmp_path, "regression").step == 20


def test_training_that_diverged_goes_back_to_its_checkpoint_at_a_lower_rate(tmp_path, capsys):
    schedule = {"batch": 8, "log_every": 10, "evaluate_every": 60, "checkpoint_every": 20}
    config = Train(steps=60, rollbacks=2, **schedule)
    trainer = Trainer(make_model(), config, tmp_path / "back", "regression")
    trainer.run(spoiled(at=35), lambda step: ({}, True))
    assert "back at step 20, learning rates at 0.3 of what they were (1 of 2)" in (
        capsys.readouterr().err
    )
    assert trainer.step == 60
    assert trainer.history.series("loss")[0] == [10, 20, 30, 40, 50, 60]
    # The same by hand: 20 steps, then 40 at 0.3 of the rate.
    other = Trainer(make_model(), Train(steps=20, **schedule), tmp_path / "hand", "regression")
    other.run(batches, lambda step: ({}, True))
    other.model.optimizer.rate_scale.assign(0.3)
    for batch in batches(20).take(40):
        other.model.train_step(batch)
    for ours, theirs in zip(trainer.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    # A run that is resumed keeps its rate.
    resumed = Trainer(make_model(), config, tmp_path / "back", "regression")
    assert resumed.model.optimizer.rate_scale.numpy() == np.float32(0.3)


def test_training_goes_back_rollbacks_times_each_time_at_a_lower_rate(tmp_path, capsys):
    config = Train(steps=60, batch=8, log_every=10, checkpoint_every=20, rollbacks=2)

    def always(start):
        return batches(start).map(lambda batch: batch | {"y": batch["y"] * np.nan})

    trainer = Trainer(make_model(), config, tmp_path, "regression")
    with pytest.raises(TrainingError, match="at step 1;"):
        trainer.run(always, lambda step: ({}, True))
    printed = capsys.readouterr().err
    assert "back at step 0, learning rates at 0.3 of what they were (1 of 2)" in printed
    assert "back at step 0, learning rates at 0.09 of what they were (2 of 2)" in printed
    assert Trainer(make_model(), config, tmp_path, "regression").step == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_in_training_saves_at_once_and_what_follows_is_as_if_it_never_came(tmp_path, number):
    whole = train(tmp_path / "whole", 60)
    config = Train(steps=60, batch=8, log_every=10, evaluate_every=25, checkpoint_every=20)

    def ask(step):
        os.kill(os.getpid(), number)
        return {}, True

    with pytest.raises(signals.Interrupted, match="saved at step 25") as stopped:
        train(tmp_path / "broken", 60, config, ask)
    assert stopped.value.signal == number
    resumed = train(tmp_path / "broken", 60, config)
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert resumed.history.series("loss") == whole.history.series("loss")


def test_second_signal_does_not_wait(tmp_path):
    with signals.deferred() as pending:
        os.kill(os.getpid(), signal.SIGTERM)
        assert pending() == signal.SIGTERM
        with pytest.raises(signals.Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_signals_do_what_they_did_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with signals.raised(), signals.deferred():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_tensorboard_gets_every_row(tmp_path):
    train(tmp_path, 20).writer.close()
    written = {(value.tag, step) for value, step in shown(tmp_path)}
    assert {("loss", 10), ("loss", 20), ("error", 20), ("images_per_s", 10)} <= written


@pytest.mark.parametrize(("steps", "is_shown"), [(20, False), (50, True)])
def test_tensorboard_has_no_curve_of_a_single_point(tmp_path, steps, is_shown):
    # Evaluated every 25 steps and at the end.
    trainer = train(tmp_path, steps, evaluate=lambda step: ({"held_out": 0.5}, True))
    trainer.writer.close()
    assert ("held_out" in {value.tag for value, _ in shown(tmp_path)}) == is_shown
    assert trainer.history.series("held_out")[0][-1] == steps


def test_tensorboard_says_what_values_mean(tmp_path):
    config = Train(steps=20, batch=8, log_every=10, evaluate_every=25, checkpoint_every=20)
    trainer = Trainer(make_model(), config, tmp_path, "regression", describe=lambda n: f"My {n}.")
    trainer.run(batches, lambda step: ({}, True))
    trainer.writer.close()
    meanings = {value.tag: value.metadata.summary_description for value, _ in shown(tmp_path)}
    assert meanings["loss"] == "My loss."


def test_runs_have_names_of_their_own_in_tensorboard(tmp_path):
    for mode in ("protect", "attack"):
        make_writer(tmp_path / "demo" / mode).close()
    names = sorted(path.parent.name for path in tmp_path.rglob("*.v2"))
    assert names == ["demo-attack", "demo-protect"]


def shown(folder):
    """What TensorBoard shows of a folder: pairs of a summary's value and its step."""
    (events,) = (folder / "tensorboard").glob("*/*.v2")
    return [
        (value, event.step)
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]


def test_progress_line_shows_step_losses_speed_and_time_left(tmp_path, capsys):
    train(tmp_path, 20)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("regression  20/20  loss ")
    assert "images/s" in last
    assert last.endswith("ETA 0:00:00")


def test_adam_is_keras_adam_with_cosine_decay_and_clipping():
    ours = adam(0.1, clip_norm=1.0, decay_steps=10)
    theirs = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(0.1, 10), global_clipnorm=1.0
    )
    weights = [keras.Variable(np.ones(3, np.float32)) for _ in range(2)]
    for optimizer, weight in zip((ours, theirs), weights, strict=True):
        for step in range(10):
            optimizer.apply([tf.constant([3.0, -4.0, 0.5 * step])], [weight])
    # Not to the bit: Keras rounds 1 - beta_2 in one place and not in the other.
    np.testing.assert_allclose(weights[0].numpy(), weights[1].numpy(), rtol=1e-5)
    assert float(ours.learning_rate) == pytest.approx(0.0, abs=1e-8)


def test_adam_without_decay_keeps_its_rate_and_without_clip_norm_does_not_clip():
    optimizer = adam(0.1, clip_norm=0.0)
    assert optimizer.global_clipnorm is None
    assert float(optimizer.learning_rate) == pytest.approx(0.1)


def test_set_up_makes_weights_repeatable_and_sets_the_precision():
    try:
        weights = []
        for _ in range(2):
            assert training.set_up(Runtime(seed=5, precision="mixed_bfloat16")) == "mixed_bfloat16"
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
            weights.append(keras.random.normal((2,)).numpy())
        np.testing.assert_array_equal(*weights)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fma avx512f avx512_bf16 amx_bf16 amx_tile", "mixed_bfloat16"),
        ("flags : fma avx512f avx512_bf16", "mixed_bfloat16"),
        ("flags : fma avx512f", "float32"),
        (None, "float32"),
    ],
)
def test_auto_precision_follows_the_cpu(monkeypatch, tmp_path, flags, expected):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("with a GPU, the GPU decides")
    monkeypatch.setattr(training, "CPU_INFO", tmp_path / "cpuinfo")
    if flags:
        training.CPU_INFO.write_text(flags)
    try:
        assert training.set_up(Runtime(precision="auto")) == expected
    finally:
        keras.config.set_dtype_policy("float32")
