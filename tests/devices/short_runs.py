"""Runs of four steps, and the device that they take."""

import importlib
import pkgutil
from typing import Any

import pytest
import torch
from regenerate import OBJECTIVES

import electrain
from electrain.foundation.configuration import merge_tables
from electrain.pretraining.configuration import PretrainConfig
from tiny_pretraining import tiny_configuration

NO_CUDA_HERE = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, NO_CUDA_HERE])
SHORT = {"steps": 4, "warmup_steps": 1, "log_every_steps": 1, "checkpoint_every_steps": 2}


def take_device(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Makes a device the default of training and of loaded models, whatever the machine has."""
    for found in pkgutil.walk_packages(electrain.__path__, "electrain."):
        try:
            module = importlib.import_module(found.name)  # all of them: one imported later would keep what stands here
        except ModuleNotFoundError as error:
            if str(error.name).startswith("electrain"):
                raise
            continue  # a borrowed machine may lack what the command line needs
        if hasattr(module, "device_of"):
            monkeypatch.setattr(module, "device_of", lambda local_rank=0: torch.device(device))


def short_configuration(name: str, **sections: Any) -> PretrainConfig:
    """Four steps of one of the objectives of the golden losses; two stages have two steps each."""
    tables = {section: dict(table) for section, table in OBJECTIVES[name].items()}
    if tables.get("generator", {}).get("own_stage_steps"):
        tables["generator"]["own_stage_steps"] = 2
    return tiny_configuration(**merge_tables(merge_tables(tables, {"training": SHORT}), sections))
