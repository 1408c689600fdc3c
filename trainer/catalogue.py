"""``kdtrain losses``: what each loss is, its fields, and its published objectives, from the code itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from typing import Any, cast

from cache_builder.format import ConfigError
from cache_builder.names import unknown_name
from trainer.losses import LOSSES, Loss
from trainer.losses.recipes import RECIPES


def list_losses() -> str:
    """One line per loss: name with default fields, what it is."""
    lines = []
    for name, kind in LOSSES.items():
        summary = inspect.cleandoc(kind.__doc__ or "").split("\n")[0]
        lines.append(f"{signature(name, kind)}\n    {summary}")
    return "\n".join(lines)


def explain_loss(name: str) -> str:
    """Formula, fields and published objectives of one loss; :class:`ConfigError` for an unknown name."""
    kind = LOSSES.get(name)
    if kind is None:
        raise ConfigError(unknown_name("loss", name, LOSSES))
    parts = [signature(name, kind), inspect.cleandoc(kind.__doc__ or "")]
    documents = field_documents(kind)
    fields = [
        f"  {field.name} = {field.default}: {documents.get(field.name, '')}"
        for field in dataclasses.fields(cast(Any, kind))
    ]
    needs = [
        what for what, needed in (("teacher", kind.needs_teacher), ("labels", kind.needs_labels)) if needed
    ]
    parts.append(f"needs: {' and '.join(needs)}")
    if fields:
        parts.append("\n".join(["fields:", *fields]))
    parts.append("\n".join(_recipes(name)))
    return "\n\n".join(parts)


def signature(name: str, kind: type[Loss]) -> str:
    """``dkd(alpha=1.0, beta=8.0, temperature=4.0)``: as an expression would write it."""
    fields = dataclasses.fields(cast(Any, kind))
    return f"{name}({', '.join(f'{field.name}={field.default}' for field in fields)})"


def field_documents(kind: type[Loss]) -> dict[str, str]:
    """The docstring under each field."""
    body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    documents = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(document))):
                documents[name] = inspect.cleandoc(document).replace("\n", " ")
    return documents


def _recipes(name: str) -> list[str]:
    lines = [f"--loss {name} alone means:"]
    for benchmark, published in RECIPES.get(name, {}).items():
        source = f"  ({published.source})" if published.source else ""
        lines.append(f"  {benchmark:<9} {published.objective}{source}")
    lines.append("  cifar100 applies up to 64 pixels, imagenet above; --published chooses")
    return lines
