"""Which codec a build takes, and what it says to options that contradict the named one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from cache_builder.build.names import check_codec_name
from cache_builder.calibration import calibrate
from cache_builder.calibration.calibrate import CALIBRATORS
from cache_builder.format import CODECS, ConfigError
from cache_builder.format.manifest import CodecRequest
from cache_builder.tensors.decode import DECODERS
from cache_builder.tensors.encode import ENCODERS
from tests.cache_builder.calibration.test_calibrate import logits_of

USUAL = CodecRequest(bytes_per_view=64.0)


def test_every_codec_has_its_twins_and_a_calibrator() -> None:
    assert CODECS.keys() == ENCODERS.keys() == DECODERS.keys() == CALIBRATORS.keys()
    assert [kind.Settings.model_fields["name"].default for kind in CODECS.values()] == list(CODECS)


@pytest.mark.parametrize(
    ("classes", "request_", "codec"),
    [
        (32, USUAL, "topk-tail"),
        (33, USUAL, "joint-sketch"),
        (33, CodecRequest(top_k=33), "topk-tail"),
        (10, CodecRequest(top_k=5), "joint-sketch"),
        (32768, USUAL, "joint-sketch"),
        (32769, USUAL, "class-sketch"),
    ],
)
def test_few_classes_are_stored_one_by_one(classes: int, request_: CodecRequest, codec: str) -> None:
    assert calibrate.usual_codec(classes, request_) == codec


@pytest.mark.parametrize("codec", list(CALIBRATORS))
@pytest.mark.parametrize("classes", [10, 40])
def test_the_named_codec_is_taken(classes: int, codec: str) -> None:
    request = CodecRequest() if codec == "all-logits" else USUAL
    asked = calibrate.checked_request(classes, request, codec)
    assert calibrate.calibrator(codec).provisional(classes, asked).name == codec
    found = calibrate.unfitted(classes, asked, codec) or calibrate.fit(logits_of(200, classes), asked, codec)
    assert found.codec.settings.name == codec
    assert list(found.codec.settings.problems(classes)) == []
    logits = logits_of(20, classes, seed=4)
    decoded = found.codec.decode(found.codec.encode(logits))
    np.testing.assert_array_equal(decoded.argmax(axis=1), logits.argmax(axis=1))


def test_a_name_that_is_the_usual_one_changes_nothing_in_the_manifest() -> None:
    for classes, codec in ((10, "topk-tail"), (40, "joint-sketch")):
        named, free = (calibrate.checked_request(classes, USUAL, name) for name in (codec, None))
        assert named == free


@pytest.mark.parametrize(
    ("codec", "options", "said"),
    [
        ("topk-tail", {"top_k": 5}, "stores all 40 classes one by one, and --top-k 5 asks for fewer"),
        ("topk-tail", {"tail_rank": 5}, "leave --tail-rank out, or use --codec class-sketch"),
        ("topk-tail", {"tail_step": 0.5}, "leave --tail-step out"),
        ("topk-tail", {"value_step": 0.5}, "leave --value-step out"),
        ("class-sketch", {"top_k": 40}, "--top-k 40 leaves none of 40: use a smaller --top-k"),
        ("class-sketch", {"lose": 0.1}, "chosen by its size: use --bytes-per-view instead of --lose"),
        ("all-logits", {"lose": 0.1}, "--exact stores every logit.*leave --lose out"),
        ("all-logits", {"bytes_per_view": 30.0}, "--exact stores every logit.*leave --bytes-per-view out"),
        ("joint-sketch", {"top_k": 40}, "--top-k 40 leaves none of 40: use a smaller --top-k"),
    ],
)
def test_options_that_contradict_the_codec_are_refused(
    codec: str, options: dict[str, float], said: str
) -> None:
    request = CodecRequest.model_validate(options)
    with pytest.raises(ConfigError, match=said):
        calibrate.checked_request(40, request, codec)
    calibrate.checked_request(40, request, None)


def test_an_unknown_name_is_told_with_the_near_ones() -> None:
    with pytest.raises(ConfigError, match="unknown codec 'clas-sketch': did you mean 'class-sketch'"):
        check_codec_name("clas-sketch")


def test_it_is_told_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom cache_builder.build.names import check_codec_name\n"
        "from cache_builder.format.errors import ConfigError\n"
        "try:\n    check_codec_name('none')\nexcept ConfigError:\n    sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
