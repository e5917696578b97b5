"""Runs that start from given weights: what is taken over exactly, what stays fresh, and what is refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    RobertaConfig,
    RobertaModel,
)

from command_line import command
from electrain.data.shards.shards import open_shards
from electrain.data.shards.word_vectors import neighbour_information, word_vectors
from electrain.foundation.errors import CheckpointError, ElectrainError, TokenizerError
from electrain.foundation.sums import SUMS_NAME
from electrain.models.backbones import encode
from electrain.models.starting_weights import WORD_DEVIATION
from electrain.pretraining.build import build_objective, load_starting_weights
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.run import pretrain
from tiny_pretraining import SPECIAL_IDS, tiny_configuration

IDS = torch.randint(5, 106, (3, 20), generator=torch.Generator().manual_seed(1))
TYPES = (torch.arange(20) > 9).long().expand(3, -1)
SIZES = {
    "vocab_size": 106,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


@pytest.fixture
def run(tiny_shards: Path, tmp_path: Path, quick_pretraining: None) -> Callable[..., Path]:
    """`run(sections)`: the folder of a short run with these settings."""

    def make(**sections: Any) -> Path:
        pretrain(tiny_configuration(**sections), tiny_shards, tmp_path / "source")
        return tmp_path / "source"

    return make


def started(config: PretrainConfig, seed: int = 9) -> Any:
    """The objective of a configuration with its starting weights, from other fresh ones than the source's."""
    torch.manual_seed(seed)
    objective = build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS)
    load_starting_weights(objective, config)
    return objective.eval()


def starting(start: dict[str, str], **sections: Any) -> PretrainConfig:
    sections.setdefault("training", {"seed": 9})
    return tiny_configuration(start=start, **sections)


def hidden(body: Any, *, types: bool = True) -> torch.Tensor:
    with torch.no_grad():
        return encode(body.eval(), IDS, TYPES if types else torch.zeros_like(TYPES), None)[0]


def logits(network: Any) -> torch.Tensor:
    extra = {"token_type_ids": TYPES} if network.config.model_type == "electra" else {}
    with torch.no_grad():
        result: torch.Tensor = network.eval()(IDS, **extra).logits
    return result


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
@pytest.mark.parametrize("sharing", ["shared", "separate"])
def test_both_networks(run: Callable[..., Path], backbone: str, sharing: str) -> None:
    """The outputs of both, heads included, are exactly those of the run they come from."""
    same = {"encoder": {"backbone": backbone}, "generator": {"embedding_sharing": sharing}}
    source = run(**same)
    start = {"discriminator": str(source / "model"), "generator": str(source / "generator")}
    objective = started(starting(start, **same))
    trained = source / ("model" if backbone == "electra" else "detector")
    saved = type(objective.discriminator.network).from_pretrained(trained)
    assert torch.equal(logits(objective.discriminator.network), logits(saved))
    generator = AutoModelForMaskedLM.from_pretrained(source / "generator")
    ours = logits(objective.generator.export())
    if (backbone, sharing) == ("modernbert", "shared"):  # the projection is found again by least squares
        torch.testing.assert_close(ours, logits(generator), rtol=1e-3, atol=1e-4)
    else:
        assert torch.equal(ours, logits(generator))


@pytest.mark.parametrize("backbone", ["electra", "modernbert", "bert"])
@pytest.mark.parametrize("sharing", ["shared", "gradient-disentangled"])
def test_further_heads_go_on(run: Callable[..., Path], backbone: str, sharing: str) -> None:
    """A head that began anew would at first spoil the encoder that it reads."""
    same: dict[str, Any] = {
        "encoder": {"backbone": backbone},
        "discriminator": {"heads": ["detection", "correction", "electric"]},
        "generator": {"embedding_sharing": sharing},
    }
    source = run(**same)
    discriminator = started(starting({"discriminator": str(source / "model")}, **same)).discriminator
    exports = discriminator.exports()
    for head in ("correction", "electric"):
        network = exports[head]().eval()
        saved = type(network).from_pretrained(source / head)
        torch.testing.assert_close(logits(network), logits(saved), rtol=1e-4, atol=1e-5)


