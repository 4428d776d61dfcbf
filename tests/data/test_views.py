import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.base import ArraySplit
from limbeck.data.ops import OPS, Color, Crop, Flip, FlipCrop, beta, to_float
from limbeck.data.random import generator
from limbeck.data.views import Views, parse_views
from limbeck.errors import InputError

COUNT = 300


def image_split(dtype=torch.uint8, channels=3):
    x = torch.randint(0, 256, (COUNT, channels, 12, 10), generator=generator(0, "images"))
    x = x.to(torch.uint8) if dtype == torch.uint8 else (x / 255).to(dtype)
    return ArraySplit(x, torch.arange(COUNT) % 7, torch.arange(COUNT) * 3 + 5)


def vector_split():
    x = torch.randn(COUNT, 9, generator=generator(0, "vectors"))
    return ArraySplit(x, torch.arange(COUNT) % 7, torch.arange(COUNT) * 3 + 5)


IMAGE_OPS = ["flip", "crop", {"crop": {"mode": "reflect"}}, "cutout", "color", "mixup", "cutmix"]
VECTOR_OPS = ["noise", "dropout", "mixup"]
CHAINS = [
    *[(image_split, [op]) for op in IMAGE_OPS],
    *[(vector_split, [op]) for op in VECTOR_OPS],
    (image_split, ["flip", "crop", "color", "cutout", {"mixup": {"alpha": 0.2}}]),
    (image_split, ["crop", "flip", "cutmix", "color"]),
    (vector_split, ["noise", "mixup", "dropout"]),
]


@pytest.mark.parametrize(("make", "ops"), CHAINS)
def test_a_sample_has_the_same_bits_in_every_batch(make, ops):
    split = make()
    views = parse_views(ops, seed=3, source=split)
    whole = views(split.fetch(torch.arange(COUNT)), 2)
    order = torch.randperm(COUNT, generator=generator(1, "order"))
    for size in (1, 7, 64):
        for rows in order[:130].split(size):
            part = views(split.fetch(rows), 2)
            for key, value in part.items():
                assert torch.equal(value, whole[key][rows]), (key, size)


@pytest.mark.parametrize(("make", "ops"), CHAINS)
def test_views_differ_by_number_and_seed_but_not_by_run(make, ops):
    split = make()
    batch = split.fetch(torch.arange(COUNT))
    first = parse_views(ops, seed=3, source=split)(batch, 1)["x"]
    assert torch.equal(parse_views(ops, seed=3, source=split)(batch, 1)["x"], first)
    assert not torch.equal(parse_views(ops, seed=3, source=split)(batch, 2)["x"], first)
    assert not torch.equal(parse_views(ops, seed=4, source=split)(batch, 1)["x"], first)


@pytest.mark.parametrize(("make", "ops"), CHAINS)
def test_view_zero_is_the_clean_sample_and_batches_are_left_alone(make, ops):
    split = make()
    views = parse_views(ops, seed=3, source=split)
    batch = split.fetch(torch.arange(COUNT))
    kept = {key: value.clone() for key, value in batch.items()}
    views(batch, 5)
    clean = views(batch, 0)
    assert clean.keys() == kept.keys()
    assert all(torch.equal(clean[key], kept[key]) for key in kept)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=30), st.integers(1, 1000))
def test_any_batch_of_any_view(rows, view):
    split = image_split()
    views = parse_views(["flip", "crop", "mixup"], seed=0, source=split)
    together = views(split.fetch(torch.tensor(rows)), view)["x"]
    alone = [views(split.fetch(torch.tensor([row])), view)["x"] for row in rows]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(("make", "ops"), CHAINS)
def test_plans_that_are_kept_change_nothing(make, ops):
    split = make()
    views = parse_views(ops, seed=3, source=split)
    batches = torch.randperm(COUNT, generator=generator(2, "order")).split(50)
    for view in (1, 2, 1):
        for rows in batches:
            batch = split.fetch(rows)
            fresh = parse_views(ops, seed=3, source=split)(batch, view)
            kept = views(batch, view)
            assert all(torch.equal(kept[key], fresh[key]) for key in fresh)


def test_samples_from_elsewhere_are_planned_too():
    split = image_split()
    views = parse_views(["flip", "crop"], seed=3, source=split)
    strangers = {"x": split.x[:9], "index": torch.arange(9) + 10**6}
    expected = parse_views(["flip", "crop"], seed=3)(strangers, 1)["x"]
    for _ in range(5):
        views(split.fetch(torch.arange(9)), 1)
    assert torch.equal(views(strangers, 1)["x"], expected)


def numbered(count, side):
    """Images whose pixels say their row and column."""
    place = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side) + 1
    return {"x": place.expand(count, 1, side, side).contiguous(), "index": torch.arange(count)}


def test_half_of_the_images_are_flipped():
    batch = numbered(20_000, 4)
    flipped = parse_views([{"flip": {"p": 0.3}}])(batch, 1)["x"][:, 0, 0, 0] != 1
    assert abs(flipped.float().mean().item() - 0.3) < 0.015


