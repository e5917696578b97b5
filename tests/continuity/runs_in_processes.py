"""Pretraining runs, one after another in the processes of one `torchrun`, which start up once for all of them.

Args: a file of JSON, a list with the `shards`, `output`, `tables` of the configuration, and `resume` of each run.
With `saves_again`, a run that goes on takes no step: it writes its checkpoint once more, and counts what it holds.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from torch import Tensor, distributed

from electrain.pretraining import report, run
from electrain.training import arithmetic
from electrain.training.sharding import local
from electrain.training.sitting import Sitting
from tiny_pretraining import tiny_configuration


def save_again(sitting: Sitting[Any], _: object) -> bool:
    """Takes the place of training."""
    state = json.loads(next(sitting.directory.glob("checkpoints/step-*/state.json")).read_text())["state"]
    sitting.save(health=state["health"])
    objective, optimizers = sitting.run.objective, sitting.run.optimizers
    states = [value for one in optimizers for state in one.state.values() for value in state.values()]
    held = {"weights": numbers_in(objective.parameters()), "states": numbers_in(states)}
    (sitting.directory / f"held-{os.environ['RANK']}.json").write_text(json.dumps(held))
    return False


def numbers_in(tensors: Any) -> int:
    """Numbers that this process holds of the tensors."""
    return sum(local(tensor).numel() for tensor in tensors if isinstance(tensor, Tensor))


def main() -> None:
    """Takes the runs."""
    run.measure_matrix_rate = lambda *_: 1e9  # type: ignore[assignment]
    report.write_report = lambda folder: folder / "report.html"  # type: ignore[assignment]
    arithmetic.measure_speedup = lambda *_: 0.0
    start, end, train = distributed.init_process_group, distributed.destroy_process_group, Sitting.train
    # One group of processes serves all runs, since another cannot meet at the same port.
    distributed.init_process_group = lambda *given: None if distributed.is_initialized() else start(*given)  # type: ignore[assignment]
    distributed.destroy_process_group = lambda *_: None  # type: ignore[assignment]
    for one in json.loads(Path(sys.argv[1]).read_text()):
        Sitting.train = save_again if one.get("saves_again") else train  # type: ignore[assignment]
        config = tiny_configuration(**one["tables"])
        run.pretrain(config, Path(one["shards"]), Path(one["output"]), resume=one.get("resume", False))
    # A process that leaves while the group lives is aborted in two runs of three, and takes the other one with it.
    end()


if __name__ == "__main__":
    main()
