"""Lets a process that only asks a model start sooner.

transformers imports much that an answer never uses: the compiler, sharded tensors and formulas of PyTorch, optimizers
of SciPy, scores of scikit-learn, and a second scan of all its own models. That was half of the time that `electrain
predict` took for one sentence; see docs/experiments.md, "The first answer". Here those modules are entered without
running them. They run when something asks them for more than the few names that the libraries take on the way to an
answer. So a version of a library that needs more starts as slowly as before. Nothing can be compiled in such a process.
"""

import operator
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class Absent:
    """Stands for a class that is not loaded. transformers makes a few objects of such classes, but uses none here."""

    def __init__(self, *_: object, **__: object) -> None:
        """Takes whatever the real class takes."""


def _unchanged(function: Callable[..., object] | None = None, *_: object, **__: object) -> Callable[..., object]:
    """Stands for the decorators that tell the compiler how to treat a function; nothing is compiled here."""
    return _unchanged if function is None else function


def _is_no_formula(_: object) -> bool:
    return False


def _all(*conditions: object) -> bool:
    return all(conditions)


def _any(*conditions: object) -> bool:
    return any(conditions)


def _absent(*names: str) -> dict[str, object]:
    return dict.fromkeys(names, Absent)


_SHARDED = _absent("DTensor", "Partial", "Replicate", "Shard", "_StridedShard", "distribute_tensor")
_SHARDING = _absent("CPUOffloadPolicy", "FullyShardedDataParallel", "MixedPrecisionPolicy", "fully_shard")
# The modules that are entered without running them, and what stands for the names that transformers 5.23 and PyTorch
# 2.13 take from each; transformers 5.17 takes no others.
_NAMES: dict[str, dict[str, object]] = {
    "scipy.optimize": _absent("linear_sum_assignment"),
    "sklearn.metrics": _absent("roc_curve"),
    "sympy": _absent("Basic"),
    # For every network that is laid out without weights, PyTorch asks whether its sizes are formulas. Here they are
    # numbers, for which these functions do the same.
    "torch.fx.experimental.symbolic_shapes": {
        **dict.fromkeys(("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious"), bool),
        "is_nested_int": _is_no_formula,
        "statically_known_true": bool,
        "sym_and": _all,
        "sym_eq": operator.eq,
        "sym_or": _any,
        **_absent("guarding_hint_or_throw", "has_guarding_hint"),  # called for formulas only
    },
    "torch._dynamo": dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _unchanged),
    "torch.distributed._composable.fsdp": _SHARDING,
    "torch.distributed.checkpoint": {},
    "torch.distributed.checkpoint.hf_storage": _absent("HuggingFaceStorageReader", "HuggingFaceStorageWriter"),
    "torch.distributed.fsdp": _SHARDING,
    "torch.distributed.tensor": _SHARDED,
    "torch.distributed.tensor._utils": _absent("compute_local_shape_and_global_offset"),
    "torch.distributed.tensor.placement_types": _SHARDED,
    "torch.export": {},
    "transformers.models": {},
}


class LateModule(ModuleType):
    """A module that runs when it is asked for a name that no placeholder stands for."""

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        # The import system asks for names like __file__, which must not run the module.
        if spec is None or not isinstance(spec.loader, _LateLoader) or name.startswith("__"):
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        if name in _NAMES[spec.name]:
            return _NAMES[spec.name][name]
        spec.loader, self.__class__ = spec.loader.real, ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        # transformers puts another object in the place of its own modules.
        return getattr(sys.modules[spec.name], name)


class _LateLoader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return LateModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Runs nothing yet."""


class _LateFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _NAMES else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LateLoader(spec.loader)
        return spec


def start_sooner() -> None:
    """For the rest of this process. Call it before torch is imported, where nothing is trained or compiled."""
    sys.meta_path.insert(0, _LateFinder())