def test_heads_of_another_run_are_refused(run: Callable[..., Path]) -> None:
    """In one line, where somebody copied their folder to the model of a run."""
    heads = {"discriminator": {"heads": ["detection", "correction", "electric"]}}
    source = run(**heads)
    for head, kind in (("electric", ElectraForPreTraining), ("correction", ElectraForMaskedLM)):
        shutil.rmtree(source / head)
        kind(ElectraConfig(**SIZES | {"hidden_size": 16}, embedding_size=16)).save_pretrained(source / head)
        config = starting({"discriminator": str(source / "model")}, **heads)
        refused(config, f"{head}: its {head} head does not fit the model beside it")
        shutil.rmtree(source / head)


def test_a_network_without_its_head_is_refused_by_its_class(run: Callable[..., Path]) -> None:
    baseline: dict[str, Any] = {"training": {"objective": "masked-language-modelling"}}
    source = run(**baseline)
    weights = source / "model/model.safetensors"
    state = {name: value for name, value in load_file(weights).items() if "generator_predictions" not in name}
    save_file(state, weights, {"format": "pt"})
    (source / "model" / SUMS_NAME).unlink()
    refused(
        starting({"discriminator": str(source / "model")}, **baseline), "is no ElectraForMaskedLM: its weights lack"
    )


def test_heads_that_a_run_did_not_have_stay_random(run: Callable[..., Path]) -> None:
    source = run()
    both = {"discriminator": {"heads": ["detection", "correction"]}}
    config = starting({"discriminator": str(source / "model")}, **both)
    torch.manual_seed(9)
    fresh = build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS).discriminator.correction.state_dict()
    ours = started(config).discriminator.correction.state_dict()
    assert all(torch.equal(ours[name], fresh[name]) for name in fresh)


def test_discriminator_only(run: Callable[..., Path]) -> None:
    source = run()
    config = starting({"discriminator": str(source / "model")})
    objective = started(config)
    saved = ElectraForPreTraining.from_pretrained(source / "model")
    assert torch.equal(logits(objective.discriminator.network), logits(saved))
    fresh = build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS)
    ours, theirs = objective.generator.body.encoder.state_dict(), fresh.generator.body.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert objective.generator.body.embeddings is objective.discriminator.body.embeddings


def test_generator_only(run: Callable[..., Path]) -> None:
    source = run()
    config = starting({"generator": str(source / "generator")})
    objective = started(config)
    saved = ElectraForMaskedLM.from_pretrained(source / "generator")
    assert torch.equal(logits(objective.generator.network), logits(saved))
    fresh = build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS)
    ours, theirs = objective.discriminator.body.encoder.state_dict(), fresh.discriminator.body.encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_where_shared_the_discriminators_embeddings_stay(run: Callable[..., Path]) -> None:
    source = run(generator={"embedding_sharing": "separate"})
    start = {"discriminator": str(source / "model"), "generator": str(source / "generator")}
    objective = started(starting(start))
    saved = ElectraForPreTraining.from_pretrained(source / "model")
    assert torch.equal(logits(objective.discriminator.network), logits(saved))
    assert objective.generator.body.embeddings is objective.discriminator.body.embeddings


def test_a_new_run_begins_at_step_0(run: Callable[..., Path], tiny_shards: Path, tmp_path: Path) -> None:
    """Through the whole of pretraining: step and schedule anew, the weights not."""
    source = run()
    start = {"discriminator": str(source / "model"), "generator": str(source / "generator")}
    config = starting(start, training={"steps": 3, "peak_learning_rate": 1e-9, "warmup_steps": 0})
    assert pretrain(config, tiny_shards, tmp_path / "on").step == 3
    before, after = (ElectraForPreTraining.from_pretrained(path / "model") for path in (source, tmp_path / "on"))
    torch.testing.assert_close(logits(after), logits(before), rtol=1e-4, atol=1e-5)


