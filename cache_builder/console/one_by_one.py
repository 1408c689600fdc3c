"""What is lost where classes are stored one by one, so that calibration chose and measured nothing."""

from __future__ import annotations

from cache_builder.format.manifest import Manifest


def stored_one_by_one(manifest: Manifest) -> dict[str, str]:
    """A sentence by its key; none where nobody measured what the records leave out."""
    codec, classes = manifest.codec, manifest.classes
    if codec.name == "all-logits":
        return {"lost": "nothing but rounding to 16 bits: all logits are stored"}
    if codec.name != "topk-tail":
        return {}
    kept, masks = codec.kept(classes), getattr(codec, "masks", None)
    if kept + (masks.classes if masks else 0) >= classes:
        return {"lost": "nothing but rounding to 8 bits: every class is stored by itself"}
    return {}
