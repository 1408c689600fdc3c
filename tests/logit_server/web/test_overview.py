import shlex

import pytest

from logit_server.served_caches import ServedCache
from logit_server.web.overview import overview, without_path


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("imagefolder:/home/me/secret", "imagefolder:PATH"),
        ("webdataset:/data/{000..010}.tar", "webdataset:PATH"),
        ("hf:/data/x:train", "hf:PATH"),
        ("torchvision:CIFAR10:/data", "torchvision:CIFAR10:PATH"),
        ("digits", "digits"),
        ("digits:train", "digits:train"),
        ("synthetic", "synthetic"),
    ],
)
def test_the_place_of_the_data_is_not_told(spec: str, shown: str) -> None:
    assert without_path(spec) == shown


def test_the_command_is_one_for_a_shell(served: ServedCache) -> None:
    words = shlex.split(overview(served, "http://host:8000/").command)
    assert words[:3] == ["kdtrain", "--cache", "http://host:8000/v1/caches/pages"]
    odd = overview(served, "http://$(touch x)/").command
    assert shlex.split(odd)[2] == "http://$(touch x)/v1/caches/pages"


def test_what_is_lost_is_said_in_words(served: ServedCache) -> None:
    about = overview(served, "http://host/")
    assert about.lost.startswith("2 % of the variance")
    assert "T = 4" in about.losses
    assert about.statistics is not None
