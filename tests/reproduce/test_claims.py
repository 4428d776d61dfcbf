from __future__ import annotations

import pytest

from limbeck.errors import InputError
from limbeck.reproduce import Evidence, Scale, reproduce
from limbeck.reproduce.claims import at_least, at_most, figure, part
from limbeck.reproduce.parallel import side_by_side


def test_a_line_on_the_mean_and_on_every_seed() -> None:
    assert at_least("c", [1.0, 3.0], 1.5).passed
    assert not at_least("c", [1.0, 3.0], 2.5).passed
    assert not at_least("c", [-0.1, 4.0], 1.0, every=True).passed
    assert at_least("c", [-0.1, 4.0], 1.0).passed


def test_a_ceiling_is_for_the_worst_seed() -> None:
    assert at_most("c", [0.1, 0.2], 0.25).passed
    assert not at_most("c", [0.1, 0.3], 0.25).passed
    assert at_most("c", [0.1, 0.3], 0.25).ours == 0.3


def test_not_a_number_passes_no_line() -> None:
    assert at_least("c", [float("nan")], 0.0).passed is False
    assert at_most("c", [float("nan")], 1.0).passed is False


def test_evidence_as_plain_data() -> None:
    claims = [figure("accuracy", [80.0, 82.0], "81 %"), at_least("gain", [2.0], 1.0)]
    plain = Evidence("name", claims).as_json()
    assert plain["passed"] is True
    assert plain["claims"][0] == {
        "claim": "accuracy",
        "paper": "81 %",
        "ours": 81.0,
        "spread": pytest.approx(2**0.5),
        "line": "",
        "pass": None,
    }
    assert plain["claims"][1]["spread"] == 0
    assert Evidence("name", [*claims, at_least("other", [0.0], 1.0)]).passed is False


def test_part_is_at_least_one() -> None:
    assert part(100, 0.05) == 5
    assert part(8, 0.01) == 1


def test_unknown_names_are_refused(tmp_path: object) -> None:
    with pytest.raises(InputError, match="did you mean 'factor-transfer'"):
        reproduce("factor-transfr", Scale(out=tmp_path))


@pytest.mark.parametrize("workers", [1, 2])
def test_side_by_side_keeps_the_order(workers: int) -> None:
    told: list[tuple[int, int]] = []
    calls = [(3, 2), (2, 3), (1, 4)]
    found = side_by_side(pow, calls, workers=workers, report=lambda *seen: told.append(seen))
    assert found == [9, 8, 1]
    assert told == [(0, 9), (1, 8), (2, 1)]
