"""Every term on features trains, and its state survives a round trip."""

from __future__ import annotations

import importlib

import pytest
import torch
from feature_networks import BATCH, Pair, train_term

from limbeck.errors import InputError
from limbeck.methods.base import Clock
from limbeck.methods.features import At, Fitnet, Rkd, TapTerm
from limbeck.methods.term import TermModule

PLAIN = [
    "Fitnet",
    "At",
    "Sp",
    "Cc",
    "Rkd",
    "Pkt",
    "Nst",
    "Ickd",
    "Cwd",
    "Pkd",
    "Srd",
    "CosineSmoothL1",
]
OWN = {
    "vid": "Vid",
    "mgd": "Mgd",
    "crd": "Crd",
    "reviewkd": "ReviewKD",
    "semckd": "SemCKD",
    "srrl": "Srrl",
    "catkd": "CatKD",
    "ab": "Ab",
    "ofd": "Ofd",
    "vkd": "Vkd",
    "ofa": "Ofa",
    "fsp": "Fsp",
    "ctkd": "Ctkd",
    "sdd": "Sdd",
    "pskd": "Pskd",
}
TERMS = [("features", name) for name in PLAIN] + list(OWN.items())


def build(pair: Pair, module: str, name: str, **options: object) -> TermModule:
    cls = getattr(importlib.import_module(f"limbeck.methods.{module}"), name)
    return cls(cls.Spec(**options), pair.setting())


@pytest.mark.parametrize(("module", "name"), TERMS)
def test_trains(pair: Pair, module: str, name: str) -> None:
    options = {"negatives": 32, "temperature": 0.2} if name == "Crd" else {}
    term = build(pair, module, name, **options)
    # The memory of CRD begins with noise, which takes an epoch or two to leave.
    values = train_term(pair, term, steps=80 if name == "Crd" else 24)
    assert sum(values[-4:]) < 0.98 * sum(values[:4]), values


@pytest.mark.parametrize(("module", "name"), TERMS)
def test_state_round_trip(pair: Pair, module: str, name: str) -> None:
    term = build(pair, module, name)
    train_term(pair, term, steps=4)
    state = {key: value.clone() for key, value in term.state_dict().items()}
    torch.manual_seed(1)
    again = build(pair, module, name)
    again.load_state_dict(state)
    batch = pair.record(pair.rows(0), term.student_taps, term.teacher_taps)
    clock = Clock(4, 8, 4)
    with torch.no_grad():
        assert torch.equal(term(batch, clock), again(batch, clock))


@pytest.mark.parametrize(("module", "name"), TERMS)
def test_reads_labelled_rows_only_where_it_says_so(pair: Pair, module: str, name: str) -> None:
    """A batch with unlabelled rows behind the labelled ones is what a pool gives."""
    term = build(pair, module, name).train()
    batch = pair.record(torch.arange(BATCH), term.student_taps, term.teacher_taps)
    batch["y"] = batch["y"][:40]
    assert bool(term(batch, Clock(0, 8, 4)).isfinite())


def test_state_dict_holds_no_part_of_the_student(pair: Pair) -> None:
    for module, name in (("catkd", "CatKD"), ("sdd", "Sdd")):
        assert build(pair, module, name).state_dict() == {}


def test_taps_that_the_user_names(pair: Pair) -> None:
    term = Fitnet(Fitnet.Spec(taps=[("layer1.0", "layer2.1")]), pair.setting())
    assert term.student_taps == ("layer1.0",)
    assert term.teacher_taps == ("layer2.1",)
    assert term.adapters[0].student_shape == term.adapters[0].teacher_shape


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("auto", "auto"),
        ("layer2", [("layer2", "layer2")]),
        (["layer1", "layer2:pool"], [("layer1", "layer1"), ("layer2", "pool")]),
        ([["layer1", "layer2"]], [("layer1", "layer2")]),
    ],
)
def test_how_taps_are_written(written: object, read: object) -> None:
    assert Fitnet.Spec(taps=written).taps == read


@pytest.mark.parametrize("name", ["mgd", "crd", "srrl", "catkd", "sdd", "vkd"])
def test_losses_of_one_pair_refuse_two(pair: Pair, name: str) -> None:
    with pytest.raises(InputError, match="one pair of taps, got 2"):
        build(pair, name, OWN[name], taps=["layer1", "layer2"])


@pytest.mark.parametrize("taps", ["layer2", "layer2:pool", "pool:layer1"])
def test_vkd_rotates_maps_and_vectors(pair: Pair, taps: str) -> None:
    term = build(pair, "vkd", "Vkd", taps=taps)
    batch = pair.record(pair.rows(0), term.student_taps, term.teacher_taps)
    assert bool(term(batch, Clock(0, 1, 1)).isfinite())


def test_auto_pairs(pair: Pair) -> None:
    assert At(At.Spec(), pair.setting()).pairs == [("layer1", "layer1"), ("layer2", "layer2")]
    assert Rkd(Rkd.Spec(), pair.setting()).pairs == [("pool", "pool")]


