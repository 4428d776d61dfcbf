"""The reference networks: sizes known from the literature, shapes, taps, and their parts."""

import pytest
import torch
from torch import nn

from limbeck.errors import InputError
from limbeck.models.catalog import NETWORKS
from limbeck.models.resnet import PaddedShortcut, resnet
from limbeck.models.shufflenet import Shuffle
from limbeck.models.source import build_model, count_parameters
from limbeck.models.text import Attention
from limbeck.models.wide_resnet import wide_resnet

IMAGE_NETWORKS = [name for name in NETWORKS if name not in ("mlp", "text")]
STAGES = {"vgg8": 5, "vgg13": 5, "mobilenetv2": 7, "convnet": 2, "mlp": 1}


def build(name, shape=(3, 32, 32), classes=100):
    return build_model(f"limbeck:{name}", shape=shape, classes=classes)


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        # He et al. 2015 with option A, as akamaster/pytorch_resnet_cifar10@d5489e8 publishes them.
        ("resnet20", 10, 269_722),
        ("resnet32", 10, 464_154),
        ("resnet44", 10, 658_586),
        ("resnet56", 10, 853_018),
        ("resnet110", 10, 1_727_962),
        # With 100 classes: the sizes that the distillation literature states, in millions.
        ("resnet20", 100, 0.28),
        ("resnet56", 100, 0.86),
        ("resnet110", 100, 1.73),
        ("resnet8x4", 100, 1.23),
        ("resnet32x4", 100, 7.43),
        ("wrn-16-2", 100, 0.70),
        ("wrn-40-1", 100, 0.57),
        ("wrn-40-2", 100, 2.26),
        ("vgg8", 100, 3.97),
        ("vgg13", 100, 9.46),
        ("mobilenetv2", 100, 0.81),
        ("shufflenetv1", 100, 0.95),
        ("shufflenetv2", 100, 1.36),
        # The same to the last parameter, so that no layer changes unnoticed.
        ("resnet8x4", 100, 1_233_540),
        ("resnet32x4", 100, 7_433_860),
        ("wrn-16-2", 100, 703_284),
        ("wrn-40-2", 100, 2_255_156),
        ("vgg8", 100, 3_965_028),
        ("vgg13", 100, 9_462_180),
        ("mobilenetv2", 100, 812_836),
        ("shufflenetv1", 100, 949_258),
        ("shufflenetv2", 100, 1_355_528),
        # By hand: (9 * 3 * 16 + 32) + (9 * 16 * 32 + 64) + 33 * 100, and 3072 * 64 + 64 + 6500.
        ("convnet", 100, 8_436),
        ("mlp", 100, 203_172),
    ],
)
def test_the_size_is_the_known_one(name, classes, count):
    parameters = count_parameters(build(name, classes=classes))
    assert (parameters if isinstance(count, int) else round(parameters / 1e6, 2)) == count


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 28, 19)])
def test_other_sizes_and_channels_work(name, shape):
    model = build(name, shape, classes=7).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", [*IMAGE_NETWORKS, "mlp"])
def test_every_parameter_learns_and_the_stages_can_be_tapped(name):
    model = build(name, (2, 16, 16), classes=3)
    model(torch.randn(3, 2, 16, 16)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    paths = dict(model.named_modules())
    expected = [f"layer{number + 1}" for number in range(STAGES.get(name, 3))]
    assert {*expected, "linear"} <= set(paths)
    assert name == "mlp" or "pool" in paths


@pytest.mark.parametrize("name", ["resnet20", "wrn-16-1", "resnet8x4", "shufflenetv2", "vgg8"])
def test_stages_halve_the_image(name):
    model, sizes = build(name), {}
    for path, module in model.named_children():
        module.register_forward_hook(lambda m, i, o, path=path: sizes.update({path: o.shape[2:]}))
    model.eval()(torch.zeros(1, 3, 32, 32))
    first = 16 if name == "shufflenetv2" else 32
    assert [sizes[f"layer{n}"][0] for n in (1, 2, 3)] == [first, first // 2, first // 4]


def test_the_names_in_a_residual_network_are_those_of_public_checkpoints():
    norm = ("weight", "bias", "running_mean", "running_var")
    expected = ["conv1.weight", *(f"bn1.{part}" for part in norm)]
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            for half in (1, 2):
                path = f"layer{stage}.{block}"
                expected += [f"{path}.conv{half}.weight", *(f"{path}.bn{half}.{p}" for p in norm)]
    expected += ["linear.weight", "linear.bias"]
    names = [name for name in build("resnet20").state_dict() if "num_batches" not in name]
    assert names == expected


def test_projection_shortcuts_stand_where_the_shape_changes():
    model = build("resnet32x4")
    found = [path for path, m in model.named_modules() if path.endswith("shortcut.0")]
    assert found == [f"layer{stage}.0.shortcut.0" for stage in (1, 2, 3)]


def test_the_parameter_free_shortcut_subsamples_and_pads_with_zeros():
    x = torch.arange(2.0 * 25).view(1, 2, 5, 5)
    y = PaddedShortcut(2, 5, stride=2)(x)
    assert y.shape == (1, 5, 3, 3)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3, 4]].any()


