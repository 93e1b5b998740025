"""What the modes show in TensorBoard besides curves."""

import tensorflow as tf

from tfadv.modes import tensorboard


def test_final_metrics_are_one_table_with_intervals_and_meanings(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    tensorboard.write_metrics(writer, 7, {"psnr": 14.25, "psnr_ci95": [14.0, 14.5], "mcc": 0.5})
    writer.close()
    (events,) = tmp_path.iterdir()
    values = [
        value
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]
    assert [value.tag for value in values] == ["test"]
    (line,) = [
        line
        for line in tf.make_ndarray(values[0].tensor).item().decode().splitlines()
        if line.startswith("| psnr ")
    ]
    _, _, value, interval, meaning, _ = (cell.strip() for cell in line.split("|"))
    assert float(value) == 14.25
    assert [float(bound) for bound in interval.split(" to ")] == [14.0, 14.5]
    assert "pixel" in meaning or "noise" in meaning


def test_held_out_metrics_have_the_meaning_of_the_metric():
    assert (
        tensorboard.meaning("held_out_mcc") == f"On held-out images. {tensorboard.meaning('mcc')}"
    )
    assert "Smiling" in tensorboard.meaning("held_out_mcc/Smiling")
    assert tensorboard.meaning("public_pixels") == ""
