"""Every choice of generator, noise, heads and training runs in the one loop, comes out as Hugging Face folders, and is
refused in one line where choices contradict each other."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertLMHeadModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

import electrain
from asking import asked
from electrain.cli.app import main
from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.configuration import merge_tables
from electrain.foundation.errors import ConfigurationError, ElectrainError
from electrain.inference.evaluate.blimp import evaluate_blimp
from electrain.inference.evaluate.detection import evaluate_detection
from electrain.inference.predict.corrupt import predict_corrupt
from electrain.pretraining.objectives import masked_language_modelling, replaced_token_detection
from electrain.pretraining.observations import metrics_of
from electrain.pretraining.run import pretrain
from electrain.training.loop import StepResult
from tiny_pretraining import INVENTED_WORDS, batches_of, objective_of, tiny_configuration

BOTH = ["detection", "correction"]
ARTICLE: dict[str, dict[str, Any]] = {
    "generator": {"kind": "causal"},
    "corruption": {"source": "generated", "missing_fraction": 1.0},
    "discriminator": {"heads": BOTH, "correction_at": "missing"},
}
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "causal": {"generator": {"kind": "causal"}},
    "unigram": {"generator": {"kind": "unigram"}},
    "clustered": {"generator": {"kind": "unigram", "clusters": 4}},
    "two-stage": {"generator": {"kind": "frozen", "own_stage_steps": 4, "size_fraction": 1.0}},
    "article": ARTICLE,
    "article modernbert": {**ARTICLE, "encoder": {"backbone": "modernbert"}},
    "whole-word": {"corruption": {"noise": "whole-word"}},
    "span": {"corruption": {"noise": "span"}},
    "deletion": {"corruption": {"noise": "deletion", "masked_fraction": 0.3}},
    "shuffle": {"corruption": {"noise": "shuffle", "masked_fraction": 0.3}},
    "correction of replaced": {"discriminator": {"heads": BOTH}},
    "correction of all": {"discriminator": {"heads": BOTH, "correction_at": "all"}},
    "correction alone": {"discriminator": {"heads": ["correction"]}},
    "electric": {"discriminator": {"heads": ["electric"]}},
    "electric unigram": {"discriminator": {"heads": ["electric"]}, "generator": {"kind": "unigram"}},
    "detection at selected": {"discriminator": {"detection_at": "selected"}},
    "policy gradient": {"generator": {"training": "policy-gradient"}},
    "policy gradient beside written passages": {
        **ARTICLE,
        "generator": {"kind": "causal", "training": "policy-gradient"},
        "corruption": {"source": "generated", "missing_fraction": 0.5},
    },
    "gumbel beside written passages": {
        "generator": {"kind": "causal", "training": "gumbel"},
        "corruption": {"source": "generated", "missing_fraction": 0.5},
    },
    "gumbel": {"generator": {"training": "gumbel"}},
    "gumbel causal": {"generator": {"training": "gumbel", "kind": "causal"}},
    "mixture": {"generator": {"training": "mixture"}, "encoder": {"backbone": "modernbert"}},
    "disentangled": {"generator": {"embedding_sharing": "gradient-disentangled"}},
    "bert": {
        "encoder": {"backbone": "bert", "embedding_size": 0},
        "discriminator": {"heads": ["detection", "correction", "electric"]},
    },
    "padding": {**ARTICLE, "parity": {"reference_packing": True}},
    "sampled softmax beside written passages": {**ARTICLE, "training": {"softmax_words": 36}},
    "sampled softmax, two stages": {
        "generator": {"kind": "frozen", "own_stage_steps": 4, "embedding_sharing": "separate"},
        "discriminator": {"heads": BOTH},
        "training": {"softmax_words": 36},
    },
}


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_trains_and_comes_out(tiny_shards: Path, tmp_path: Path, name: str) -> None:
    result = pretrain(tiny_configuration(**CHOICES[name]), tiny_shards, tmp_path / "run")
    assert result.is_finished
    assert all(abs(value) < 1e4 for key, value in result.metrics.items() if key.endswith("loss"))
    warnings = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert not [line for line in warnings if "not finite" in line.get("message", "")]
    for folder in ("model", "generator", "correction", "electric"):
        path = tmp_path / "run" / folder
        if path.is_dir():
            AutoTokenizer.from_pretrained(path)
            _, report = AutoModel.from_pretrained(path, output_loading_info=True)
            # BERT's pooler, which nothing but its own sentence task trains, is not saved
            assert not [key for key in report["missing_keys"] if not key.startswith("pooler.")], folder
    assert (tmp_path / "run/generator").is_dir() == ("unigram" not in name and name != "clustered")


def test_figures_of_detection_leave_out_what_it_is_not_asked(tiny_shards: Path) -> None:
    """Perfect wherever it is asked, and wrong at every [MASK]: that is perfect."""
    sections = {**ARTICLE, "corruption": {"source": "generated", "missing_fraction": 0.5}}
    config = tiny_configuration(**sections)
    objective = objective_of(config, tiny_shards)
    batch = batches_of(config, tiny_shards)(0)[0]
    seen = objective(objective.prepare(batch.rows, torch.device("cpu"))).observations
    is_masked = ~seen["is_scored"]
    assert is_masked.any()
    assert (seen["corrupted_ids"][is_masked] == objective.proposals.special_ids.mask).all()
    is_right = torch.where(seen["is_replaced"], 9.0, -9.0)
    seen["replaced_logits"] = torch.where(is_masked, -9.0, is_right)
    result = StepResult(torch.zeros(()), {}, torch.zeros(()), 0.0, batch, seen, False, False)
    numbers = metrics_of(result, open_shards(tiny_shards).unigram_counts)
    assert numbers["discriminator_recall"] == numbers["discriminator_auc"] == 1.0
    assert numbers["game_value"] > -0.01


def test_no_reward_is_reported_where_no_word_was_written(tiny_shards: Path) -> None:
    """One of several processes may hold rows without a written word; a mean of nothing would be NaN."""
    sections = merge_tables(
        ARTICLE, {"generator": {"training": "policy-gradient"}, "corruption": {"missing_fraction": 0.5}}
    )
    config = tiny_configuration(**sections)
    batch = batches_of(config, tiny_shards)(0)[0]
    objective = objective_of(config, tiny_shards)
    seen = objective(objective.prepare(batch.rows, torch.device("cpu"))).observations
    result = StepResult(torch.zeros(()), {}, torch.zeros(()), 0.0, batch, seen, False, False)
    counts = open_shards(tiny_shards).unigram_counts
    assert math.isfinite(metrics_of(result, counts)["generator_reward"])
    seen["is_asked"] = torch.zeros_like(seen["is_asked"])
    assert "generator_reward" not in metrics_of(result, counts)


@pytest.mark.parametrize("name", CHOICES)
def test_losses_count_what_the_batch_says(tiny_shards: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every element's loss is 1, each sum is the count that the loop divides it by."""
    ones: dict[str, Any] = {
        "word_loss": lambda logits, words, is_selected: is_selected.sum().float(),
        "replaced_token_loss": lambda logits, truth, is_scored: (
            torch.ones_like(logits).sum() if is_scored is None else is_scored.sum().float()
        ),
        "copied_word_losses": lambda words, logits, seen, originals: torch.ones_like(logits),
        "electric_losses": lambda energies, log_noise, is_text: torch.ones_like(energies),
        "policy_gradient_losses": lambda logits, words, reward, baseline: torch.ones_like(reward),
    }
    for loss, replacement in ones.items():
        monkeypatch.setattr(replaced_token_detection, loss, replacement)
    monkeypatch.setattr(masked_language_modelling, "word_loss", ones["word_loss"])
    config = tiny_configuration(**CHOICES[name])
    objective = objective_of(config, tiny_shards)
    for step in (0, 6):
        objective.begin_step(step)
        batch = batches_of(config, tiny_shards)(step)[0]
        outcome = objective(objective.prepare(batch.rows, torch.device("cpu")))
        totals = {key: int(term.total) for key, term in outcome.terms.items()}
        assert totals.keys() == batch.counts.keys()
        # The loss of the baseline is a square, over the elements of the policy's.
        assert totals | {"baseline": batch.counts.get("baseline")} == batch.counts | {
            "baseline": batch.counts.get("baseline")
        }