def test_all_windows_are_equally_likely():
    batch = numbered(27_000, 9)
    center = parse_views([{"crop": {"padding": 1}}])(batch, 1)["x"][:, 0, 4, 4]
    values, counts = center.unique(return_counts=True)
    assert len(values) == 9
    assert (counts / 3000 - 1).abs().max() < 0.1


def test_flip_and_crop_are_one_pass_in_either_order():
    fused = FlipCrop(flip=Flip(p=0.4), crop=Crop(padding=2))
    for ops in ([Flip(p=0.4), Crop(padding=2)], [Crop(padding=2), Flip(p=0.4)]):
        assert Views(ops, seed=0).ops == (fused,)
    side = parse_views(["flip", {"crop": {"padding": 1}}])(numbered(20_000, 5), 1)["x"][:, 0, 2]
    rising = (side[:, 2] > side[:, 1]).float().mean().item()
    assert abs(rising - 0.5) < 0.02


def test_cutout_blacks_out_a_clipped_square():
    batch = {"x": torch.full((5000, 1, 8, 8), 9, dtype=torch.uint8), "index": torch.arange(5000)}
    dark = (parse_views([{"cutout": {"size": 4}}])(batch, 1)["x"] == 0)[:, 0]
    area = dark.sum((1, 2))
    assert area.max() == 16
    assert area.min() == 4
    tall, wide = dark.any(2).sum(1), dark.any(1).sum(1)
    assert torch.equal(area, tall * wide)


def colored(x, **strengths):
    op = Color(**{"brightness": 0, "contrast": 0, "saturation": 0} | strengths)
    return op.apply(x, op.plan(torch.arange(len(x)), 1, x.shape[1:]))


def test_color_scales_brightness_contrast_and_saturation():
    split = image_split()
    batch = split.fetch(torch.arange(64))
    x = to_float(batch["x"])
    bright = colored(batch["x"], brightness=0.5)
    factor = (bright / x.clamp_min(1e-3)).flatten(1).median(1).values
    assert torch.allclose(bright, (x * factor[:, None, None, None]).clamp(0, 1), atol=2e-3)
    assert ((factor >= 0.499) & (factor <= 1.501)).all()
    assert factor.std() > 0.2
    gray = x.mean(1, keepdim=True).expand_as(x).contiguous()
    assert torch.allclose(colored(gray, saturation=1), gray, atol=1e-5)
    flat = torch.full_like(x, 0.4)
    assert torch.allclose(colored(flat, contrast=1), flat, atol=1e-5)


def test_pixels_stay_bytes_until_values_are_computed():
    split = image_split()
    batch = split.fetch(torch.arange(4))
    for ops in (["flip", "crop", "cutout"], ["cutmix"]):
        assert parse_views(ops, source=split)(batch, 1)["x"].dtype == torch.uint8
    for ops in (["color"], ["flip", "mixup"]):
        x = parse_views(ops, source=split)(batch, 1)["x"]
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert x.max() <= 1
    assert torch.equal(
        to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0, 0.2, 1])
    )


def test_mixup_blends_with_a_partner_and_its_label():
    split = image_split()
    mixed = parse_views(["mixup"], seed=1, source=split)(split.fetch(torch.arange(COUNT)), 1)
    share = mixed["mix"].view(-1, 1, 1, 1)
    partner = (mixed["x"] - to_float(split.x) * share) / (1 - share)
    for row in (mixed["mix"] < 0.9).nonzero().flatten()[:40].tolist():
        gap = (to_float(split.x) - partner[row]).abs().flatten(1).amax(1)
        assert gap.min() < 1e-4
        assert split.y[gap.argmin()] == mixed["y_mix"][row]
    assert torch.equal(mixed["y"], split.y)


def test_partners_are_seen_through_the_operations_before():
    x = torch.zeros(COUNT, 1, 4, 4)
    x[:, :, :, 0] = torch.arange(COUNT).view(-1, 1, 1) + 1.0
    split = ArraySplit(x, torch.arange(COUNT))
    mixed = parse_views([{"flip": {"p": 1}}, "mixup"], source=split)(
        split.fetch(torch.arange(COUNT)), 1
    )
    assert (mixed["x"][..., 0] == 0).all()
    blend = (mixed["mix"] * (mixed["y"] + 1) + (1 - mixed["mix"]) * (mixed["y_mix"] + 1)).float()
    assert torch.allclose(mixed["x"][:, 0, 0, 3], blend, rtol=1e-4)


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    own = ArraySplit(torch.zeros(2000, 1, 8, 8), torch.zeros(2000, dtype=torch.int64))
    other = ArraySplit(torch.ones(10, 1, 8, 8), torch.ones(10, dtype=torch.int64))
    mixed = parse_views(["cutmix"], source=other)(own.fetch(torch.arange(2000)), 1)
    pasted = mixed["x"].mean((1, 2, 3))
    assert torch.allclose(mixed["mix"], 1 - pasted)
    assert (mixed["y_mix"] == 1).all()
    assert 0.2 < pasted.mean() < 0.5  # boxes cover half on average, before they are clipped


