"""The engine's state: every tensor that a training depends on, whole also where it is sharded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from limbeck.engine.checkpoint import nest, unnest

if TYPE_CHECKING:
    from limbeck.engine.engine import Engine


def engine_state(engine: Engine) -> dict[str, Tensor]:
    """Modules and optimisers; with the number of steps done, all that a resume needs."""
    tensors = model_state(engine)
    for name, role in engine.roles.items():
        tensors |= nest(f"optimizer.{name}", role.state())
    return tensors


def load_engine_state(engine: Engine, tensors: dict[str, Tensor], step: int) -> None:
    """Go on from `engine_state` after `step` steps."""
    load_model_state(engine, tensors)
    for name, role in engine.roles.items():
        role.load(unnest(f"optimizer.{name}", tensors))
    engine.done = step


def model_state(engine: Engine) -> dict[str, Tensor]:
    """The tensors of all modules, without the optimisers'; they are the live ones, not copies."""
    tensors = nest("method", whole(engine, engine.method))
    if engine.ema is not None:
        tensors |= nest("ema", whole(engine, engine.ema))
    return tensors


def load_model_state(engine: Engine, tensors: dict[str, Tensor]) -> None:
    """Restore what `model_state` returned."""
    _load(engine, engine.method, unnest("method", tensors))
    if engine.ema is not None:
        _load(engine, engine.ema, unnest("ema", tensors))


def whole(engine: Engine, module: nn.Module) -> dict[str, Tensor]:
    """The state of one module, its shards put together; then a collective call."""
    state: dict[str, Tensor] = module.state_dict()
    if not engine.sharded:
        return state
    from limbeck.engine.shard import whole as put_together

    return put_together(state)


def _load(engine: Engine, module: nn.Module, state: dict[str, Tensor]) -> None:
    if engine.sharded:
        from limbeck.engine.shard import place

        own = module.state_dict()
        state = {key: place(value, own[key]) for key, value in state.items()}
    module.load_state_dict(state)
