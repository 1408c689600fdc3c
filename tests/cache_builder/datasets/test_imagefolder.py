from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from cache_builder.datasets import ImageFolder, open_source
from cache_builder.datasets.decoding import decode_image
from cache_builder.format.errors import ConfigError, DataError
from tests.cache_builder.photographs import cut

PHOTO = cut(1, 40, 48)
GREY = PHOTO.mean(axis=2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> NDArray[np.uint8]:
    """HWC, as Pillow has it."""
    image = decode_image(data)
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    return pixels


def put(path: Path, array: NDArray[np.uint8] = PHOTO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def ids(root: Path) -> list[str]:
    return list(ImageFolder(str(root)).ids)


class TestDecode:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
    def test_lossless_formats_give_the_pixels(self, kind: str) -> None:
        np.testing.assert_array_equal(decoded(encoded(Image.fromarray(PHOTO), kind)), PHOTO)

    @pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
    def test_lossy_formats_give_what_pillow_gives(self, kind: str) -> None:
        data = encoded(Image.fromarray(PHOTO), kind, quality=95)
        np.testing.assert_array_equal(decoded(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert np.abs(decoded(data).astype(int) - PHOTO).mean() < 12

    def test_lossless_webp_with_alpha_drops_the_alpha(self) -> None:
        alpha = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
        np.testing.assert_array_equal(decoded(encoded(Image.fromarray(alpha), "WEBP", lossless=True)), PHOTO)

    def test_grey(self) -> None:
        pixels = decoded(encoded(Image.fromarray(GREY), "PNG"))
        np.testing.assert_array_equal(pixels, np.dstack([GREY] * 3))

    def test_grey_and_alpha(self) -> None:
        image = Image.fromarray(GREY)
        image.putalpha(128)
        assert image.mode == "LA"
        np.testing.assert_array_equal(decoded(encoded(image, "PNG")), np.dstack([GREY] * 3))

    def test_one_bit(self) -> None:
        image = Image.fromarray(GREY > 100)
        assert image.mode == "1"
        np.testing.assert_array_equal(decoded(encoded(image, "PNG"))[..., 0], (GREY > 100) * 255)

    def test_palette(self) -> None:
        image = Image.fromarray(PHOTO).quantize(32)
        np.testing.assert_array_equal(decoded(encoded(image, "PNG")), np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("transparency", [3, bytes(range(32))], ids=["one colour", "bytes"])
    def test_palette_with_transparency_keeps_its_colours(self, transparency: int | bytes) -> None:
        image = Image.fromarray(PHOTO).quantize(32)
        data = encoded(image, "PNG", transparency=transparency)
        np.testing.assert_array_equal(decoded(data), np.asarray(image.convert("RGB")))

    def test_16_bit_grey_keeps_its_high_byte(self) -> None:
        deep = GREY.astype(np.uint16) << 8 | 77
        data = encoded(Image.fromarray(deep), "PNG")
        np.testing.assert_array_equal(decoded(data), np.dstack([GREY] * 3))

    def test_cmyk_jpeg(self) -> None:
        data = encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", quality=95)
        assert np.abs(decoded(data).astype(int) - PHOTO).mean() < 12

    def test_animated_gif_gives_its_first_picture(self) -> None:
        frames = [Image.fromarray(cut(index, 40, 48)).quantize(16) for index in range(2)]
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(decoded(data), np.asarray(frames[0].convert("RGB")))


class TestRead:
    def test_digest_is_of_the_files_bytes(self, photos: Path) -> None:
        source = ImageFolder(str(photos))
        data = (photos / source.ids[3]).read_bytes()
        assert source.read(3).digest == xxhash.xxh64_intdigest(data)

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "not an image"),
            (b"hello, I am a text\n" * 20, "not an image"),
            (encoded(Image.fromarray(PHOTO), "JPEG")[:700], "truncated"),
            (encoded(Image.fromarray(PHOTO), "PNG")[:700], "truncated"),
        ],
        ids=["zero bytes", "text", "truncated jpeg", "truncated png"],
    )
    def test_what_cannot_be_decoded_is_named(self, tmp_path: Path, content: bytes, why: str) -> None:
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(DataError, match=why) as caught:
            ImageFolder(str(tmp_path)).read(0)
        assert str(tmp_path / "bad.jpg") in str(caught.value)
        assert "BytesIO" not in str(caught.value)

    def test_damaged_bytes_never_raise_anything_else(self, tmp_path: Path) -> None:
        """Pillow raises struct.error, IndexError, zlib errors and others for damaged files."""
        rng = np.random.default_rng(0)
        path = tmp_path / "bad.png"
        for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
            data = np.frombuffer(encoded(Image.fromarray(PHOTO), kind), np.uint8)
            for _ in range(40):
                damaged = data.copy()
                damaged[rng.integers(0, min(300, len(data)), 4)] = rng.integers(0, 256, 4)
                path.write_bytes(damaged.tobytes())
                with suppress(DataError):
                    assert ImageFolder(str(tmp_path)).read(0).value.shape[0] == 3

    def test_a_picture_that_would_fill_the_memory(self, tmp_path: Path) -> None:
        Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
        with pytest.raises(DataError, match=r"bomb\.png .*pixels"):
            ImageFolder(str(tmp_path)).read(0)

    def test_a_file_that_went_away(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.png")
        source = ImageFolder(str(tmp_path))
        path.unlink()
        with pytest.raises(DataError, match=r"a\.png: No such file"):
            source.read(0)


class TestListing:
    def test_like_torchvision(self, photos: Path) -> None:
        ours, theirs = ImageFolder(str(photos)), TorchvisionFolder(str(photos))
        assert [str(photos / sample_id) for sample_id in ours.ids] == [path for path, _ in theirs.samples]
        assert ours.labels is not None
        assert ours.labels.tolist() == theirs.targets
        assert list(ours.class_names or ()) == theirs.classes
        assert len(ours) == len(theirs)

    def test_flat_folder_has_no_labels(self, tmp_path: Path) -> None:
        put(tmp_path / "b.png")
        put(tmp_path / "a.jpeg")
        source = ImageFolder(str(tmp_path))
        assert source.ids == ["a.jpeg", "b.png"]
        assert source.labels is None
        assert source.class_names is None

    def test_nested_folders_belong_to_the_first_one(self, tmp_path: Path) -> None:
        for name in ("cat/x/1.png", "cat/2.png", "dog/y/z/3.png"):
            put(tmp_path / name)
        source = ImageFolder(str(tmp_path))
        assert source.ids == ["cat/2.png", "cat/x/1.png", "dog/y/z/3.png"]
        assert source.class_names == ("cat", "dog")
        assert source.labels is not None
        assert source.labels.tolist() == [0, 0, 1]

    def test_order_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        names = ["a/é.png", "a/z.png", "a/Z.png", "a b/1.png", "日本/猫.png", "a/10.png", "a/9.png"]
        for name in names:
            put(tmp_path / name)
        assert ids(tmp_path) == sorted(names, key=str.encode)
        assert ImageFolder(str(tmp_path)).read(0).value.shape == (3, 40, 48)

    def test_hidden_and_other_files_are_left_out(self, tmp_path: Path) -> None:
        put(tmp_path / "a" / "1.PNG")
        put(tmp_path / "a" / ".hidden.png")
        put(tmp_path / ".cache" / "1.png")
        (tmp_path / "a" / "notes.txt").write_text("x")
        (tmp_path / "a" / "folder.jpg").mkdir()
        os.mkfifo(tmp_path / "a" / "pipe.png")
        assert ids(tmp_path) == ["a/1.PNG"]

    def test_links_are_followed_and_loops_end(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        put(root / "a" / "1.png")
        (root / "a" / "up").symlink_to(root, target_is_directory=True)
        (root / "b").symlink_to(root / "a", target_is_directory=True)
        assert ids(root) == ["a/1.png", "b/1.png"]

    def test_a_dangling_link_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        with pytest.raises(DataError, match=r"gone\.png"):
            ImageFolder(str(tmp_path)).read(0)

    def test_images_beside_class_folders_are_refused(self, tmp_path: Path) -> None:
        put(tmp_path / "cat" / "1.png")
        put(tmp_path / "preview.png")
        with pytest.raises(DataError, match=r"beside the class folders.*preview\.png"):
            ImageFolder(str(tmp_path))

    def test_a_class_folder_without_pictures_keeps_its_number(self, tmp_path: Path) -> None:
        put(tmp_path / "ant" / "1.png")
        put(tmp_path / "cat" / "1.png")
        (tmp_path / "bee" / ".hidden").mkdir(parents=True)
        (tmp_path / "__MACOSX").mkdir()
        source = ImageFolder(str(tmp_path))
        assert source.class_names == ("ant", "bee", "cat")
        assert source.labels is not None
        assert source.labels.tolist() == [0, 2]

    def test_a_cache_that_was_built_in_here_is_no_class(self, tmp_path: Path) -> None:
        put(tmp_path / "cat" / "1.png")
        (tmp_path / "cache.zarr").mkdir()
        (tmp_path / "cache.zarr" / "zarr.json").write_text("{}")
        assert ImageFolder(str(tmp_path)).class_names == ("cat",)

    def test_a_name_that_is_not_utf8_can_be_listed(self, tmp_path: Path) -> None:
        data = put(tmp_path / "a" / "1.png").read_bytes()
        with open(os.fsencode(tmp_path) + b"/a/\xff.png", "wb") as file:  # noqa: PTH123  # bytes
            file.write(data)
        assert ids(tmp_path) == ["a/1.png", "a/\udcff.png"]

    @pytest.mark.parametrize("made", ["missing", "empty", "file"])
    def test_nothing_there(self, tmp_path: Path, made: str) -> None:
        path = tmp_path / "data"
        if made == "empty":
            path.mkdir()
        elif made == "file":
            path.write_text("x")
        match = "holds no images" if made == "empty" else r"does not exist|expected a folder"
        with pytest.raises(DataError, match=match):
            open_source(f"imagefolder:{path}")

    @pytest.mark.parametrize("spec", ["imagefolder", "imagefolder:"])
    def test_a_path_is_needed(self, spec: str) -> None:
        with pytest.raises(ConfigError, match="imagefolder:PATH"):
            open_source(spec)

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path / "data" / "1.png")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert open_source("imagefolder:~/data").ids == ["1.png"]