def test_options_reach_the_loss(pair: Pair) -> None:
    distances = Rkd(Rkd.Spec(angle_weight=0.0), pair.setting())
    both = Rkd(Rkd.Spec(), pair.setting())
    batch = pair.record(pair.rows(0), both.student_taps, both.teacher_taps)
    assert distances(batch, Clock(0, 1, 1)) < both(batch, Clock(0, 1, 1))


def test_balance_makes_weights_mean_the_same(pair: Pair) -> None:
    """Each pair's gradient at the student's features has the norm of the labels' gradient."""
    term = At(At.Spec(balance=True), pair.setting()).train()
    batch = pair.record(pair.rows(0), term.student_taps, term.teacher_taps)
    term.balanced(batch, Clock(0, 1, 1))
    labels = term.setting.task.loss(batch["student.logits"], batch)
    losses = term.pair_losses(term.tapped(batch), batch, Clock(0, 1, 1))
    assert term.balance is not None
    for loss, scale, tap in zip(losses, term.balance.scales, term.student_taps, strict=True):
        feature = batch[f"student.{tap}"]
        ours, theirs = (
            torch.autograd.grad(value, feature, retain_graph=True)[0].norm()
            for value in (loss * scale, labels)
        )
        assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


def test_balance_is_checkpointed_and_still_in_evaluation(pair: Pair) -> None:
    term = At(At.Spec(balance=True), pair.setting())
    train_term(pair, term, steps=3)
    assert "balance.scales" in term.state_dict()
    assert term.balance is not None
    before = term.balance.scales.clone()
    term.eval()
    term.balanced(pair.record(pair.rows(0), term.student_taps, term.teacher_taps), Clock(0, 1, 1))
    assert torch.equal(before, term.balance.scales)


def test_balance_sees_through_the_choice_of_labelled_rows(pair: Pair) -> None:
    term = build(pair, "crd", "Crd", balance=True).train()
    batch = pair.record(pair.rows(0), term.student_taps, term.teacher_taps)
    batch["y"] = batch["y"][:40]
    term.balanced(batch, Clock(0, 1, 1))
    assert term.balance is not None
    assert float(term.balance.scales) != 1.0


def test_balance_of_exits_is_measured_where_they_sit(pair: Pair) -> None:
    term = build(pair, "ofa", "Ofa", balance=True).train()
    term.balanced(pair.record(pair.rows(0), term.student_taps, ()), Clock(0, 1, 1))
    assert term.balance is not None
    assert float(term.balance.scales) not in (0.0, 1.0)


def test_the_regressor_of_fitnets_is_normalized_so_that_the_published_weight_trains(
    pair: Pair,
) -> None:
    """Behind a plain one the first steps at the default learning rate are too long: NaN here."""
    term = Fitnet(Fitnet.Spec(), pair.setting())
    values = train_term(pair, term, lr=0.05, momentum=0.9)
    assert values[-1] < 0.5 * values[0]


def test_several_teachers_are_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="exactly one"):
        Fitnet(Fitnet.Spec(), pair.setting(teachers=2))


def test_unknown_tap_names_the_nearest(pair: Pair) -> None:
    with pytest.raises(InputError, match="layer1"):
        Fitnet(Fitnet.Spec(taps=[("layr1", "layer1")]), pair.setting())


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("Rkd", "distance_weight"),
        ("Rkd", "angle_weight"),
        ("At", "power"),
        ("Cc", "gamma"),
        ("Cc", "order"),
        ("Pkt", "eps"),
        ("Pkd", "eps"),
        ("Srd", "exponent"),
        ("CosineSmoothL1", "cosine_weight"),
        ("CosineSmoothL1", "smooth_weight"),
        ("CosineSmoothL1", "beta"),
    ],
)
def test_no_loss_on_features_takes_a_number_below_zero(pair: Pair, name: str, option: str) -> None:
    with pytest.raises(InputError, match=f"{option} is -1"):
        build(pair, "features", name, **{option: -1})


def test_no_adapter_where_one_is_needed(pair: Pair) -> None:
    with pytest.raises(InputError, match="needs an adapter"):
        Fitnet(Fitnet.Spec(adapter="none"), pair.setting())


def test_a_loss_on_maps_refuses_vectors_before_training(pair: Pair) -> None:
    with pytest.raises(InputError, match="maps"):
        At(At.Spec(taps=[("pool", "pool")]), pair.setting())


def test_semckd_says_that_the_batch_is_too_large(pair: Pair) -> None:
    term = build(pair, "semckd", "SemCKD", batch=BATCH // 2)
    with pytest.raises(InputError, match="built for batches of 32"):
        train_term(pair, term, steps=1)


def test_fsp_wants_two_stages(pair: Pair) -> None:
    with pytest.raises(InputError, match="two or more"):
        build(pair, "fsp", "Fsp", taps=[("layer1", "layer1")])


def test_ofd_wants_a_normalization(pair: Pair) -> None:
    with pytest.raises(InputError, match="batch normalization of 12"):
        build(pair, "ofd", "Ofd", taps=[("layer1.0", "layer1.0")])


def test_every_tap_term_has_a_default_of_its_paper() -> None:
    assert issubclass(Fitnet, TapTerm)
    assert Fitnet.Spec().weight == 100.0
