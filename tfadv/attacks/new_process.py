"""Calls an encoder in this process, a new one: `SavedEncoder.in_new_process` starts it."""

import json
import sys
from pathlib import Path

import numpy as np

from tfadv.attacks.black_box import SavedEncoder
from tfadv.config.errors import UserError
from tfadv.config.schema import BlackBox


def main(path: str, settings: str, times: str, folder: str) -> None:
    """Writes features.npy, float32 [times, N, ...], of the batches in images.npz."""
    with np.load(Path(folder, "images.npz"), allow_pickle=False) as file:
        batches = [file[name] for name in file.files]
    encode = SavedEncoder(path, BlackBox(**json.loads(settings)), batches[0].shape[1], batches[0])
    features = []
    for time in range(int(times)):
        for i, batch in enumerate(batches):
            features.append(encode.first[1] if time == i == 0 else encode(batch))
    features = np.concatenate(features)
    np.save(Path(folder, "features.npy"), features.reshape(int(times), -1, *encode.feature_shape))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
