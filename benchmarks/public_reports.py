"""Faults that people reported of other tools, each made again in small and tried on kdcache.

    python -m benchmarks public_reports

Every report has a function that makes its situation in an empty folder, runs kdcache or kdtrain there, and
says what came out. A function returns the sentence for the table and raises :class:`FaultError` where kdcache
does what the report complains of.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import write_results
from cache_builder.format import DataError

_TEACHERS = '''
import torch
from torch import nn

class Grey(nn.Module):
    """Knows the class that is painted as a grey level, {step} apart."""
    def __init__(self, classes=12, step=20.0):
        super().__init__()
        self.classes, self.step, self.w = classes, step, nn.Parameter(torch.ones(1))
    def forward(self, x):
        level = (x.mean((1, 2, 3)) * 0.5 + 0.5) * 255
        return -(((level[:, None] - self.step * torch.arange(float(self.classes))) / 8) ** 2) * self.w

class Stuck(nn.Module):
    """Stays in training mode whatever it is told."""
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 12))
    def train(self, mode=True):
        return super().train(True)
    def forward(self, x):
        return self.net(x)

def grey(): return Grey()
def stuck(): return Stuck()
def linear(num_classes=2):
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, num_classes))
'''
_GREY = (
    "--teacher teachers:grey --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 --input-size 32 --views 1 --recipe plain"
)
_STUDENT = "--student cnn3 --batch-size 8 --workers 0 --no-tensorboard --device cpu"


class FaultError(Exception):
    """kdcache does what the report complains of."""


def run(command: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of a command of this environment, run in the working folder."""
    words = command.split()
    program = Path(sys.executable).with_name(words[0])
    environment = os.environ | {"PYTHONPATH": ".", "NO_COLOR": "1", "COLUMNS": "400"} | variables
    done = subprocess.run(
        [str(program), *words[1:]], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def expect(condition: bool, output: str) -> None:
    """Raise :class:`FaultError` with the end of the output unless the condition holds."""
    if not condition:
        raise FaultError(" / ".join(output.split("\n")[-4:]).strip() or "nothing was said")


def said(output: str, *words: str) -> str:
    """The first line with one of the words; :class:`FaultError` where none has."""
    lines = [" ".join(line.split()) for line in output.splitlines()]
    found = next((line for line in lines if any(word.lower() in line.lower() for word in words)), None)
    if found is None:
        expect(False, output)
    return (found or "")[:240]


def grey_folders(root: str, names: list[str], each: int = 4) -> None:
    """A folder a class, painted in its grey."""
    for level, name in enumerate(names):
        folder = Path(root, name)
        folder.mkdir(parents=True)
        for index in range(each):
            Image.new("RGB", (40, 40), (20 * level,) * 3).save(folder / f"{index}.png")


def numbered_from_one() -> str:
    """Folders 1 to 12: text order gives 1, 10, 11, 12, 2."""
    grey_folders("data", [str(number + 1) for number in range(12)])
    _, output = run(f"kdcache build {_GREY} --data imagefolder:data --out c.zarr")
    told = said(output, "natural", "order")
    Path("order.txt").write_text("".join(f"{number + 1}\n" for number in range(12)))
    _, output = run(f"kdcache build {_GREY} --data imagefolder:data?classes=order.txt --out d.zarr")
    expect("top-1 100" in output, output)
    return f"told ({told}); with ?classes=order.txt top-1 is 100 %"


def notebook_checkpoints() -> str:
    """A hidden folder of Jupyter among the class folders."""
    grey_folders("data", list("abcdefghijkl"))
    Path("data/.ipynb_checkpoints").mkdir()
    Image.new("RGB", (40, 40)).save("data/.ipynb_checkpoints/0-checkpoint.png")
    code, output = run(f"kdcache build {_GREY} --data imagefolder:data --out c.zarr")
    expect(code == 0 and "48 samples" in output and "top-1 100" in output, output)
    return "the hidden folder is no class: 48 samples, top-1 100 %"


def underscored_names() -> str:
    """Folders that spell ImageNet's names with underscores, as Keras' class index does."""
    for name in ("great_white_shark", "tench"):
        Path("data", name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (40, 40), (60 * index,) * 3).save(f"data/{name}/{index}.png")
    code = "import timm, torch; torch.save(timm.create_model('resnet10t').state_dict(), 'w.pth')"
    subprocess.run([sys.executable, "-c", code], check=True)
    exit_code, output = run(
        "kdcache build --teacher timm:resnet10t --weights w.pth --data imagefolder:data --out c.zarr "
        "--views 1 --input-size 64 --top-k 1000"
    )
    if exit_code == 0:
        return said(output, "by name")
    return "refused: " + said(output, "great_white_shark")


def torn_checkpoint() -> str:
    """The newest checkpoint was cut off while it was written."""
    _train_some()
    newest = max(Path("run/checkpoints").glob("step-*"))
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    code, output = run(_training("run", epochs=6) + " --resume")
    expect("damaged" in output.lower(), output)
    return f"exit {code}: " + said(output, "damaged")


def mistyped_resume() -> str:
    """--resume with a mistyped folder begins a new run, which must not happen without a word."""
    _train_some()
    _, output = run(_training("rum", epochs=6) + " --resume")
    return said(output, "no run in")


def sixteen_bit_grey() -> str:
    """A 16-bit grey picture must not come out white."""
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save("ramp.png")
    return _mean_level("ramp.png", low=120, high=135)


def float_picture() -> str:
    """A float32 TIFF with values from 0 to 1 must not come out black, nor be cut off in silence."""
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    Image.fromarray(ramp).save("ramp.tif")
    return _mean_level("ramp.tif", low=120, high=135)


def cmyk_photograph() -> str:
    """A CMYK JPEG, as some of ImageNet are, decodes as Pillow converts it."""
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save("red.jpg", quality=95)
    image = _decoded("red.jpg")
    red, green, blue = (float(channel.float().mean()) for channel in image)
    expect(red > 200 and green < 60 and blue < 60, f"decoded as {red:.0f}, {green:.0f}, {blue:.0f}")
    return f"red stays red: {red:.0f}, {green:.0f}, {blue:.0f}"


def lightning_prefix() -> str:
    """A Lightning checkpoint puts model. before every name; loading it loosely gives nonsense."""
    code = "import torch, teachers; state = teachers.linear().state_dict(); torch.save(state, 'plain.pth'); "
    code += "inner = {'model.' + name: value for name, value in state.items()}; "
    code += "torch.save({'state_dict': inner, 'epoch': 1}, 'l.ckpt')"
    subprocess.run([sys.executable, "-c", code], check=True)
    grey_folders("data", ["a", "b"])
    digests = []
    for file in ("plain.pth", "l.ckpt"):
        command = f"kdcache build --teacher teachers:linear --weights {file} --data imagefolder:data"
        code_, output = run(f"{command} --input-size 32 --views 1 --out {file}.zarr")
        if code_:
            return "refused: " + said(output, "model.")
        digests.append(_manifest(f"{file}.zarr").teacher.weights_digest)
    expect(digests[0] == digests[1], f"other weights: {digests}")
    return "the prefix is recognised; the same weights as without it"


def lfs_pointer() -> str:
    """A weights file that is a Git LFS pointer."""
    grey_folders("data", ["a", "b"])
    Path("w.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 19332096\n"
    )
    code, output = run(
        "kdcache build --teacher teachers:linear --weights w.pth --data imagefolder:data --out c.zarr"
    )
    expect(code != 0, output)
    return said(output, "lfs")


def two_runs_one_folder() -> str:
    """Two trainings that were given the same folder must not write into each other."""
    grey_folders("data", ["a", "b"], each=16)
    words = _training("run", epochs=4000).split()
    first = subprocess.Popen(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        env=os.environ | {"PYTHONPATH": "."},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            if Path("run/config.json").exists() or first.poll() is not None:
                break
            time.sleep(0.1)
        code, output = run(_training("run", epochs=4000) + " --resume")
    finally:
        first.terminate()
        first.wait()
    expect(code != 0, output)
    return said(output, "process", "another", "already")


def stuck_in_training_mode() -> str:
    """A teacher whose dropout stays on."""
    grey_folders("data", list("abcdefghijkl"))
    words = "--data imagefolder:data --input-size 32 --views 1 --out c.zarr"
    code, output = run(f"kdcache build --teacher teachers:stuck {words}")
    expect(code != 0 or "warning" in output.lower(), output)
    return f"exit {code}: " + said(output, "repeat", "training mode", "dropout")


def own_normalisation() -> str:
    """A timm transformer wants mean and std of .5; ImageNet's cost its user a third of its accuracy."""
    grey_folders("data", ["a", "b"])
    name = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    code, output = run(
        f"kdcache build --teacher {name} --weights random --data imagefolder:data --views 1 --out c.zarr"
    )
    expect(code == 0, output)
    seen = _manifest("c.zarr").input
    expect(abs(seen.mean[0] - 0.5) < 1e-6, f"mean {seen.mean}")
    return said(output, "0.5", ".5")


def _training(out: str, epochs: int) -> str:
    return (
        f"kdtrain --data imagefolder:data --recipe pad-crop-flip --loss ce {_STUDENT} --image-size 32 "
        f"--epochs {epochs} --out {out}"
    )


def _train_some() -> None:
    grey_folders("data", ["a", "b"], each=8)
    code, output = run(_training("run", epochs=6))
    expect(code == 0, output)


def _decoded(path: str):  # type: ignore[no-untyped-def]  # a tensor, without importing torch up here
    from cache_builder.datasets.decoding import read_image_file

    return read_image_file(Path(path)).value


def _mean_level(path: str, low: float, high: float) -> str:
    """The mean of a picture that runs from black to white; a refusal that names the picture is good too."""
    try:
        level = float(_decoded(path).float().mean())
    except DataError as error:
        return f"refused: {error}"
    expect(low < level < high, f"its mean level is {level:.0f}, expected about 127")
    return f"its mean level is {level:.0f} of 255"


def _manifest(path: str):  # type: ignore[no-untyped-def]
    from cache_builder.format.reader import open_cache

    return open_cache(path).manifest


REPORTS: dict[str, Callable[[], str]] = {
    "NVIDIA/DIGITS#665, facebookresearch/deit#130": numbered_from_one,
    "open-mmlab/mmpretrain#507": notebook_checkpoints,
    "pytorch/vision#3429": underscored_names,
    "vllm-project/speculators#739, huggingface/transformers#35782": torn_checkpoint,
    "birdnet-team/geomodel#13": mistyped_resume,
    "python-pillow/Pillow#2574": sixteen_bit_grey,
    "keras-team/keras#4486": float_picture,
    "pytorch/vision#6538": cmyk_photograph,
    "pytorch/examples#1029": lightning_prefix,
    "YBIGTA/pytorch-hair-segmentation#38": lfs_pointer,
    "deepinv/deepinv#525": two_runs_one_folder,
    "vrvlive/knowlege-distillation#2": stuck_in_training_mode,
    "mr-eggplant/FOA#2": own_normalisation,
}


def tried(report: Callable[[], str]) -> tuple[str, str]:
    """Verdict and sentence of one report, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("teachers.py").write_text(_TEACHERS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return "good", report()
        except FaultError as fault:
            return "FAULT", str(fault)


def main() -> None:
    """Try every report and keep the table."""
    rows = []
    for where, report in REPORTS.items():
        verdict, sentence = tried(report)
        what = " ".join((report.__doc__ or "").split())
        print(f"{verdict:5} {where}: {sentence}", flush=True)
        rows.append([where, what, verdict, sentence.replace("|", "/")])
    columns = ["report", "what went wrong there", "here", "what kdcache says"]
    notes = (
        "Found by a search of public issue trackers; none of them is among the cases that were handed over."
    )
    write_results("public_reports", "Faults reported of other tools, tried on kdcache", columns, rows, notes)


if __name__ == "__main__":
    main()
