"""The pages of the methods: registry, docstrings, `methods.yaml` and what was measured."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from limbeck import functional
from limbeck.methods.build import spec_class
from limbeck.methods.entry import LossEntry
from limbeck.methods.registry import METHODS, load_target
from limbeck.report import words
from limbeck.report.table import table_markdown

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from docs/methods.yaml and the code. -->\n\n"
MEASURED = DOCS / "measured" / "fashion-mnist.json"
STUDENT, TEACHER = "limbeck:convnet?widths=4,8", "limbeck:convnet?widths=8,16"
COMMAND = "limbeck compare examples/methods.yaml"

# The losses of methods in a file of their own, where the name is not the method's.
LOSSES = {
    "reviewkd": "reviewkd_hcl_loss",
    "factor_transfer": "factor_loss",
    "weighted": "estimate_weights",
    "pseudo_label": "kd_loss",
    "threshold": "kd_loss",
    "ensemble": "ensemble_losses",
    "adaptive_ensemble": "ensemble_weights",
}


def told() -> dict[str, dict[str, Any]]:
    """What only people can say of the methods, by name."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load((DOCS / "methods.yaml").read_text())
    return entries


def pages() -> dict[Path, str]:
    """A page a method, and the page of what was measured."""
    entries, table = told(), measured_table()
    folder = DOCS / "methods"
    found = {folder / f"{name}.md": page(name, entries[name], table) for name in METHODS}
    return {**found, folder / "measured.md": measured_page(table)}


def navigation(config: str) -> str:
    """`zensical.toml` with a line for every method between its two marks."""
    before, rest = config.split("# methods: begin", 1)
    _, after = rest.split("# methods: end", 1)
    lines = "".join(f'      {{ "{name}" = "methods/{name}.md" }},\n' for name in METHODS)
    return f"{before}# methods: begin, by docs/generate.py\n{lines}      # methods: end{after}"


