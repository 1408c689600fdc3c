"""Every file name that torchvision's ImageFolder reads is one of ours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from cache_builder.datasets import open_source
from cache_builder.datasets.decoding import EXTENSIONS


def test_what_torchvision_reads_is_read() -> None:
    assert set(IMG_EXTENSIONS) <= set(EXTENSIONS)


@pytest.mark.parametrize(
    ("name", "kind", "mode"), [("a.jfif", "JPEG", "RGB"), ("b.PGM", "PPM", "L"), ("c.jpe", "JPEG", "L")]
)
def test_other_names_of_the_same_formats(tmp_path: Path, name: str, kind: str, mode: str) -> None:
    (tmp_path / "cat").mkdir()
    Image.fromarray(np.full((8, 8), 70, np.uint8)).convert(mode).save(tmp_path / "cat" / name, kind)
    source = open_source(f"imagefolder:{tmp_path}")
    assert list(source.ids) == [f"cat/{name}"]
    assert abs(float(source.read(0).value.float().mean()) - 70) < 2
