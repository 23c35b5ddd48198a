"""Order, schedule, draws, device and training state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pseudolabel import draws
from pseudolabel.errors import DataError, MachineError, NumericError, UsageError
from pseudolabel.records import LabelScores, LabelSpace, Scores, Targets
from pseudolabel.training import device, order, schedule, state
from pseudolabel.training.plan import Plan


def test_poly_by_hand() -> None:
    assert schedule.poly(0, 10) == 1
    assert schedule.poly(5, 10, 0.9) == pytest.approx(0.5**0.9)
    assert schedule.poly(10, 10) == 0
    with pytest.raises(ValueError, match="at least one step"):
        schedule.poly(0, 0)


def test_order_is_a_permutation_of_seed_and_epoch_alone() -> None:
    first = order.epoch_order(3, 1, 50)
    assert sorted(first) == list(range(50))
    assert first == order.epoch_order(3, 1, 50)
    assert first != order.epoch_order(3, 2, 50)
    assert first != order.epoch_order(4, 1, 50)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (2, [2]), (4, [4]), (5, [5]), (6, [4, 2]), (9, [4, 5]), (0, [])]
)
def test_no_batch_holds_a_single_item(count: int, sizes: list[int]) -> None:
    rows = order.batches(list(range(count)), 4)
    assert [len(row) for row in rows] == sizes
    assert [item for row in rows for item in row] == list(range(count))


def test_an_incomplete_last_batch_is_dropped_where_that_is_asked_for() -> None:
    assert [len(row) for row in order.batches(list(range(9)), 4, "drop")] == [4, 4]
    assert [len(row) for row in order.batches(list(range(8)), 4, "drop")] == [4, 4]
    assert [len(row) for row in order.batches(list(range(3)), 4, "drop")] == [3], "never an epoch of no step"


def test_steps_of_the_authors_schedule() -> None:
    # paper.md 5.1: floor(1464 / 16) * 5 = 455 steps
    authors = Plan(seed=0, epochs=5, batch=16, last_batch="drop")
    assert authors.epochs * authors.steps(1464) == 455
    assert len(authors.epoch_batches(0, 1464)) == 91
    kept = Plan(seed=0, epochs=5, batch=16)
    assert kept.epochs * kept.steps(1464) == 460


def test_draws_keep_the_parts_of_a_key_apart() -> None:
    assert draws.seed_of("a", "bc") != draws.seed_of("ab", "c")
    first = torch.rand(4, generator=draws.generator(0, "id", 3))
    assert torch.equal(first, torch.rand(4, generator=draws.generator(0, "id", 3)))
    assert not torch.equal(first, torch.rand(4, generator=draws.generator(0, "id", 4)))


def test_an_absent_device_is_refused_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MachineError, match="cuda:7: not on this machine; present are cpu, cuda:0"):
        device.pick("cuda:7")
    with pytest.raises(UsageError, match="choose auto"):
        device.pick("gpu")
    assert device.pick("cpu").type == "cpu"


def test_state_round_trip_with_optimizer(tmp_path: Path) -> None:
    def run(steps: int, resume: Path | None = None) -> list[torch.Tensor]:
        layer = torch.nn.Linear(3, 2)
        torch.manual_seed(0)
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        if resume:
            tensors, meta = state.load_state(resume)
            layer.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("m/")})
            own = {k[2:]: v for k, v in tensors.items() if k.startswith("o/")}
            state.unpack_optimizer(optimizer, own, meta)
        for _ in range(steps):
            optimizer.zero_grad()
            layer(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        if not resume:
            own, meta = state.pack_optimizer(optimizer)
            tensors = {f"m/{k}": v for k, v in layer.state_dict().items()}
            state.save_state(tmp_path / "s", {**tensors, **{f"o/{k}": v for k, v in own.items()}}, meta)
        return [p.detach().clone() for p in layer.parameters()]

    uninterrupted = run(4)
    run(2)
    for a, b in zip(run(2, tmp_path / "s"), uninterrupted, strict=True):
        assert torch.equal(a, b)


def test_a_non_finite_tensor_is_never_written(tmp_path: Path) -> None:
    state.save_state(tmp_path / "s", {"a": torch.ones(2)}, {"step": 1})
    with pytest.raises(NumericError, match="'a' is not finite"):
        state.save_state(tmp_path / "s", {"a": torch.tensor([1.0, float("nan")])}, {"step": 2})
    assert state.load_state(tmp_path / "s")[1] == {"step": 1}


@pytest.mark.parametrize("damage", [b"", b"abc", b"\xff" * 64])
def test_damaged_state_is_our_error(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "s").write_bytes(damage)
    with pytest.raises(DataError, match="not a readable checkpoint"):
        state.load_state(tmp_path / "s")
    with pytest.raises(DataError, match="no such file"):
        state.load_state(tmp_path / "absent")


def test_slots_hold_one_target_of_each_image() -> None:
    targets = Targets.of([[3], [], [1, 5, 9], [2, 4]])
    assert targets.images == (0, 2, 2, 2, 3, 3)
    assert targets.slots() == [[0, 1, 4], [2, 5], [3]]


def test_on_a_tie_background_wins_and_dropped_pixels_are_255() -> None:
    values = torch.tensor([[[0.5, 0.1, 0.5]], [[0.5, 0.2, 0.1]], [[0.5, 0.2, 0.9]]])
    keep = torch.tensor([[True, True, False]])
    assert LabelScores((0, 4, 7), values, keep).mask().tolist() == [[0, 4, 255]]
    joined = LabelScores.join(torch.zeros(1, 3), Scores((4,), torch.ones(1, 1, 3)))
    assert joined.ids == (0, 4)
    assert joined.mask().tolist() == [[4, 4, 4]]


def test_label_spaces_refuse_double_and_empty_names() -> None:
    with pytest.raises(DataError, match="'cat' twice"):
        LabelSpace(("background", "cat", "cat"))
    with pytest.raises(DataError, match="empty name"):
        LabelSpace(("background", " "))
    with pytest.raises(DataError, match="'dgo' is not a class; did you mean 'dog'"):
        LabelSpace(("background", "dog")).id_of("dgo")
