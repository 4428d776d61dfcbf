"""The model card in words: Markdown with the front matter that model hubs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

Card = Mapping[str, Any]

_CLASSES = 20  # class names that are spelled out


def card_markdown(card: Card) -> str:
    """`card.md` from `card.json`.

    Args:
        card: the content of `card.json`.

    Returns:
        YAML front matter (library, tags, results) and Markdown: what the student is, how good,
        how to feed and load it, and which files were checked.
    """
    front = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {card['model']['source']}",
        _summary(card),
        "## Results",
        _results(card),
        "## Input",
        _input(card),
        "## Files",
        _files(card),
        "## Use",
        _use(card),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(card: Card) -> dict[str, Any]:
    metrics = {key: value for key, value in card["metrics"].items() if key.startswith("test.")}
    results = {
        "task": {"type": card["task"]},
        "dataset": {"name": _data(card), "type": _data(card), "split": "test"},
        "metrics": [
            {"type": key.removeprefix("test."), "value": value} for key, value in metrics.items()
        ],
    }
    return {
        "library_name": "limbeck",
        "tags": ["knowledge-distillation", card["task"]],
        "model-index": [{"name": card["model"]["source"], "results": [results] if metrics else []}],
    }


def _data(card: Card) -> str:
    facts = card.get("data") or {}
    return str(facts.get("name") or facts.get("source") or "unknown")


def _summary(card: Card) -> str:
    teachers = [teacher["model"] for teacher in card.get("teachers") or []]
    taught = f"distilled from {', '.join(teachers)}" if teachers else "trained without a teacher"
    method = card.get("method")
    terms = method if isinstance(method, list) else [method] if method else []
    by = f" by `{' + '.join(term['name'] for term in terms)}`" if teachers and terms else ""
    return (
        f"A student for {card['task']}, {taught}{by} on {_data(card)} (seed {card['seed']}), with "
        f"limbeck {card['limbeck']}. {card['model']['parameters']:,} parameters."
    )


def _results(card: Card) -> str:
    """Student and teachers side by side, on the test split (else on validation)."""
    teachers = card.get("teachers") or []
    split = "test" if any(key.startswith("test.") for key in card["metrics"]) else "val"
    keys = [key for key in card["metrics"] if key.startswith(f"{split}.")]
    rows = [
        (key, _number(card["metrics"][key]), *(_number(_metric(one, key)) for one in teachers))
        for key in keys
    ]
    rows.append(("parameters", *(f"{one['parameters']:,}" for one in (card["model"], *teachers))))
    for size in card["model"].get("latency_ms") or {}:
        times = [(one.get("latency_ms") or {}).get(size) for one in (card["model"], *teachers)]
        rows.append((f"ms at batch {size}, CPU", *map(_number, times)))
    return _table(["", "student", *(f"teacher `{one['model']}`" for one in teachers)], rows)


def _metric(teacher: Card, key: str) -> float | None:
    return (teacher.get("metrics") or {}).get(key)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _input(card: Card) -> str:
    given, shown = card["input"], [str(name) for name in card["classes"][:_CLASSES]]
    scale = given.get("scale") or "values as in the data"
    lines = [f"- one sample has the shape {tuple(given['shape'])}: {scale}"]
    if given.get("size"):
        lines.append(f"- the plain student wants it resized to {given['size']}")
    if given.get("mean"):
        mean, std = given["mean"], given["std"]
        lines.append(f"- the plain student wants it normalized: mean {mean}, std {std}")
    if shown:
        more = f", … ({len(card['classes'])} in all)" if len(card["classes"]) > _CLASSES else ""
        lines.append(f"- logits stand for {', '.join(shown)}{more}, in this order")
    lines.append("- graph files do that themselves: give them samples in the data's own scale")
    return "\n".join(lines)


def _files(card: Card) -> str:
    rows = [
        (
            f"`{entry['file']}`",
            f"{entry['bytes']:,}",
            f"{entry['max_abs_difference']:.2g}",
            str(entry["samples"]),
            _check(entry),
            _number(entry["latency_ms"].get("1")),
            _number(entry["latency_ms"].get("256")),
        )
        for entry in card["exports"].values()
    ]
    headers = ("file", "bytes", "largest difference", "samples", "check")
    return _table([*headers, "ms, batch 1", "ms, batch 256"], rows)


def _check(entry: Card) -> str:
    if entry["passed"] is None:
        return f"{100 * entry['agreement']:.2f} % same class ({entry['kind']} int8)"
    return "same answers" if entry["passed"] else "refused"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(headers), ["---"] + ["---:"] * (len(headers) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _use(card: Card) -> str:
    code = ["import limbeck", "", 'student = limbeck.load("FOLDER")  # the folder of this card']
    if "onnx" in card["exports"]:
        code += [
            "",
            "import onnxruntime",
            "",
            'session = onnxruntime.InferenceSession("student.onnx")',
            '(logits,) = session.run(["logits"], {"x": samples})  # float32, any batch size',
        ]
    return "\n".join(["```python", *code, "```"])