CONTRADICTIONS = [
    ({"generator": {"kind": "unigram", "training": "gumbel"}}, "unigram generator cannot be trained against"),
    ({"training": {"softmax_words": 2}}, "must be 0, for all words, or at least 3"),
    ({"training": {"softmax_words": 9}, "discriminator": {"heads": ["electric"]}}, "needs the probabilities of all"),
    ({"training": {"softmax_words": 9}, "generator": {"training": "gumbel"}}, "softmax_words = 9: a generator that is"),
    (
        {"training": {"softmax_words": 9}, "discriminator": {"heads": BOTH, "correction_at": "all"}},
        'or [discriminator] correction_at = "replaced"',
    ),
    ({"generator": {"kind": "frozen"}}, "give either source, a pretrained model, or own_stage_steps"),
    ({"generator": {"kind": "frozen", "own_stage_steps": 10}}, "must be below steps"),
    ({"generator": {"source": "somewhere"}}, 'source: is for kind = "frozen"'),
    ({"generator": {"clusters": 3}}, 'clusters = 3: is for kind = "unigram"'),
    ({"generator": {"kind": "causal", "training": "mixture"}}, "mixes depths of a masked generator"),
    ({"generator": {"kind": "unigram", "last_temperature": 0.5}}, "do not change"),
    ({"generator": {"last_temperature": 0.001}}, "last_temperature = 0.001: must be at least 0.01"),
    ({"generator": {"hidden_size": 20}}, "give all three, or size_fraction alone"),
    ({"generator": {"hidden_size": 20, "feed_forward_size": 20, "heads": 3}}, "not a multiple"),
    ({"corruption": {"source": "generated"}}, "a masked generator cannot write passages"),
    ({"corruption": {"masked_fraction": 15}}, "as a percentage, 15.0 is written 0.15"),
    ({"corruption": {"missing_fraction": 1.5}}, "must be a fraction"),
    ({"corruption": {"top_p": 0}}, "must be a fraction"),
    ({"discriminator": {"heads": ["correction"], "correction_at": "all"}}, "add heads ="),
    ({"discriminator": {"heads": BOTH, "correction_at": "missing"}}, "nothing is missing"),
    ({"discriminator": {"heads": ["detection", "detection"]}}, "at most once"),
    ({"discriminator": {"heads": []}}, "at most once"),
    ({"discriminator": {"heads": ["electric"]}, "corruption": {"missing_fraction": 0.5}}, "compares tokens"),
    ({"discriminator": {"heads": ["correction"]}, "generator": {"training": "gumbel"}}, "plays against the detection"),
    ({"discriminator": {"loss_weight": 0}, "generator": {"training": "gumbel"}}, "needs [discriminator] loss_weight"),
    ({"game": {"mixture_depths": [2, 1]}}, "ascending"),
    ({"game": {"mixture_depths": [1]}, "generator": {"training": "mixture"}}, "needs two depths or more"),
    ({**ARTICLE, "corruption": {"source": "generated", "noise": "span"}}, "that written passages replace"),
    ({"corruption": {"missing_fraction": 1.0}}, "detection finds nothing"),
    ({"discriminator": {"heads": BOTH}, "generator": {"training": "gumbel"}}, "would reach the generator too"),
    (
        {"discriminator": {"heads": ["detection", "electric"]}, "generator": {"training": "policy-gradient"}},
        "are not shown to an electric head",
    ),
    (
        {
            "generator": {"kind": "causal", "training": "gumbel"},
            "corruption": {"source": "generated", "missing_fraction": 1.0},
        },
        "no word that it proposes is shown",
    ),
    ({"game": {"mixture_depths": [1, 5]}, "generator": {"training": "mixture"}}, "the generator has 2 layers"),
    ({"corruption": {"noise": "span"}, "parity": {"colliding_positions": True}}, "published recipe only"),
    (
        {**ARTICLE, "corruption": {"source": "generated", "missing_fraction": 1.0, "noise": "shuffle"}},
        "that written passages replace",
    ),
]


