import json
from pathlib import Path

import numpy as np
import pytest

from tests.recognizers import caffe, card, load, onnx
from tfadv.config.errors import UserError
from tfadv.evaluation.recognition.files import ARCFACE_TEMPLATE, check_recognizer, read_card


def test_one_mean_in_a_card_is_for_all_channels(tmp_path):
    path = onnx(tmp_path / "face.onnx")
    card(path, mean=100)
    assert read_card(path).mean == (100, 100, 100)


def test_the_template_grows_with_the_size_that_a_card_gives(tmp_path):
    path = onnx(tmp_path / "face.onnx")
    card(path, size=224)
    doubled = 2 * np.array(ARCFACE_TEMPLATE)
    np.testing.assert_allclose(read_card(path).template, doubled)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"sizes": 3}', "unknown key sizes; it may have size, mean"),
        ('{"size": "96"}', "size is '96'; it must be a whole number"),
        ('{"size": true}', "size is True"),
        ('{"size": 0}', "size is 0"),
        ('{"mean": [1, 2]}', "mean is .*a number, or three"),
        ('{"mean": [1, 2, "3"]}', "mean is "),
        ('{"mean": null}', "mean is None"),
        ('{"scale": NaN}', "scale is nan"),
        ('{"channels": "GRB"}', "channels is 'GRB'; it must be RGB or BGR"),
        ('{"layer": 3}', "layer is 3; it must be the name of a layer"),
        ('{"output": 3}', "output is 3"),
        ('{"template": [[1, 2], [3, 4]]}', "template is .*five points"),
        ('{"template": [[1], [1], [1], [1], [1]]}', "template is .*five points"),
        ('{"scale": 1' + "0" * 400 + "}", "scale is 1000"),
        ("[" * 100_000, "can't be read"),
        ("[]", "must be a JSON object"),
        ("{", "can't be read"),
    ],
)
def test_a_card_that_is_wrong_is_an_error(tmp_path, content, message):
    path = onnx(tmp_path / "face.onnx")
    Path(f"{path}.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        check_recognizer(str(path))
    assert "face.onnx.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["saved_model.pb", "recognizer.json"])
def test_a_folder_that_lacks_a_file_is_no_recognizer(tmp_path, missing):
    for name in {"saved_model.pb", "recognizer.json"} - {missing}:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"has no {missing}; .*--mode=recognizer"):
        check_recognizer(str(tmp_path))


@pytest.mark.parametrize("description", [{"size": "16"}, {"size": 0}, {"inner": 3}])
def test_a_description_that_is_wrong_is_an_error(tmp_path, description):
    (tmp_path / "saved_model.pb").touch()
    content = {"size": 16, "inner": "avgpool", **description}
    (tmp_path / "recognizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"recognizer\.json: {next(iter(description))} is "):
        check_recognizer(str(tmp_path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.onnx does not exist$"):
        check_recognizer(str(tmp_path / "none.onnx"))


def test_a_missing_torch_file_says_where_openfaces_is(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; .*https://.*v1\.t7 \(MD5 [0-9a-f]{32}\)"):
        load(tmp_path / "openface.t7")


def test_a_caffe_file_needs_its_prototxt(tmp_path):
    path = caffe(tmp_path / "face.caffemodel")
    path.with_suffix(".prototxt").unlink()
    with pytest.raises(UserError, match=r"needs face\.prototxt next to it"):
        check_recognizer(str(path))


def test_another_suffix_is_refused(tmp_path):
    (tmp_path / "face.pth").touch()
    with pytest.raises(UserError, match=r"face\.pth is of no known kind; it must be a \.t7, "):
        check_recognizer(str(tmp_path / "face.pth"))