def test_the_wide_shortcut_starts_after_the_first_activation():
    block = wide_resnet(depth=16, width=2, classes=2, in_channels=3).layer2[0].eval()
    x = torch.randn(2, 32, 8, 8)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), block.shortcut(torch.relu(block.bn1(x))))


def test_shuffle_deals_the_channels_as_torch_does():
    x = torch.randn(2, 12, 3, 4)
    assert torch.equal(Shuffle(3)(x), nn.ChannelShuffle(3)(x))


def test_the_seed_of_torch_decides_the_parameters():
    def first(seed):
        torch.manual_seed(seed)
        return build("resnet8").conv1.weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_he_initialization_has_the_papers_spread():
    model = build("vgg8")
    weight, bias = model.layer5[0].weight, model.layer5[0].bias
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert not bias.any()


@pytest.mark.parametrize("widths", ["8", "8,16", "8,16,24"])
def test_convnets_of_one_to_three_widths_read_digits(widths):
    model = build(f"convnet?widths={widths}", (1, 8, 8), classes=10)
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert sum(name.startswith("layer") for name, _ in model.named_children()) == len(
        widths.split(",")
    )


@pytest.mark.parametrize("shape", [(784,), (1, 28, 28), (5, 7)])
def test_mlp_flattens_any_sample_and_drops_units_in_training(shape):
    model = build("mlp?widths=50,40&dropout=0.5", shape, classes=3)
    x = torch.randn(4, *shape)
    assert model(x).shape == (4, 3)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_text_ignores_padding_and_reads_texts_without_tokens(layers):
    model = build(f"text?vocabulary=50&layers={layers}&width=16", (12,), classes=4).eval()
    tokens = torch.randint(1, 50, (3, 5))
    padded = torch.nn.functional.pad(tokens, (0, 7))
    assert torch.allclose(model(tokens), model(padded), atol=1e-6)
    empty = model(torch.zeros(1, 12, dtype=torch.long))
    assert torch.allclose(empty, model.linear.bias)
    assert len(model.layers) == layers


def test_text_with_attention_sees_the_order_and_without_does_not():
    tokens = torch.tensor([[3, 4, 5, 6], [6, 5, 4, 3]])
    bag = build("text?vocabulary=9", (4,), classes=4)(tokens)
    ordered = build("text?vocabulary=9&layers=1", (4,), classes=4)(tokens)
    assert torch.allclose(bag[0], bag[1], atol=1e-6)
    assert not torch.allclose(ordered[0], ordered[1], atol=1e-3)


def test_every_parameter_of_the_text_encoder_learns():
    model = build("text?vocabulary=9&layers=1", (4,), classes=4)
    model(torch.randint(0, 9, (3, 4))).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert not model.embedding.weight.grad[0].any()


def test_attention_is_torchs_multihead_attention():
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.inward.weight, ours.inward.bias
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.outward.weight, ours.outward.bias
    x, keep = torch.randn(3, 5, 8), torch.arange(5) < torch.tensor([[5], [3], [1]])
    expected, _ = theirs(x, x, x, key_padding_mask=~keep)
    assert torch.allclose(ours(x, keep), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("resnet20", (784,), r"takes images of shape .* samples have shape \(784,\)"),
        ("vgg8", (28, 28), r"takes images of shape .* samples have shape \(28, 28\)"),
        ("text?vocabulary=9", (3, 8, 8), r"takes token ids .* samples have \(3, 8, 8\)"),
        ("text", (8,), "needs the option 'vocabulary'"),
        ("text?vocabulary=9&layers=1&width=6", (8,), "multiple of 4, got 6"),
        ("mlp?widths=0", (8,), "'widths' must be positive whole numbers .*, got 0"),
        ("mlp?widths=a,b", (8,), "'widths' must be positive whole numbers .*, got 'a,b'"),
        ("mlp?dropout=2", (8,), "could not be built: ValueError: dropout"),
        ("resnet20?widths=8,8,16", (3, 8, 8), r"4 positive whole numbers such as 16,32,64,128"),
        ("resnet20?widths=8,8,16,4", (3, 8, 8), "must not decrease"),
        ("resnet20?depth=32", (3, 8, 8), r"unknown option 'depth' .*\(known: widths, projection"),
        ("convnet?width=3", (3, 8, 8), "unknown option 'width' .* did you mean 'widths'?"),
        ("mobilenetv2?width=0.01", (3, 8, 8), "at least 0.0625, got 0.01"),
    ],
)
def test_what_a_network_cannot_be_is_refused(name, shape, words):
    with pytest.raises(InputError, match=words):
        build(name, shape)


@pytest.mark.parametrize("depth", [2, 21])
def test_depths_that_no_residual_network_has_are_refused(depth):
    with pytest.raises(InputError, match=f"6n \\+ 2 .* got {depth}"):
        resnet(depth=depth, classes=2, in_channels=1)
    with pytest.raises(InputError, match=f"6n \\+ 4, got {depth}"):
        wide_resnet(depth=depth, width=1, classes=2, in_channels=1)
