import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.random import _uniforms_torch, derive, generator, uniforms

SEEDS = st.integers(0, 2**63 - 1)


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=20), st.integers(1, 5), SEEDS)
def test_every_device_draws_the_bits_of_the_cpu(ids, count, seed):
    index = torch.tensor(ids)
    assert torch.equal(uniforms(index, count, seed=seed), _uniforms_torch(index, count, seed))


def test_a_draw_depends_on_nothing_but_id_and_seed():
    index = torch.arange(1000)
    order = torch.randperm(1000, generator=generator(0, "order"))
    drawn = uniforms(index, 3, seed=7)
    assert torch.equal(uniforms(index[order], 3, seed=7), drawn[order])
    assert not torch.equal(uniforms(index, 3, seed=8), drawn)


def test_draws_are_uniform_and_uncorrelated():
    drawn = uniforms(torch.arange(100_000), 2, seed=derive(0, "a"))
    assert ((drawn >= 0) & (drawn < 1)).all()
    share = torch.histc(drawn, 10, 0, 1) / drawn.numel()
    assert (share - 0.1).abs().max() < 0.003
    assert torch.corrcoef(drawn.T)[0, 1].abs() < 0.02
    again = uniforms(torch.arange(100_000), 2, seed=derive(1, "a"))
    assert torch.corrcoef(torch.stack([drawn[:, 0], again[:, 0]]))[0, 1].abs() < 0.02


def test_streams_differ_by_any_name():
    seeds = {derive(0), derive(1), derive(0, "a"), derive(0, "a", 1), derive(0, 1, "a")}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