def write_network(network: Any, folder: Path) -> str:
    network.save_pretrained(folder)
    return str(folder)


def test_bert(tmp_path: Path) -> None:
    """Its hidden states exactly; the head is fresh."""
    torch.manual_seed(2)
    bert = BertModel(BertConfig(**SIZES), add_pooling_layer=False)
    source = write_network(bert, tmp_path / "bert")
    objective = started(starting({"discriminator": source}, encoder={"embedding_size": 0}))
    with torch.no_grad():
        expected = bert.eval()(IDS, token_type_ids=TYPES)[0]
    torch.testing.assert_close(hidden(objective.discriminator.body), expected, rtol=0, atol=0)


def test_roberta(tmp_path: Path) -> None:
    """Its hidden states exactly, although its positions begin after those kept for padding; both types are its one."""
    torch.manual_seed(2)
    settings = SIZES | {"pad_token_id": 1, "max_position_embeddings": 514, "type_vocab_size": 1}
    roberta = RobertaModel(RobertaConfig(**settings), add_pooling_layer=False)
    source = write_network(roberta, tmp_path / "roberta")
    objective = started(starting({"discriminator": source}, encoder={"embedding_size": 0}))
    with torch.no_grad():
        expected = roberta.eval()(IDS)[0]
    torch.testing.assert_close(hidden(objective.discriminator.body, types=False), expected, rtol=0, atol=0)
    torch.testing.assert_close(hidden(objective.discriminator.body), expected, rtol=0, atol=0)


def test_the_baseline_starts_from_an_encoder_or_a_whole_model(run: Callable[..., Path]) -> None:
    baseline: dict[str, Any] = {"training": {"objective": "masked-language-modelling"}}
    source = run(**baseline)
    objective = started(starting({"generator": str(source / "model")}, **baseline))
    assert torch.equal(logits(objective.model.network), logits(ElectraForMaskedLM.from_pretrained(source / "model")))
    objective = started(starting({"discriminator": str(source / "model")}, **baseline))
    assert torch.equal(hidden(objective.model.body), hidden(AutoModel.from_pretrained(source / "model")))
    assert torch.equal(logits(objective.model.network), logits(ElectraForMaskedLM.from_pretrained(source / "model")))


COUNTED = {"word_embeddings": "co-occurrence"}


def word_table(network: Any) -> torch.Tensor:
    table: torch.Tensor = network.get_input_embeddings().weight.detach()
    return table


@pytest.mark.parametrize("backbone", ["electra", "modernbert", "lstm"])
@pytest.mark.parametrize("objective", ["replaced-token-detection", "masked-language-modelling"])
def test_counted_word_embeddings(tiny_shards: Path, backbone: str, objective: str) -> None:
    """They are the vectors of the shards; special tokens, and all other weights, begin at random."""
    config = tiny_configuration(start=COUNTED, encoder={"backbone": backbone}, training={"objective": objective})
    shards = open_shards(tiny_shards)
    built = [build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS) for _ in range(2)]
    load_starting_weights(built[0], config, shards)
    ours, fresh = (part.model.network if hasattr(part, "model") else part.discriminator.network for part in built)
    table, random = word_table(ours), word_table(fresh)
    vectors = torch.from_numpy(word_vectors(neighbour_information(shards), table.shape[1], config.training.seed))
    known = vectors.any(1)
    assert known.sum() > 95
    assert not known[list(SPECIAL_IDS.all)].any()
    torch.testing.assert_close(table[known], WORD_DEVIATION * vectors[known])
    assert torch.equal(table[~known], random[~known])
    others = [name for name, value in fresh.state_dict().items() if value.shape != table.shape]
    assert all(torch.equal(ours.state_dict()[name], fresh.state_dict()[name]) for name in others)


