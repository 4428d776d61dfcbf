from __future__ import annotations

import torch
from feature_networks import Pair, make_engine, run

from limbeck.functional import dml_loss
from limbeck.methods.dml import Dml, DmlSpec


def build(pair: Pair, **options: object) -> Dml:
    torch.manual_seed(0)
    return Dml(pair.student, pair.setting(), DmlSpec(**options))


def test_the_cohort_trains(pair: Pair) -> None:
    method = build(pair, peers=2)
    lines = run(make_engine(pair, method))
    assert lines[-1]["labels"] < 0.9 * lines[0]["labels"]
    assert all(torch.isfinite(p).all() for p in method.parameters())


def test_peers_start_elsewhere(pair: Pair) -> None:
    method = build(pair, peers=2)
    weights = [net.layer1[0].weight for net in (pair.student, *method.peers)]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_one_update_of_the_sum_is_an_update_of_each(pair: Pair) -> None:
    method = build(pair)
    x, y = pair.split.x[:32], pair.split.y[:32]
    mine, peer = pair.student(x), method.peers[0](x)
    terms = method.cohort_losses([mine, peer], {"x": x, "y": y})
    together = torch.autograd.grad(sum(terms.values()), mine, retain_graph=True)[0]
    alone = torch.nn.functional.cross_entropy(mine, y) + dml_loss(mine, peer)
    assert torch.allclose(together, torch.autograd.grad(alone, mine)[0], atol=1e-7)


def test_state_round_trip(pair: Pair) -> None:
    method = build(pair)
    run(make_engine(pair, method, epochs=1))
    state = {key: value.clone() for key, value in method.state_dict().items()}
    torch.manual_seed(1)
    again = Dml(pair.student, pair.setting(), DmlSpec())
    again.load_state_dict(state)
    x = pair.split.x[:8]
    method.eval(), again.eval()
    assert torch.equal(method.peers[0](x), again.peers[0](x))
