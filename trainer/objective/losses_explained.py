"""``kdtrain losses``: what each loss is, its fields, and its published objectives, from the code itself."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cache_builder.console.dotted import is_dotted
from cache_builder.console.names import unknown_name
from cache_builder.format import ConfigError
from cache_builder.format.manifest import NamedConfiguration
from trainer.losses import LOSSES, Loss, find_loss, make_loss
from trainer.objective.published import RECIPES, published_objectives
from trainer.objective.terms import written

if TYPE_CHECKING:
    from rich.table import Table


class LossRow(NamedTuple):
    """One line of the table; README.md beside the losses holds the same."""

    name: str
    fields: str
    """``alpha=1, beta=8``: the defaults, as an expression has them."""
    needs: str
    paper: str
    unconfirmed: str


def loss_rows() -> list[LossRow]:
    """The table, from the classes."""
    return [_row(name, kind()) for name, kind in LOSSES.items()]


def losses_table() -> Table:
    """The table for a terminal, as wide as it is."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title, ratio in (("name", None), ("fields", 4), ("needs", 2), ("paper", 3), ("unconfirmed", 3)):
        table.add_column(title, ratio=ratio, overflow="fold", no_wrap=title == "name")
    table.expand = True
    for row in loss_rows():
        table.add_row(*(text.replace("[", r"\[") for text in row))
    return table


def markdown_table() -> str:
    """The table as README.md beside the losses has it."""
    head = ("name", "fields", "needs", "paper", "unconfirmed")
    lines = [head, ("---",) * len(head)]
    for row in loss_rows():
        fields = f"`{row.fields}`" if row.fields else ""
        lines.append((f"`{row.name}`", fields, row.needs, row.paper, row.unconfirmed))
    return "\n".join("| " + " | ".join(line).replace("  ", " ") + " |" for line in lines)


def explain_loss(name: str) -> str:
    """Formula, fields and published objectives of one loss; :class:`ConfigError` for an unknown name."""
    if name in RECIPES and name not in LOSSES:
        return "\n\n".join([f"{name}: an objective of other losses", "\n".join(_recipes(name))])
    if not is_dotted(name) and name not in LOSSES:
        raise ConfigError(unknown_name("loss", name, [*LOSSES, *RECIPES]))
    kind = find_loss(name)
    row = _row(name, make_loss(name, {}))
    parts = [f"{name}({row.fields})", inspect.cleandoc(kind.__doc__ or ""), f"paper: {row.paper}"]
    if row.unconfirmed:
        parts.append(f"unconfirmed: {row.unconfirmed}")
    parts.append(f"needs: {row.needs}")
    documents = field_documents(kind)
    fields = [
        f"  {field} = {default}: {documents.get(field, '')}" for field, default in _defaults(kind()).items()
    ]
    if fields:
        parts.append("\n".join(["fields:", *fields]))
    parts.append("\n".join(_recipes(name)))
    return "\n\n".join(parts)


def field_documents(kind: type[Loss]) -> dict[str, str]:
    """The docstring under each field, its own or an inherited one."""
    documents: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if dataclasses.is_dataclass(owner):
            documents |= _documents_in(owner)
    return documents


def _documents_in(kind: type) -> dict[str, str]:
    body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]).body
    documents = {}
    for field, text in itertools.pairwise(body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(document))):
                documents[name] = inspect.cleandoc(document).replace("\n", " ")
    return documents


def _row(name: str, loss: Loss) -> LossRow:
    fields = ", ".join(f"{field}={default}" for field, default in _defaults(loss).items())
    return LossRow(name, fields, ", ".join(_needs(loss)), loss.paper, loss.unconfirmed)


def _needs(loss: Loss) -> list[str]:
    needs = {
        "teacher": loss.needs_teacher and not loss.takes_ensemble,
        "teachers": loss.takes_ensemble,
        "labels": loss.needs_labels,
        "two views": loss.views == 2,
        "batch": loss.couples_samples,
        "class counts": loss.needs_class_counts,
        "held-out samples": loss.needs_held_out,
    }
    return [what for what, needed in needs.items() if needed]


def _defaults(loss: Loss) -> dict[str, str]:
    """The fields with their defaults, as the command line has them."""
    return {field.name: _shown(getattr(loss, field.name)) for field in dataclasses.fields(cast(Any, loss))}


def _shown(value: object) -> str:
    if isinstance(value, NamedConfiguration):
        value = value.model_dump()
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else written(cast(Any, value))


def _recipes(name: str) -> list[str]:
    lines = [f"--loss {name} alone means:"]
    for benchmark, published in published_objectives(name).items():
        head = f" with --aux-head {published.aux_head!r}" if published.aux_head else ""
        source = f"  ({published.source})" if published.source else ""
        lines.append(f"  {benchmark:<9} {published.objective}{head}{source}")
    lines.append("  cifar100 applies up to 64 pixels, imagenet above; --published chooses")
    return lines