def test_unlabelled_samples_mix_without_labels():
    pool = ArraySplit(torch.randn(20, 4))
    mixed = parse_views(["mixup"], source=pool)(pool.fetch(torch.arange(5)), 1)
    assert "mix" in mixed
    assert "y_mix" not in mixed


def test_all_partners_are_equally_likely():
    split = ArraySplit(torch.zeros(20_000, 1), torch.arange(20_000) % 5)
    mixed = parse_views(["mixup"], source=split)(split.fetch(torch.arange(20_000)), 1)
    assert (torch.bincount(mixed["y_mix"]) / 4000 - 1).abs().max() < 0.1
    assert len(mixed["y_mix"].unique()) == 5


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 3.0])
def test_beta_is_the_inverse_distribution_function(alpha):
    from scipy.special import betaincinv

    number = torch.rand(4000, generator=generator(0, "beta"))
    exact = torch.from_numpy(betaincinv(alpha, alpha, number.double().numpy())).float()
    gap = (beta(number, alpha) - exact).abs()
    assert gap.mean() < 1e-5
    assert gap.max() < 0.01
    ends = beta(torch.tensor([0.0, 1 - 2.0**-24]), alpha)
    assert ends[0] == 0
    assert 0.5 < ends[1] <= 1


def test_noise_and_dropout_have_their_strength():
    batch = {"x": torch.ones(4000, 25), "index": torch.arange(4000)}
    noisy = parse_views([{"noise": {"std": 0.5}}])(batch, 1)["x"] - 1
    assert abs(noisy.mean().item()) < 0.01
    assert abs(noisy.std().item() - 0.5) < 0.01
    assert noisy.isfinite().all()
    kept = parse_views([{"dropout": {"p": 0.2}}])(batch, 1)["x"]
    assert abs((kept == 0).float().mean().item() - 0.2) < 0.01
    assert set(kept.unique().tolist()) == {0.0, 1.0}


def test_the_definition_tells_views_apart():
    split = image_split()
    one = parse_views(["flip", {"crop": {"padding": 4}}], seed=1)
    assert json.loads(json.dumps(one.definition())) == one.definition()
    assert one.definition() == parse_views(["flip", "crop"], seed=1).definition()
    others = [
        parse_views(["flip", "crop"], seed=2),
        parse_views(["flip", {"crop": {"padding": 3}}], seed=1),
        parse_views(["crop"], seed=1),
        parse_views(["mixup"], seed=1, source=split),
        parse_views(["mixup"], seed=1, source=split.select(torch.arange(9))),
    ]
    definitions = [json.dumps(views.definition()) for views in [one, *others]]
    assert len(set(definitions)) == len(definitions)


@pytest.mark.parametrize(
    ("specs", "options", "words"),
    [
        (["flop"], {}, "unknown view 'flop', did you mean 'flip'?"),
        ([{"crop": {"paddng": 4}}], {}, "view crop: unknown key 'paddng', did you mean 'padding'?"),
        ([{"crop": {"padding": 0}}], {}, "view crop.padding: .* not 0"),
        ([{"crop": {"mode": "wrap"}}], {}, "view crop.mode: .*'zeros' or 'reflect'"),
        ([{"flip": {"p": 1.5}}], {}, "view flip.p: .* not 1.5"),
        ([{"mixup": {"alpha": 0}}], {}, "view mixup.alpha"),
        (["mixup"], {}, "need a source of partners"),
        (["mixup", "cutmix"], {"source": True}, r"mix samples twice \(mixup, cutmix\)"),
        (["crop"], {"kind": "table"}, "'crop' does not fit data of kind 'table': take noise"),
        (["dropout"], {"kind": "image"}, "'dropout' does not fit data of kind 'image': take flip"),
        ([{"crop": {"padding": 10, "mode": "reflect"}}], {"source": True}, "10 pixels cannot be"),
    ],
)
def test_bad_views_are_refused(specs, options, words):
    if "source" in options:
        options = options | {"source": image_split()}
    with pytest.raises(InputError, match=words):
        parse_views(specs, **options)


def test_token_ids_have_no_views():
    tokens = ArraySplit(torch.ones(5, 8, dtype=torch.int64))
    with pytest.raises(InputError, match="does not fit token ids"):
        parse_views(["noise"], kind="text", source=tokens)


def test_no_views_change_nothing():
    batch = vector_split().fetch(torch.arange(3))
    assert parse_views([])(batch, 4) is batch


def test_every_view_has_a_fitting_kind():
    assert all(op.kinds for op in OPS.values())
    assert {name for name, op in OPS.items() if "table" in op.kinds} == {
        "noise",
        "dropout",
        "mixup",
    }
