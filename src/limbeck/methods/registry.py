"""The registry: every method by name, in one line each. Torch is not imported here.

A plain loss is a line with `loss(...)`: the function's name in `limbeck.functional`, what it
reads, and the published weights. A method in a file of its own is a line with `Entry(...)`.
Other packages add methods through the entry-point group `limbeck.methods`, whose values
are `Entry` objects.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from limbeck.errors import InputError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Entry:
    """A method: where its class is, and what `limbeck methods` says of it.

    Attributes:
        summary: one line.
        paper: its source.
        needs: what it needs besides the student.
        target: `module:Class` of a `Method`, or of a `TermModule`.
    """

    summary: str
    paper: str
    needs: str
    target: str = ""


def register(cls: Any, *, summary: str = "", paper: str = "", needs: str = "logits") -> Any:
    """Make a `Method` or `TermModule` of your own known by its Spec's name; usable as a decorator.

    For notebooks and scripts; an installed package has the entry-point group `limbeck.methods`.

    Args:
        cls: its `Spec` has a `name` with a default.
        summary: one line for `limbeck methods`.
        paper: its source.
        needs: what it needs besides the student.
    """
    name = cls.Spec.model_fields["name"].default
    METHODS[name] = Entry(summary, paper, needs, f"{cls.__module__}:{cls.__qualname__}")
    all_methods.cache_clear()
    return cls


def load_target(entry: Entry) -> Any:
    """The class that an entry names, imported now."""
    module, _, name = entry.target.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True)
class LossEntry(Entry):
    """A method that is one term beside the supervised loss.

    Attributes:
        function: name in `limbeck.functional`, or `module:function` of another package; empty
            for the supervised loss alone.
        keys: what the function reads from the batch, in its order.
        weight: published weight of the term.
        label_weight: published weight of the supervised loss beside it.
        coupled: whether the loss relates the samples of a batch to one another.
    """

    function: str = ""
    keys: tuple[str, ...] = ()
    weight: float = 1.0
    label_weight: float = 1.0
    coupled: bool = False


LOGITS = ("student.logits", "teacher.logits")
LOGITS_Y = (*LOGITS, "y")

METHODS: dict[str, Entry] = {
    "labels": LossEntry("Supervised loss alone: the arm without a teacher", "", "labels"),
    "kd": LossEntry(
        "Soft labels at a temperature, beside the hard ones",
        "Hinton et al. 2015, arXiv:1503.02531",
        "logits",
        "",
        "kd_loss",
        LOGITS,
        weight=0.9,
        label_weight=0.1,
    ),
    "lskd": LossEntry(
        "KD on standardized logits",
        "Sun et al. 2024, arXiv:2403.01427",
        "logits",
        "",
        "lskd_loss",
        LOGITS,
        weight=9.0,
        label_weight=0.1,
    ),
    "dkd": LossEntry(
        "Target and non-target classes decoupled",
        "Zhao et al. 2022, arXiv:2203.08679",
        "logits, labels",
        "",
        "dkd_loss",
        LOGITS_Y,
        weight=1.0,
        label_weight=1.0,
    ),
    "nkd": LossEntry(
        "Non-target classes renormalized",
        "Yang et al. 2023, arXiv:2303.13005",
        "logits, labels",
        "",
        "nkd_loss",
        LOGITS_Y,
        weight=1.0,
        label_weight=1.0,
    ),
    "wsld": LossEntry(
        "Soft labels weighted sample by sample",
        "Zhou et al. 2021, arXiv:2102.00650",
        "logits, labels",
        "",
        "wsld_loss",
        LOGITS_Y,
        weight=2.5,
        label_weight=1.0,
    ),
    "dist": LossEntry(
        "Correlations between and within classes",
        "Huang et al. 2022, arXiv:2205.10536",
        "logits",
        "",
        "dist_loss",
        LOGITS,
        weight=2.0,
        label_weight=1.0,
        coupled=True,
    ),
    "wttm": LossEntry(
        "The teacher alone at a temperature, samples weighted",
        "Zheng and Yang 2024, arXiv:2402.11148",
        "logits",
        "",
        "wttm_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "mlkd": LossEntry(
        "Agreement of samples, batch and classes at several temperatures",
        "Jin et al. 2023, CVPR",
        "logits",
        "",
        "mlkd_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
        coupled=True,
    ),
    "deit_hard": LossEntry(
        "The teacher's decision as a second label",
        "Touvron et al. 2021, arXiv:2012.12877",
        "logits",
        "",
        "deit_hard_loss",
        LOGITS,
        weight=0.5,
        label_weight=0.5,
    ),
    "deit_soft": LossEntry(
        "Soft labels beside the hard ones, T = 3",
        "Touvron et al. 2021, arXiv:2012.12877",
        "logits",
        "",
        "deit_soft_loss",
        LOGITS,
        weight=0.1,
        label_weight=0.9,
    ),
    "logit_mse": LossEntry(
        "Squared difference of the logits",
        "Kim et al. 2021, arXiv:2105.08919",
        "logits",
        "",
        "logit_mse_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "tfkd_self": LossEntry(
        "A teacher of the student's own kind",
        "Yuan et al. 2020, arXiv:1909.11723",
        "logits",
        "",
        "tfkd_self_loss",
        LOGITS,
        weight=0.95,
        label_weight=0.05,
    ),
    "tfkd_reg": LossEntry(
        "A virtual teacher: no model at all",
        "Yuan et al. 2020, arXiv:1909.11723",
        "labels",
        "",
        "tfkd_reg_loss",
        ("student.logits", "y"),
        weight=0.1,
        label_weight=0.9,
    ),
    "rkl": LossEntry(
        "Reverse KL: the student seeks the teacher's modes",
        "Gu et al. 2024, arXiv:2306.08543",
        "logits",
        "",
        "rkl_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "symkl": LossEntry(
        "Forward and reverse KL mixed",
        "Ko et al. 2024, arXiv:2402.03898",
        "logits",
        "",
        "symkl_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "jsd": LossEntry(
        "Generalized Jensen-Shannon divergence",
        "Agarwal et al. 2024, arXiv:2306.13649",
        "logits",
        "",
        "gkd_jsd_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "skl": LossEntry(
        "Skewed forward KL",
        "Ko et al. 2024, arXiv:2402.03898",
        "logits",
        "",
        "skl_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "srkl": LossEntry(
        "Skewed reverse KL",
        "Ko et al. 2024, arXiv:2402.03898",
        "logits",
        "",
        "srkl_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "tvd": LossEntry(
        "Total variation",
        "Wen et al. 2023, arXiv:2307.15190",
        "logits",
        "",
        "tvd_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "akl": LossEntry(
        "Forward KL on the head, reverse KL on the tail",
        "Wu et al. 2024, arXiv:2404.02657",
        "logits",
        "",
        "akl_loss",
        LOGITS,
        weight=1.0,
        label_weight=1.0,
    ),
    "fitnet": Entry(
        "The student's middle maps as the teacher's",
        "Romero et al. 2015, arXiv:1412.6550",
        "features",
        "limbeck.methods.features:Fitnet",
    ),
    "at": Entry(
        "Where the channels together look",
        "Zagoruyko and Komodakis 2017, arXiv:1612.03928",
        "features",
        "limbeck.methods.features:At",
    ),
    "sp": Entry(
        "Similarities between the samples of a batch",
        "Tung and Mori 2019, arXiv:1907.09682",
        "features",
        "limbeck.methods.features:Sp",
    ),
    "cc": Entry(
        "Kernels between the samples of a batch",
        "Peng et al. 2019, arXiv:1904.01802",
        "features",
        "limbeck.methods.features:Cc",
    ),
    "rkd": Entry(
        "Distances and angles between samples",
        "Park et al. 2019, arXiv:1904.05068",
        "features",
        "limbeck.methods.features:Rkd",
    ),
    "pkt": Entry(
        "Neighbor probabilities in a batch",
        "Passalis and Tefas 2018, arXiv:1803.10837",
        "features",
        "limbeck.methods.features:Pkt",
    ),
    "vid": Entry(
        "A Gaussian around a prediction of the teacher's maps",
        "Ahn et al. 2019, arXiv:1904.05835",
        "features",
        "limbeck.methods.vid:Vid",
    ),
    "nst": Entry(
        "How the channels' maps are distributed",
        "Huang and Wang 2017, arXiv:1707.01219",
        "features",
        "limbeck.methods.features:Nst",
    ),
    "fsp": Entry(
        "How features flow from stage to stage",
        "Yim et al. 2017, CVPR",
        "features",
        "limbeck.methods.fsp:Fsp",
    ),
    "ab": Entry(
        "On which side of zero each neuron stands",
        "Heo et al. 2019, arXiv:1811.03233",
        "features",
        "limbeck.methods.ab:Ab",
    ),
    "ofd": Entry(
        "Partial distance behind a margin ReLU",
        "Heo et al. 2019, arXiv:1904.01866",
        "features",
        "limbeck.methods.ofd:Ofd",
    ),
    "crd": Entry(
        "Each sample told from the others, with a memory",
        "Tian et al. 2020, arXiv:1910.10699",
        "features, labels",
        "limbeck.methods.crd:Crd",
    ),
    "reviewkd": Entry(
        "The student's stages fused to the teacher's",
        "Chen et al. 2021, arXiv:2104.09044",
        "features",
        "limbeck.methods.reviewkd:ReviewKD",
    ),
    "ickd": Entry(
        "Correlations between channels",
        "Liu et al. 2021, ICCV",
        "features",
        "limbeck.methods.features:Ickd",
    ),
    "srrl": Entry(
        "The teacher's classifier on the student's features",
        "Yang et al. 2021, ICLR",
        "features, live teacher",
        "limbeck.methods.srrl:Srrl",
    ),
    "semckd": Entry(
        "Every stage from every stage, by attention",
        "Chen et al. 2021, arXiv:2012.03236",
        "features, labels",
        "limbeck.methods.semckd:SemCKD",
    ),
    "simkd": Entry(
        "The teacher's own classifier behind a projector",
        "Chen et al. 2022, arXiv:2203.14001",
        "features, live teacher",
        "limbeck.methods.simkd:SimKD",
    ),
    "catkd": Entry(
        "The maps that the classifiers draw of the classes",
        "Guo et al. 2023, CVPR",
        "features, live teacher",
        "limbeck.methods.catkd:CatKD",
    ),
    "mgd": Entry(
        "The teacher's maps restored from masked ones",
        "Yang et al. 2022, arXiv:2205.01529",
        "features",
        "limbeck.methods.mgd:Mgd",
    ),
    "cwd": Entry(
        "Each channel's distribution over positions",
        "Shu et al. 2021, arXiv:2011.13256",
        "features",
        "limbeck.methods.features:Cwd",
    ),
    "pkd": Entry(
        "Correlation of each channel",
        "Cao et al. 2022, arXiv:2207.02039",
        "features",
        "limbeck.methods.features:Pkd",
    ),
    "srd": Entry(
        "A power of differences, behind one projection",
        "Miles and Mikolajczyk 2024, arXiv:2303.11098",
        "features",
        "limbeck.methods.features:Srd",
    ),
    "vkd": Entry(
        "Standardized features behind a rotation",
        "Miles et al. 2024, arXiv:2403.06213",
        "features",
        "limbeck.methods.vkd:Vkd",
    ),
    "cosine_smooth_l1": Entry(
        "Cosine and smooth L1 of each token",
        "Ranzinger et al. 2024, arXiv:2312.06709",
        "features",
        "limbeck.methods.features:CosineSmoothL1",
    ),
    "factor_transfer": Entry(
        "A paraphrase of the teacher's features, translated",
        "Kim et al. 2018, arXiv:1802.04977",
        "features",
        "limbeck.methods.factor:FactorTransfer",
    ),
    "ofa": Entry(
        "The teacher's logits at exits of the student's stages",
        "Hao et al. 2023, arXiv:2310.19444",
        "logits, labels",
        "limbeck.methods.ofa:Ofa",
    ),
    "sdd": Entry(
        "Logits of image regions",
        "Wei et al. 2024, arXiv:2403.13512",
        "features, labels, live teacher",
        "limbeck.methods.sdd:Sdd",
    ),
    "ctkd": Entry(
        "KD at a temperature that learns against the student",
        "Li et al. 2023, arXiv:2211.16231",
        "logits",
        "limbeck.methods.ctkd:Ctkd",
    ),
    "pskd": Entry(
        "The student's own word an epoch ago",
        "Kim et al. 2021, arXiv:2006.12000",
        "labels",
        "limbeck.methods.pskd:Pskd",
    ),
    "dml": Entry(
        "Students that teach each other while they learn",
        "Zhang et al. 2018, arXiv:1706.00384",
        "labels",
        "limbeck.methods.dml:Dml",
    ),
}


@cache
def all_methods() -> dict[str, Entry]:
    """The built-in methods and those of installed packages; built-in names win."""
    from importlib.metadata import entry_points

    found = {point.name: _plugin(point) for point in entry_points(group="limbeck.methods")}
    return {**found, **METHODS}


def _plugin(point: EntryPoint) -> Entry:
    """The entry that another package adds; one that is broken is named, not passed over."""
    try:
        entry = point.load()
    except Exception as error:
        raise InputError(
            f"the method {point.name!r} of an installed package ({point.value}) cannot be loaded: "
            f"{error}; repair or remove that package"
        ) from None
    if not isinstance(entry, Entry):
        raise InputError(
            f"the method {point.name!r} of an installed package ({point.value}) is no "
            f"limbeck.methods.registry.Entry but {type(entry).__name__}"
        )
    return entry


def find_method(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        InputError: no method has that name.
    """
    # Built-in names do not wait for what other packages bring, nor fail with it.
    methods = METHODS if name in METHODS else all_methods()
    if name not in methods:
        raise InputError(
            f"unknown method {name!r}{nearest(name, methods)}; `limbeck methods` lists all: "
            f"{', '.join(methods)}"
        )
    return methods[name]
