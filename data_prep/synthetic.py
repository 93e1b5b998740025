"""Synthetic faces as TFRecords: the built-in dataset of the demo and of the tests.

    python -m data_prep.synthetic --data_dir=data

The dataset is `synthetic/default`: 600 identities with 10 images each, 96x96 pixels. Other
numbers (`--identities`, `--pictures`, `--size`, `--seed`, `--shares`) make datasets such as
`synthetic/600x10_96px_seed1`. `tfds build data_prep/synthetic.py` builds the default and
`synthetic/tiny`.
"""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags
from etils import epath

from data_prep import builder, command, faces, spec

SHARES = (0.6, 0.3, 0.1)
JPEG_QUALITY = 95


@dataclasses.dataclass(eq=False)
class SyntheticConfig(builder.SplitConfig):
    """How many faces are rendered, and how.

    Attributes:
        identities: how many.
        pictures: of each identity.
        size: height and width in pixels.
        seed: of the faces; the split has its own.
    """

    shares: tuple[float, ...] = SHARES
    identities: int = 600
    pictures: int = 10
    size: int = 96
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticFaces(spec.Source):
    """Faces that are rendered one by one; `attributes` are known only then.

    Attributes:
        numbers: of each image among those of its identity, int64 [N].
        size: height and width in pixels.
        seed: of the faces.
    """

    numbers: np.ndarray
    size: int
    seed: int

    def example(self, index: int) -> dict[str, Any]:
        """Renders one face and encodes it as JPEG."""
        identity, number = int(self.identities[index]), int(self.numbers[index])
        face = faces.render_face(identity, number, size=self.size, seed=self.seed)
        _, encoded = cv2.imencode(
            ".jpg",
            cv2.cvtColor(face.image, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        )
        return {
            "image": encoded.tobytes(),
            "attributes": face.attributes,
            "identity": identity,
            "name": self.names[index],
        }


class Synthetic(builder.ImageBuilder):
    """Synthetic faces with those of CelebA's attributes that can be rendered."""

    BUILDER_CONFIGS = [  # noqa: RUF012
        SyntheticConfig(name="default"),
        SyntheticConfig(name="tiny", identities=40, pictures=5, size=64),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = None
    description = "Synthetic faces with attributes that can be seen in them."
    attribute_names = tuple(faces.ATTRIBUTES)

    def read_source(self, folder: epath.Path | None = None) -> SyntheticFaces:
        """Returns names and identities; the faces are rendered one by one."""
        config = self.builder_config
        identities = np.repeat(np.arange(config.identities), config.pictures)
        numbers = np.tile(np.arange(config.pictures), config.identities)
        return SyntheticFaces(
            root=epath.Path(),
            names=[f"{i:06d}_{k:04d}.jpg" for i, k in zip(identities, numbers, strict=True)],
            attributes=np.zeros((len(identities), 0), np.uint8),
            identities=identities,
            numbers=numbers,
            size=config.size,
            seed=config.seed,
        )


def prepare(data_dir: str | Path, config: str = "default") -> None:
    """Renders `synthetic/CONFIG` into data_dir, unless it is there.

    Args:
        data_dir: where prepared datasets are.
        config: `default` or `tiny`.
    """
    builder = Synthetic(config=config, data_dir=data_dir)
    if not builder.data_path.exists():
        faces = builder.builder_config.identities * builder.builder_config.pictures
        print(f"rendering {faces:,} synthetic faces into {builder.data_dir}")
        command.build(builder, source=None)


def define_flags() -> flags.FlagValues:
    """Returns the flags of this command."""
    values = command.common_flags(source=None)
    default = Synthetic.builder_configs["default"]
    for name, text, low in (
        ("identities", "how many identities", 1),
        ("pictures", "how many images of each", 1),
        ("size", "height and width in pixels", 16),
        ("seed", "of the faces", 0),
    ):
        flags.DEFINE_integer(
            name, getattr(default, name), text, lower_bound=low, flag_values=values
        )
    return values


def main(values: flags.FlagValues) -> None:
    """Prepares the synthetic faces that the flags ask for."""
    command.prepare(
        Synthetic(config=_config(values), data_dir=values.data_dir),
        source=None,
        beam=command.beam_options(values),
    )


def _config(values: flags.FlagValues) -> SyntheticConfig:
    """Returns the registered config of these numbers, or else a new one named after them."""
    wanted = {name: values[name].value for name in ("identities", "pictures", "size", "seed")}
    wanted["shares"] = command.shares(values, SHARES)
    for config in Synthetic.BUILDER_CONFIGS:
        if all(getattr(config, name) == value for name, value in wanted.items()):
            return config
    name = "{identities}x{pictures}_{size}px_seed{seed}".format(**wanted)
    if wanted["shares"] != SHARES:
        name = spec.config_name(name, wanted["shares"])
    return SyntheticConfig(name=name, **wanted)


if __name__ == "__main__":
    command.run(main, define_flags())