@pytest.mark.parametrize(("sections", "message"), CONTRADICTIONS, ids=[message for _, message in CONTRADICTIONS])
def test_contradictions_get_one_line(tiny_shards: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        objective_of(tiny_configuration(**sections), tiny_shards)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_says_it_in_one_line(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", "--config", "tiny", "--shards", str(tiny_shards), "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--generator.kind", "unigram", "--generator.training", "policy-gradient"])
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def runs(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs by the name of their choice."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("article", "electric", "correction of replaced", "unigram", "shuffle"):
        pretrain(tiny_configuration(**CHOICES[name]), tiny_shards, folder / name)
    return {path.name: path for path in folder.iterdir()}


def sentence(count: int) -> str:
    return " ".join(INVENTED_WORDS[:count])


@pytest.mark.usefixtures("quick_pretraining")
def test_generate_writes_on(runs: dict[str, Path]) -> None:
    text = sentence(4)
    one, two = asked("generate", runs["article"], [text, text], tokens=8)
    assert one["text"] == text
    assert len(one["tokens"]) == 8
    assert one != two
    assert asked("generate", runs["article"], [text], tokens=8)[0] == one
    short = asked("generate", runs["article"], [sentence(20)], tokens=50)[0]
    assert len(short["tokens"]) == 3  # rows of 24 with [CLS]
    for bad, message in (
        ({"model": runs["shuffle"]}, "cannot write on"),
        ({"texts": [sentence(30)]}, "give a shorter beginning"),
        ({"top_p": 0.0}, "must be a fraction"),
        ({"tokens": 0}, "must be at least 1"),
    ):
        arguments = {"model": runs["article"], "texts": [text], **bad}
        with pytest.raises(ElectrainError, match=message):
            asked("generate", **arguments)


@pytest.mark.usefixtures("quick_pretraining")
def test_corrupt_shows_every_step(runs: dict[str, Path]) -> None:
    text = sentence(20)
    for name in ("article", "unigram", "shuffle", "electric"):
        shown = list(predict_corrupt(runs[name], [text] * 12))
        steps = [[step["step"] for step in record["steps"]] for record in shown]
        assert all(names[0] == "the text" and names[-1] == "what the discriminator reads" for names in steps)
        for record in shown:
            first, last = record["steps"][0]["tokens"], record["steps"][-1]["tokens"]
            assert first == text.split()
            assert len(last) == len(record["is_replaced"]) == 20
            if name != "article":
                assert record["is_replaced"] == [a != b for a, b in zip(first, last, strict=True)]
        assert any(any(record["is_replaced"]) for record in shown)
        wanted = {"article": "written on by the generator", "shuffle": "words moved"}.get(name, "the text")
        assert any(wanted in names for names in steps)
    assert any("[MASK]" in record["steps"][-1]["tokens"] for record in predict_corrupt(runs["article"], [text] * 3))
    with pytest.raises(ElectrainError, match="give one with 1 to 22"):
        list(predict_corrupt(runs["unigram"], [sentence(40)]))


@pytest.mark.usefixtures("quick_pretraining")
def test_a_predictor_names_the_tasks_that_its_run_can_do(runs: dict[str, Path]) -> None:
    found = {name: electrain.load(run).tasks for name, run in runs.items()}
    for name, tasks in found.items():
        for task in ("detect", "fill", "generate", "embed"):
            try:
                works = bool(asked(task, runs[name], ["[MASK] " + sentence(3)]))
            except ElectrainError:
                works = False
            assert works == (task in tasks), (name, task)
    assert found["unigram"] == ("detect", "embed")
    assert {"fill", "generate"} <= set(found["article"])
    assert "detect" not in found["electric"]


@pytest.mark.usefixtures("quick_pretraining")
def test_fill_and_blimp_use_the_heads_there_are(runs: dict[str, Path], tmp_path: Path) -> None:
    text = "[MASK] " + sentence(3)
    for name, by, wanted in (
        ("article", None, "correction"),
        ("correction of replaced", None, "generator"),
        ("correction of replaced", "correction", "correction"),
    ):
        filled = asked("fill", runs[name], [text], by=by)[0]
        assert filled["model"] == str(runs[name] / wanted)
    with pytest.raises(ElectrainError, match="has no detection head, only electric"):
        asked("detect", runs["electric"], [text])
    with pytest.raises(ElectrainError, match="has no correction head, only electric"):
        asked("fill", runs["electric"], [text], by="correction")
    with pytest.raises(ElectrainError, match="sees only the words before a gap"):
        asked("fill", runs["article"], [text], by="generator")
    pairs = tmp_path / "pairs.jsonl"
    fields = {"UID": "set", "linguistics_term": "term", "field": "field"}
    record = {"sentence_good": sentence(5), "sentence_bad": sentence(6), **fields}
    pairs.write_text(json.dumps(record) + "\n")
    expected = {
        "article": {"discriminator", "correction_pseudo_log_likelihood", "generator"},
        "electric": {"electric", "pseudo_log_likelihood"},
        "correction of replaced": {"discriminator", "correction", "pseudo_log_likelihood"},
        "unigram": {"discriminator"},
    }
    for name, scorers in expected.items():
        result = evaluate_blimp(runs[name], pairs)
        assert scorers <= set(result["scorers"])
        assert not {"discriminator", "electric", "correction"} & (set(result["scorers"]) - scorers)


@pytest.mark.usefixtures("quick_pretraining")
def test_detection_reports_the_correction_head(runs: dict[str, Path], tmp_path: Path) -> None:
    """At missing or replaced positions, as it was trained; a causal generator proposes as well as a masked one."""
    corpus = tmp_path / "held_out.txt"
    corpus.write_text(" ".join(INVENTED_WORDS * 20))
    for name in ("article", "correction of replaced"):
        result = evaluate_detection(runs[name], [str(corpus)], rows=20)
        assert 0 <= result["correction"]["accuracy"] < 0.5
        assert result["correction"]["loss"] == pytest.approx(4.66, abs=0.5)  # ln 106: hardly trained
        assert result["generator"]["loss"] == pytest.approx(4.66, abs=0.5)
    assert evaluate_detection(runs["shuffle"], [str(corpus)], rows=20)["correction"] is None
    by_frequency = evaluate_detection(runs["unigram"], [str(corpus)], rows=20)
    assert by_frequency["settings"]["generator"] == "word frequencies"
    assert by_frequency["generator"] is None
    assert 0 < by_frequency["discriminator"]["auc"] < 1


FOREIGN: dict[str, Any] = {
    "bert of one type": lambda sizes: BertForMaskedLM(BertConfig(**sizes, type_vocab_size=1)),
    "roberta": lambda sizes: RobertaForMaskedLM(RobertaConfig(**sizes, max_position_embeddings=64, pad_token_id=0)),
    "llama": lambda sizes: LlamaForCausalLM(LlamaConfig(**sizes, pad_token_id=0)),
    "decoder bert": lambda sizes: BertLMHeadModel(BertConfig(**sizes, is_decoder=True)),
    "bert with both heads": lambda sizes: BertForPreTraining(BertConfig(**sizes)),
    "gpt2 without its head": lambda _: GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=4000)),
}


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_frozen_generator_of_any_architecture_is_used_everywhere(
    tiny_shards: Path, tmp_path: Path, name: str
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    # A larger table than the vocabulary: what it proposes beyond that must not be drawn.
    FOREIGN[name]({**sizes, "vocab_size": 4000}).save_pretrained(tmp_path / "foreign")
    load_tokenizer(tiny_shards / "tokenizer").save_pretrained(tmp_path / "foreign")
    config = tiny_configuration(generator={"kind": "frozen", "source": str(tmp_path / "foreign")})
    pretrain(config, tiny_shards, tmp_path / "run")
    shown = next(iter(predict_corrupt(tmp_path / "run", [sentence(20)])))
    assert shown["steps"][-1]["step"] == "what the discriminator reads"
    assert any(shown["is_replaced"])
    assert None not in shown["steps"][-1]["tokens"]
    corpus = tmp_path / "held_out.txt"
    corpus.write_text(" ".join(INVENTED_WORDS * 20))
    judged = evaluate_detection(tmp_path / "run", [str(corpus)], rows=20)
    assert judged["generator"]["loss"] == pytest.approx(4.66, abs=0.3)  # ln 106: not trained
    pairs = tmp_path / "pairs.jsonl"
    fields = {"UID": "set", "linguistics_term": "term", "field": "field"}
    pairs.write_text(json.dumps({"sentence_good": sentence(5), "sentence_bad": sentence(6), **fields}) + "\n")
    scorer = "generator" if name in ("llama", "decoder bert", "gpt2 without its head") else "pseudo_log_likelihood"
    assert {"discriminator", scorer} <= set(evaluate_blimp(tmp_path / "run", pairs)["scorers"])


def test_networks_that_no_generator_can_be_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 106}
    bart = BartConfig(**sizes, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16)
    for network in (BartForConditionalGeneration(bart), BartModel(bart)):
        folder = tmp_path / type(network).__name__
        network.save_pretrained(folder)
        load_tokenizer(tiny_shards / "tokenizer").save_pretrained(folder)
        with pytest.raises(ElectrainError, match=f"is a {folder.name}, no masked or causal"):
            asked("fill", folder, ["[MASK]"])


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize(
    "sections",
    [{"discriminator": {"heads": ["correction"]}}, {"training": {"objective": "masked-language-modelling"}}],
    ids=["correction alone", "the baseline"],
)
def test_what_only_restores_words_is_asked_for_those(
    runs: dict[str, Path], tiny_shards: Path, tmp_path: Path, sections: dict[str, dict[str, Any]]
) -> None:
    corpus = tmp_path / "held_out.txt"
    corpus.write_text(" ".join(INVENTED_WORDS * 20))
    pretrain(tiny_configuration(**sections), tiny_shards, tmp_path / "run")
    result = evaluate_detection(tmp_path / "run", [str(corpus)], generator=runs["shuffle"], rows=20)
    assert result["discriminator"] is None
    assert "auc" not in result["intervals_95"]
    assert result["correction"]["loss"] == pytest.approx(4.66, abs=0.5)  # ln 106: hardly trained
    assert result["scored_tokens"] == evaluate_detection(runs["shuffle"], [str(corpus)], rows=20)["scored_tokens"]
