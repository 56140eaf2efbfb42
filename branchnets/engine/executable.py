"""The training step compiled ahead of time, so that what it needs is known before it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from branchnets import memory
from branchnets.engine import budget
from branchnets.engine import mesh as meshes
from branchnets.engine import step as steps
from branchnets.engine.hosts import distributed
from branchnets.engine.setup import Plan, Setup
from branchnets.engine.state import TrainState
from branchnets.families.base import Phase

PyTree = Any
#: (state, arrays, running tally) -> (state, running tally, step)
Step = Callable[[TrainState, PyTree, steps.Tally], tuple[TrainState, steps.Tally, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Executable:
    """A step that can run.

    Attributes:
      step: the compiled one.
      empty_tally: makes the tally of an interval.
      needs: what the run needs with it.
    """

    step: Step
    empty_tally: Callable[[], steps.Tally]
    needs: budget.Budget


def lower(plan: Plan, phase: Phase, arrays: PyTree) -> tuple[jax.stages.Lowered, PyTree]:
    """The step of a phase, ready to be compiled for the devices of the plan, and its tally.

    Args:
      plan: of the run; its data and devices need not be here.
      phase: its mode alone decides.
      arrays: the input of any step, or its shapes.
    """
    state, mesh = plan.abstract_state(), plan.mesh
    step_fn = steps.make_step(
        plan.family,
        plan.optimizers,
        plan.inputs.batch,
        phase,
        accumulate=plan.config.optimizer.accumulate_steps,
        mesh=mesh,
        ema_decay=plan.config.ema.decay,
    )
    tally = meshes.abstract(jax.eval_shape(step_fn, state, arrays)[1], mesh)
    jitted: Any = steps.compile_step(step_fn, mesh)
    return jitted.lower(state, arrays, tally), tally


class Executables:
    """The compiled steps of a run; phases of one mode have one.

    Args:
      setup: of the run.
      say: shows a message.

    Attributes:
      needs: what the run needs without its step.
    """

    def __init__(self, setup: Setup, say: Callable[[str], None]) -> None:
        self.say = say
        self.needs = setup.needs.add(
            *budget.of_state(setup.abstract_state(), setup.config, setup.inputs)
        )
        budget.check_shared(setup.inputs, setup.config, distributed.smallest(memory.shared_free()))
        self._setup = setup
        self._made: dict[str, Executable] = {}

    def get(self, phase: Phase, arrays: PyTree) -> Executable:
        """The step of a phase; its mode alone decides.

        Args:
          phase: what runs.
          arrays: the input of any step.

        Raises:
          ConfigError: there is too little memory for it.
        """
        if phase.mode not in self._made:
            mesh = self._setup.mesh
            kind = mesh.devices.flat[0].device_kind
            self.say(f"compiling the training step for {mesh.size} {kind} device(s) ...")
            made = self._make(phase, arrays)
            if not self._made:
                self.say(made.needs.table())
            made.needs.check()
            # Operations between processes wait less long for the slower one than it may compile.
            distributed.together()
            self._made[phase.mode] = made
        return self._made[phase.mode]

    def _make(self, phase: Phase, arrays: PyTree) -> Executable:
        setup = self._setup
        config, mesh = setup.config, setup.mesh
        with budget.explained(config, mesh.size):
            lowered, tally = lower(setup, phase, arrays)
            compiled = lowered.compile()
        own = budget.of_step(compiled.memory_analysis(), config, mesh, self.needs)
        if setup.dataset.streamed:
            own.append(budget.of_batches(arrays, config))
        empty = jax.jit(lambda: steps.empty_tally(tally), out_shardings=meshes.replicated(mesh))
        return Executable(compiled, empty, self.needs.add(own))