def page(name: str, entry: dict[str, Any], table: dict[str, Any] | None) -> str:
    """The page of one method."""
    about, training = METHODS[name], entry.get("training", {"epochs": 1})
    parts = [f"{NOTE}# {name}", f"{about.summary}. Needs: {about.needs}.", "## When to use it"]
    parts += [entry["when"].strip(), "## Formula", (entry.get("formula") or _formula(name)).strip()]
    parts += [f"Source: {about.paper}."] if about.paper else []
    parts += ["## Options", _options(name, entry), "## Use it"]
    parts += [
        _command(name, training),
        _snippet(name, training, entry.get("method", {})),
        _loop(name),
        "## Cost",
        entry["cost"].strip(),
    ]
    if "note" in entry:
        parts += ["## Which version", entry["note"].strip()]
    parts += ["## Measured", _measured(name, table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def loss_name(name: str) -> str:
    """The function of `limbeck.functional` that the method minimizes."""
    entry = METHODS[name]
    if isinstance(entry, LossEntry):
        return entry.function
    return LOSSES.get(name, f"{name}_loss")


def _formula(name: str) -> str:
    """The head of the loss's docstring, and where the rest of it stands."""
    loss = getattr(functional, loss_name(name))
    parts = [_head(loss)]
    if not isinstance(METHODS[name], LossEntry):
        own = _head(load_target(METHODS[name]))
        parts += [] if own.endswith("on features.") else [own]
    home = f"{loss.__module__}.{loss.__name__}"
    parts.append(f"The function: [`F.{loss.__name__}`](../reference/losses.md#{home}).")
    return "\n\n".join(parts)


def _head(thing: Any) -> str:
    text = re.split(r"\n(?:Args|Returns|Raises|Attributes):\n", inspect.getdoc(thing) or "")[0]
    return _escaped(text)


def _escaped(text: str) -> str:
    """The text, so that Markdown leaves what is outside of backticks as it is."""
    parts = re.split(r"(`[^`]*`)", text.strip())
    return "".join(p if p.startswith("`") else re.sub(r"([_*<])", r"\\\1", p) for p in parts)


def option_words(name: str, entry: dict[str, Any]) -> dict[str, str]:
    """What the options mean: the table's words, then the docstrings', the nearest first."""
    found: dict[str, str] = {}
    loss = getattr(functional, loss_name(name) or "kd_loss")
    for thing in (functional.kd_loss, functional.fkl_loss, functional.skl_loss, loss):
        found |= _listed(thing, "Args")
    for cls in reversed(spec_class(name).__mro__):
        found |= _listed(cls, "Attributes")
    return found | entry.get("options", {})


def _listed(thing: Any, heading: str) -> dict[str, str]:
    """The entries under a heading of a docstring of its own, by name."""
    doc = inspect.cleandoc(thing.__doc__ or "")
    block = re.search(rf"^{heading}:\n((?:    .*\n?|\n(?=    ))*)", doc, re.MULTILINE)
    items = re.findall(r"^    (\w+): ((?:.*)(?:\n     .*)*)", block[1] if block else "", re.M)
    return {key: re.sub(r"\s+", " ", text).strip() for key, text in items}


def _options(name: str, entry: dict[str, Any]) -> str:
    meanings = option_words(name, entry)
    rows = []
    for key, field in spec_class(name).model_fields.items():
        if key == "name":
            continue
        value = field.get_default(call_default_factory=True)
        shown = json.dumps(value.model_dump() if isinstance(value, BaseModel) else value)
        meaning = _escaped(meanings[key]).replace("|", "\\|")
        rows.append(f"| `{key}` | `{shown}` | {meaning} |")
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def teacherless(name: str) -> bool:
    """Whether the method reads nothing of a teacher."""
    return METHODS[name].needs == "labels"


def pooled(name: str) -> bool:
    """Whether the method learns from unlabelled samples alone, beside labelled ones."""
    return METHODS[name].needs.startswith("pool")


def several(name: str) -> bool:
    """Whether the method needs two teachers and more."""
    return METHODS[name].needs.startswith("several")


POOL = "labels=300, val=0.3"
"""What makes a pool and enough validation samples of the digits."""


def _command(name: str, training: dict[str, Any]) -> str:
    """The command line; run by the tests where it needs no teacher."""
    verb, alone = ("train", "") if name == "labels" else ("distill", f"--method {name} ")
    options = "".join(f" --training.{key} {value}" for key, value in training.items())
    if pooled(name):
        options += "".join(f" --data.{one.replace('=', ' ')}" for one in POOL.split(", "))
    teacher, reason = "", ""
    if not teacherless(name):
        teacher = "--teacher runs/teacher "
        if several(name):
            teacher = "--teachers runs/one runs/two "
        reason = "<!-- not run: an example, which names runs of yours -->\n"
    return (
        f'{reason}```bash\nlimbeck {verb} --student "{STUDENT}" {teacher}--data digits \\\n'
        f"  {alone}--out runs/{name}{options}\n```"
    )


def _snippet(name: str, training: dict[str, Any], options: dict[str, Any]) -> str:
    """The same from Python, where `limbeck.distill` asks for a teacher."""
    lines = ["```python", "import limbeck", ""]
    given = f"training={json.dumps(training)}"
    method = f"method={json.dumps({'name': name, **options} if options else name)}"
    if name == "labels":
        lines.append(f'result = limbeck.train("{STUDENT}", "digits", {given})')
    elif teacherless(name):
        return ""
    elif pooled(name):
        lines[1:] = ["import limbeck", "from limbeck.recipe.spec import DataSpec", ""]
        lines += [
            'labeled = DataSpec(source="digits", val=0.3)',
            f'data = DataSpec(source="digits", {POOL})  # the other samples are the pool',
            f'teacher = limbeck.train("{TEACHER}", labeled, training={{"epochs": 6}}).student',
        ]
    elif several(name):
        lines += [
            "teacher = [",
            f'    limbeck.train("{TEACHER}", "digits", seed=s, training={{"epochs": 1}}).student',
            "    for s in (1, 2)",
            "]",
        ]
    else:
        lines.append(
            f'teacher = limbeck.train("{TEACHER}", "digits", training={{"epochs": 1}}).student'
        )
    if name != "labels":
        data = "data" if pooled(name) else '"digits"'
        parts = (f'"{STUDENT}"', "teacher", data, method, given)
        lines += ["result = limbeck.distill(", *(f"    {part}," for part in parts), ")"]
    return "\n".join([*lines, 'print(result.metrics["test.accuracy"])', "```"])


def _loop(name: str) -> str:
    """The loss of a method on logits, called from a loop of one's own."""
    entry = METHODS[name]
    if not isinstance(entry, LossEntry) or not entry.function:
        return ""
    given = ", ".join(key.removesuffix(".logits") for key in entry.keys)
    labels = ["y = torch.randint(10, (32,))"] if "y" in entry.keys else []
    lines = ["import limbeck.functional as F", "import torch", ""]
    lines += ["student, teacher = torch.randn(2, 32, 10)", *labels]
    lines += [f"loss = F.{entry.function}({given})"]
    return "In a loop of your own:\n\n```python\n" + "\n".join(lines) + "\n```"


def measured_table() -> dict[str, Any] | None:
    """The table of the comparison on Fashion-MNIST, if it has been made."""
    if not MEASURED.exists():
        return None
    table: dict[str, Any] = json.loads(MEASURED.read_text())
    return table


def _measured(name: str, table: dict[str, Any] | None) -> str:
    names = ("none",) if name == "labels" else (name, f"{name}_balanced")
    arms = [arm for arm in table["arms"] if arm["arm"] in names] if table else []
    if table is None or not arms:
        return "Not yet measured in the [comparison on Fashion-MNIST](measured.md)."
    place = "[Fashion-MNIST, among all arms of that comparison](measured.md)"
    told = [_told(arm, table) for arm in arms]
    return "\n\n".join([*told, f"On {place}; another task may order the methods otherwise."])


def _told(arm: dict[str, Any], table: dict[str, Any]) -> str:
    """What one arm reached, and its distance to the arms that it was tested against."""
    metric = table["metric"]
    found = arm["metrics"][f"{table['split']}.{metric}"]
    value = words.interval(found["mean"], found["ci95"], metric)
    parts = [f"{words.sentence(words.title(metric))}: {value} over {len(arm['seeds'])} seeds"]
    parts += [
        f"{words.gap(test['difference'], metric)} to `{rival}` "
        f"({words.signed(test['low'], metric)} to {words.signed(test['high'], metric)})"
        for rival, test in arm["versus"].items()
    ]
    balanced = "With `weight` 1 and `balance`: " if arm["arm"].endswith("_balanced") else ""
    return f"{balanced}{'; '.join(parts)}."


def measured_page(table: dict[str, Any] | None) -> str:
    """The whole table of the comparison and how it was made."""
    title = f"{NOTE}# Measured\n\n"
    if table is None:
        return f"{title}The comparison of the methods on Fashion-MNIST has not been run yet.\n"
    made = "<!-- not run: takes half an hour -->\n```bash\n" + COMMAND + "\n```"
    how = (
        "One student and one teacher, every method at its published weight, and FitNets "
        "once more at weight 1 with `balance`, made with\n\n"
        f"{made}\n\n"
        "The published weights were chosen for larger networks and longer trainings. On a student "
        "of 1,702 parameters they can do harm, as the verdict says. Tune the weight before you "
        "judge a method by this table."
    )
    return f"{title}{how}\n\n{table_markdown(table).strip()}\n"