@pytest.mark.parametrize("sharing", ["shared", "gradient-disentangled", "separate"])
def test_the_generator_begins_with_counted_words_too(tiny_shards: Path, sharing: str) -> None:
    config = tiny_configuration(start=COUNTED, generator={"embedding_sharing": sharing})
    objective = build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS)
    load_starting_weights(objective, config, open_shards(tiny_shards))
    generator, discriminator = word_table(objective.generator.network), word_table(objective.discriminator.network)
    assert torch.equal(generator[10:], discriminator[10:])
    assert (generator.data_ptr() == discriminator.data_ptr()) == (sharing == "shared")
    assert discriminator[10:].square().mean().sqrt() == pytest.approx(WORD_DEVIATION, rel=0.1)


def test_given_weights_come_before_counted_ones(run: Callable[..., Path], tiny_shards: Path) -> None:
    source = run()
    for start in ({"discriminator": str(source / "model")}, {"generator": str(source / "generator")}):
        config = starting(COUNTED | start)
        objective = build_objective(config, vocabulary_size=106, special_ids=SPECIAL_IDS)
        load_starting_weights(objective, config, open_shards(tiny_shards))
        saved = AutoModel.from_pretrained(source / "model")
        assert torch.equal(word_table(objective.discriminator.network), word_table(saved))


def test_a_run_begins_with_counted_words(run: Callable[..., Path], tiny_shards: Path) -> None:
    """Through the whole of pretraining, at a rate that leaves them as they were."""
    source = run(start=COUNTED, training={"steps": 2, "peak_learning_rate": 1e-9, "warmup_steps": 0})
    table = word_table(AutoModel.from_pretrained(source / "model"))
    vectors = torch.from_numpy(word_vectors(neighbour_information(open_shards(tiny_shards)), table.shape[1], 0))
    torch.testing.assert_close(table[10:], WORD_DEVIATION * vectors[10:], rtol=0, atol=1e-6)


