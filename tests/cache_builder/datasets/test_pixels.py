"""Any picture becomes the right 8-bit RGB, upright, for all kinds of data alike; or an error names it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.datasets.folder import pil_loader

from cache_builder.datasets import ImageSource, decoding_of, open_source
from cache_builder.datasets.decoding import decode_image, decoded_sample
from cache_builder.datasets.pixels import NEWEST, as_rgb
from cache_builder.format.errors import DataError
from cache_builder.format.frozen import Decoding
from tests.cache_builder.photographs import cut

PHOTO = cut(1, 24, 40)
GREY = PHOTO[..., 1]
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(Image.fromarray(PHOTO), kind, exif=exif.tobytes())


def pixels(data: bytes, decoding: Decoding = NEWEST) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = decode_image(data, decoding).permute(1, 2, 0).numpy()
    return found


def grey_of(data: bytes, decoding: Decoding = NEWEST) -> NDArray[np.uint8]:
    found = pixels(data, decoding)
    assert (found[..., 0] == found[..., 1]).all()
    assert (found[..., 0] == found[..., 2]).all()
    return found[..., 0]


class TestOrientation:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_one_of_eight_is_turned_as_pillow_turns_it(self, orientation: int, kind: str) -> None:
        data = turned(orientation, kind)
        wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        np.testing.assert_array_equal(pixels(data), np.asarray(wanted))
        assert pixels(data).shape[:2] == ((40, 24) if orientation > 4 else (24, 40))

    @pytest.mark.parametrize("orientation", [0, 9, 65_535])
    def test_a_number_that_means_nothing_turns_nothing(self, orientation: int) -> None:
        np.testing.assert_array_equal(pixels(turned(orientation, "PNG")), PHOTO)

    @pytest.mark.parametrize("note", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
    def test_a_damaged_note_does_not_cost_the_picture(self, note: bytes) -> None:
        np.testing.assert_array_equal(pixels(encoded(Image.fromarray(PHOTO), "PNG", exif=note)), PHOTO)

    def test_the_first_rule_leaves_pictures_as_torchvision_loads_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(turned(6, "JPEG"))
        found = pixels((tmp_path / "a.jpg").read_bytes(), decoding=1)
        np.testing.assert_array_equal(found, np.asarray(pil_loader(tmp_path / "a.jpg")))


def put_all_kinds(root: Path, data: bytes) -> list[str]:
    """The same picture in every kind of data; returns the specs."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    (root / "tree" / "cat").mkdir(parents=True)
    (root / "tree" / "cat" / "a.png").write_bytes(data)
    (root / "a.csv").write_text("path,label\ntree/cat/a.png,0\n")
    pq.write_table(pa.table({"path": ["tree/cat/a.png"], "label": [0]}), root / "a.parquet")
    with tarfile.open(root / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [{"bytes": data, "path": None}]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(root / "hf")
    kinds = ["imagefolder:tree", "csv:a.csv", "parquet:a.parquet", "webdataset:a.tar", "hf:hf"]
    specs = [kind.replace(":", f":{root}/", 1) for kind in kinds]
    return [*specs, f"torchvision:ImageFolder:{root}/tree"]


class TestEveryKind:
    def read_all(self, sources: list[ImageSource]) -> list[NDArray[np.uint8]]:
        return [source.read(0).image.permute(1, 2, 0).numpy() for source in sources]

    def test_all_decode_alike_by_either_rule(self, tmp_path: Path) -> None:
        specs = put_all_kinds(tmp_path, turned(6, "PNG"))
        for decoding, wanted in ((1, PHOTO), (2, PHOTO[::-1].swapaxes(0, 1))):
            for found in self.read_all([open_source(spec, decoding) for spec in specs]):
                np.testing.assert_array_equal(found, wanted)

    def test_all_decode_16_bits_alike(self, tmp_path: Path) -> None:
        data = encoded(Image.fromarray(GREY.astype(np.uint16) << 8 | 99), "PNG")
        sources = [open_source(spec) for spec in put_all_kinds(tmp_path, data)]
        assert [decoding_of(source) for source in sources] == [NEWEST] * len(sources)
        for found in self.read_all(sources):
            np.testing.assert_array_equal(found, np.dstack([GREY] * 3))

    def test_torchvisions_own_loaders_keep_the_note(self, tmp_path: Path) -> None:
        for name in ("negative", "positive"):
            folder = tmp_path / "rendered-sst2" / "train" / name
            folder.mkdir(parents=True)
            (folder / "a.png").write_bytes(turned(6, "PNG"))
        spec = f"torchvision:RenderedSST2:{tmp_path}:train"
        for decoding, wanted in ((1, PHOTO), (2, PHOTO[::-1].swapaxes(0, 1))):
            (found, *_) = self.read_all([open_source(spec, decoding)])
            np.testing.assert_array_equal(found, wanted)

    def test_pixels_that_no_file_holds_have_no_rule(self) -> None:
        assert decoding_of(open_source("digits", 1)) is None


FLOATS = (GREY / np.float32(255)).astype(np.float32)


class TestDepths:
    @pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
    def test_16_bit_grey_keeps_its_upper_8(self, mode: str) -> None:
        deep = GREY.astype(np.uint16) << 8 | 200
        kinds = {"I;16": "<u2", "I;16B": ">u2", "I": np.int32}
        image = Image.fromarray(deep.astype(kinds[mode]))
        data = encoded(image, "TIFF")
        assert Image.open(io.BytesIO(data)).mode == mode
        np.testing.assert_array_equal(grey_of(data), GREY)

    def test_a_16_bit_pgm_of_fewer_levels_uses_all_of_them(self) -> None:
        levels = (np.arange(256) * 4095 // 255).astype(">u2")
        data = b"P5\n16 16\n4095\n" + levels.tobytes()
        np.testing.assert_allclose(grey_of(data).reshape(-1).astype(int), np.arange(256), atol=1)

    def test_floats_of_zero_to_one_are_black_to_white(self) -> None:
        np.testing.assert_array_equal(grey_of(encoded(Image.fromarray(FLOATS), "TIFF")), GREY)

    def test_floats_that_are_levels_already_stay(self) -> None:
        np.testing.assert_array_equal(grey_of(encoded(Image.fromarray(FLOATS * 255), "TIFF")), GREY)

    @pytest.mark.parametrize(
        "grey",
        [FLOATS * 1.5, FLOATS - 0.5, FLOATS * 300, np.where(GREY > 99, np.nan, FLOATS), FLOATS * np.inf],
        ids=["1.5", "negative", "300", "nan", "inf"],
    )
    def test_floats_without_a_scale_are_refused_by_name(self, grey: NDArray[np.float32]) -> None:
        with np.errstate(invalid="ignore"):
            data = encoded(Image.fromarray(grey.astype(np.float32)), "TIFF")
        with pytest.raises(DataError, match=r"cat/a\.tif .*floats go from .* expected 0 to 1"):
            decoded_sample(data, "cat/a.tif")

    @pytest.mark.parametrize("value", [-1, 70_000, 2**31 - 1])
    def test_integers_beyond_16_bits_are_refused_by_name(self, value: int) -> None:
        grey = np.where(GREY > 99, value, GREY).astype(np.int32)
        with pytest.raises(DataError, match=r"cat/a\.tif .*integers .* 65,535"):
            decoded_sample(encoded(Image.fromarray(grey), "TIFF"), "cat/a.tif")

    @pytest.mark.parametrize("kind", [np.uint16, np.int32])
    def test_8_bit_levels_in_more_bits_are_no_black_picture(self, kind: type[np.integer]) -> None:
        with pytest.raises(DataError, match="end at 255, where 65,535 is white"):
            decoded_sample(encoded(Image.fromarray(np.maximum(GREY, 255).astype(kind)), "TIFF"), "a.tif")

    def test_a_black_picture_is_black(self) -> None:
        for kind in (np.uint16, np.int32, np.float32):
            assert not grey_of(encoded(Image.fromarray(np.zeros((4, 4), kind)), "TIFF")).any()

    def test_the_first_rule_cuts_off_as_before(self) -> None:
        deep = np.array([[0, 255, 256, 70_000, -5]], np.int32)
        assert grey_of(encoded(Image.fromarray(deep), "TIFF"), 1).tolist() == [[0, 0, 1, 255, 0]]
        floats = np.array([[0, 0.5, 1, 300]], np.float32)
        assert grey_of(encoded(Image.fromarray(floats), "TIFF"), 1).tolist() == [[0, 0, 1, 255]]


COLOURED = ["RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "P", "PA"]
GREYS = ["L", "LA", "I;16", "I;16L", "I;16B", "I", "F"]


class TestModes:
    """Every mode that Pillow has, whether or not one of today's formats opens as it."""

    @pytest.mark.parametrize("mode", COLOURED)
    def test_colours_stay(self, mode: str) -> None:
        image = in_mode(Image.fromarray(PHOTO), mode)
        found = np.asarray(as_rgb(image)).astype(int)
        assert image.mode == mode
        assert np.abs(found - PHOTO).mean() < (12 if mode in ("P", "PA") else 3)

    @pytest.mark.parametrize("mode", GREYS)
    def test_greys_stay(self, mode: str) -> None:
        scale = {"F": 1 / 255, "I": 256}.get(mode, 256 if mode.startswith("I") else 1)
        kinds = {"F": np.float32, "I": np.int32, "I;16B": ">u2", "I;16": "<u2", "I;16L": "<u2"}
        if mode in ("L", "LA"):
            image = Image.fromarray(GREY).convert(mode)
        else:
            size = (GREY.shape[1], GREY.shape[0])
            image = Image.frombytes(mode, size, (GREY * np.float64(scale)).astype(kinds[mode]).tobytes())
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(as_rgb(image))[..., 0], GREY)

    def test_one_bit_is_black_and_white(self) -> None:
        image = Image.fromarray(GREY > 100)
        assert image.mode == "1"
        np.testing.assert_array_equal(np.asarray(as_rgb(image))[..., 0], (GREY > 100) * 255)

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_what_is_transparent_keeps_its_colour(self, mode: str) -> None:
        image = in_mode(Image.fromarray(np.dstack([GREY] * 3)), mode)
        image.putalpha(0)
        assert np.abs(np.asarray(as_rgb(image)).astype(int)[..., 0] - GREY).mean() < 3


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Also the modes that Pillow converts to by way of another one."""
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")  # type: ignore[return-value]
    if mode in ("P", "PA"):
        image = image.quantize(256)
        return image if mode == "P" else image.convert("PA")
    return image.convert(mode)