def refused(config: PretrainConfig, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        started(config)
    assert "\n" not in str(raised.value)


def test_refused_kinds(run: Callable[..., Path], tmp_path: Path) -> None:
    source = run()
    sizes = {"vocab_size": 106, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    other = write_network(DistilBertModel(DistilBertConfig(**sizes)), tmp_path / "distilbert")
    refused(starting({"discriminator": other}), "is of the kind distilbert; an encoder of the kind electra")
    refused(starting({"generator": other}), "is of the kind distilbert; this generator starts from electra")
    modern = {"backbone": "modernbert", "embedding_size": 0}
    model = str(source / "model")
    refused(starting({"discriminator": model}, encoder=modern), "an encoder of the kind modernbert starts from one of")
    refused(
        starting({"generator": model}, encoder=modern), "is of the kind electra; this generator starts from modernbert"
    )


def test_refused_shapes(run: Callable[..., Path]) -> None:
    source = run()
    model, generator = str(source / "model"), str(source / "generator")
    refused(starting({"discriminator": model}, encoder={"hidden_size": 48}), "the configuration says .*; change")
    refused(starting({"discriminator": model}, encoder={"layers": 3}), "num_hidden_layers is 2.*says 3; change")
    refused(
        starting({"generator": generator}, generator={"size_fraction": 1.0}), "num_attention_heads is 1.*says 2; change"
    )
    refused(starting({"generator": generator}, encoder={"heads": 4}), "num_attention_heads is 1.*says 2; change")
    refused(starting({"discriminator": model}, encoder={"heads": 4}), "num_attention_heads is 2.*says 4; change")
    refused(starting({"discriminator": generator}), "the configuration says")


def test_a_deeper_source_is_refused(run: Callable[..., Path]) -> None:
    """Its lower layers alone are not what was trained."""
    source = run()
    refused(starting({"discriminator": str(source / "model")}, encoder={"layers": 1}), "num_hidden_layers is 2.*says 1")


def test_other_rotary_positions_are_refused(run: Callable[..., Path]) -> None:
    """The hub's ModernBERT rotates otherwise and looks at a window only: the same weights would mean something else."""
    modern = {"backbone": "modernbert"}
    source = run(encoder=modern)
    for name, value in {"rope_parameters": 160_000.0, "layer_types": "sliding_attention"}.items():
        content = json.loads((source / "model/config.json").read_text())
        if name == "layer_types":
            content[name][0] = value
        else:
            content[name]["full_attention"]["rope_theta"] = value
        folder = source / name
        shutil.copytree(source / "model", folder)
        (folder / SUMS_NAME).unlink()
        (folder / "config.json").write_text(json.dumps(content))
        refused(starting({"discriminator": str(folder)}, encoder=modern), f"its {name} is")


def test_too_few_positions_are_refused(tmp_path: Path) -> None:
    bert = BertModel(BertConfig(**SIZES, max_position_embeddings=16), add_pooling_layer=False)
    config = starting({"discriminator": write_network(bert, tmp_path / "short")}, encoder={"embedding_size": 0})
    refused(config, "rows of at most 16 tokens; lower data.sequence_length")


def _drop_a_layers_weight(path: Path) -> None:
    """What a network would otherwise begin with at random, without a word."""
    weights = load_file(path)
    del weights[next(name for name in weights if name.endswith("layer.1.output.dense.weight"))]
    save_file(weights, path, metadata={"format": "pt"})


def test_refused_folders(run: Callable[..., Path], tmp_path: Path) -> None:
    source = run() / "model"
    refused(starting({"discriminator": str(tmp_path / "absent")}), "absent: no such folder; give the folder")
    refused(starting({"generator": str(tmp_path / "absent")}), "absent: no such folder; give the folder")
    (tmp_path / "empty").mkdir()
    refused(starting({"discriminator": str(tmp_path / "empty")}), "empty: its config.json cannot be used")
    for name, damage, message in (
        ("cut", lambda path: path.write_bytes(path.read_bytes()[:1000]), "its weights cannot be used"),
        ("junk", lambda path: path.write_bytes(b"junk" * 100), "its weights cannot be used"),
        ("incomplete", _drop_a_layers_weight, "is no encoder: its weights lack encoder.layer.1.output.dense"),
        ("gone", lambda path: path.unlink(), "holds no weights"),
    ):
        shutil.copytree(source, tmp_path / name)
        (tmp_path / name / SUMS_NAME).unlink()
        damage(tmp_path / name / "model.safetensors")
        refused(starting({"discriminator": str(tmp_path / name)}), f"{name}: {message}")
    shutil.copytree(source, tmp_path / "config")
    (tmp_path / "config/config.json").write_text("{")
    refused(starting({"discriminator": str(tmp_path / "config")}), "config.json: damaged")


def test_pickled_weights_are_not_opened(run: Callable[..., Path], tmp_path: Path) -> None:
    source = run() / "model"
    shutil.copytree(source, tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").unlink()
    torch.save(ElectraForPreTraining.from_pretrained(source).state_dict(), tmp_path / "pickled/pytorch_model.bin")
    refused(starting({"discriminator": str(tmp_path / "pickled")}), "run `electrain convert .*pickled --output")


def test_another_tokenizer_is_refused(
    tiny_run: Callable[..., Path], tiny_shards: Path, tmp_path: Path, quick_pretraining: None
) -> None:
    """The ids would mean other words."""
    config = starting({"discriminator": str(tiny_run() / "model")})
    with pytest.raises(TokenizerError, match=r"another tokenizer than .*model; prepare") as raised:
        pretrain(config, tiny_shards, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()
    assert pretrain(tiny_configuration(), tiny_shards, tmp_path / "run").is_finished


def test_a_failed_start_can_be_mended(run: Callable[..., Path], tiny_shards: Path, tmp_path: Path) -> None:
    """A wrong name leaves no folder that is in the way of the right one; nor does a frozen generator that is none."""
    no_generator = tiny_configuration(generator={"kind": "frozen", "source": str(run() / "model")})
    for config in (starting({"discriminator": str(tmp_path / "absent")}), no_generator):
        with pytest.raises(ElectrainError):
            pretrain(config, tiny_shards, tmp_path / "mended")
    assert pretrain(tiny_configuration(), tiny_shards, tmp_path / "mended").is_finished


def test_released_class_reads_what_was_started(run: Callable[..., Path]) -> None:
    assert isinstance(AutoModelForPreTraining.from_pretrained(run() / "model"), ElectraForPreTraining)


# The released files: google/electra-small-* and hfl/chinese-electra-small-*, of a vocabulary that a test can afford.
RELEASED = {
    "google": {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4},
    "chinese": {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 1},
}


def write_released(network: Any, folder: Path, tokenizer: Path) -> str:
    """A folder as it was released: with the positions of 2020's library, and tied weights written twice."""
    network.save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["electra.embeddings.position_ids"] = torch.arange(512)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.fixture
def released(tiny_shards: Path, tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """`released(name)`: folders of a discriminator and a generator, with random weights."""

    def make(name: str) -> tuple[str, str]:
        shape = {"vocab_size": 106, "embedding_size": 128, "num_hidden_layers": 12, "pad_token_id": 0}
        generator = ElectraForMaskedLM(ElectraConfig(**shape, **RELEASED[name]))
        discriminator = ElectraForPreTraining(ElectraConfig(**shape, **RELEASED["google"]))
        tokenizer = open_shards(tiny_shards).tokenizer_directory
        assert {"generator_lm_head.weight", "electra.embeddings_project.weight"} <= set(generator.state_dict())
        folders = (tmp_path / "electra-small-discriminator", tmp_path / "electra-small-generator")
        networks = (discriminator, generator)
        first, second = (write_released(one, to, tokenizer) for one, to in zip(networks, folders, strict=True))
        return first, second

    return make


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize(("name", "is_told"), [("google", True), ("chinese", False)])
def test_the_guides_command_starts_from_a_released_pair(
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    released: Callable[[str], tuple[str, str]],
    name: str,
    is_told: bool,
) -> None:
    """Whichever width the generator was released with; and the run is resumed with the same command."""
    discriminator, generator = released(name)
    steps = ["--training.steps", 2, "--training.warmup-steps", 0, "--training.batch-rows", 2]
    start = ["--start.discriminator", discriminator, "--start.generator", generator, "--training.compile", "false"]
    whole = ["pretrain", "--config", "small", "--shards", tiny_shards, "--output", tmp_path / "run", *steps, *start]
    code, _, stderr = command(capsys, *whole)
    assert code == 0, stderr
    assert ("takes its sizes from" in stderr) == is_told
    written = json.loads((tmp_path / "run/generator/config.json").read_text())
    assert {key: written[key] for key in RELEASED[name]} == RELEASED[name]
    assert command(capsys, *whole, "--resume")[0] == 0


@pytest.mark.usefixtures("quick_pretraining")
def test_given_sizes_that_contradict_are_refused_with_the_flags(
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    released: Callable[[str], tuple[str, str]],
) -> None:
    _, generator = released("google")
    given = ["--generator.hidden-size", 128, "--generator.feed-forward-size", 512, "--generator.heads", 2]
    whole = ["pretrain", "--config", "small", "--shards", tiny_shards, "--output", tmp_path / "run"]
    code, _, stderr = command(capsys, *whole, *given, "--start.generator", generator)
    assert code == 2
    flags = "--generator.layers 12 --generator.hidden-size 256 --generator.feed-forward-size 1024 --generator.heads 4"
    assert stderr.strip().endswith(f"give {flags}")
    assert not (tmp_path / "run").exists()
    assert command(capsys, "plan", "--config", "small", "--start.generator", generator)[0] == 0
