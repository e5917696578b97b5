"""`electrain.ReplacedTokenDetection`: the loss of pretraining, inside Hugging Face's Trainer and an Accelerate loop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import electrain
from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.errors import DataError, ElectrainError
from electrain.pretraining.plain_module import ReplacedTokenDetection
from tiny_pretraining import TINY_TABLES, batches_of, invented_text, tiny_configuration

pytestmark = pytest.mark.usefixtures("no_pretend_device")
TEXTS = [{"text": text} for text in invented_text(200, seed=5)]


@pytest.fixture
def made(tiny_shards: Path) -> Any:
    """`made(**sections)`: a module with weights that are further out, so that its outputs differ clearly."""

    def make(**sections: Any) -> ReplacedTokenDetection:
        module = ReplacedTokenDetection(tiny_configuration(**sections), tiny_shards / "tokenizer")
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
        return module

    return make


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    given = {"learning_rate": 5e-3, "per_device_train_batch_size": 16, "max_steps": 60, "logging_steps": 20} | more
    return TrainingArguments(
        str(folder), report_to=[], use_cpu=True, remove_unused_columns=False, disable_tqdm=True, **given
    )


@pytest.mark.parametrize("parity", [{}, {"reference_packing": True}], ids=["full rows", "padding"])
def test_the_loss_is_that_of_pretraining(made: Any, tiny_shards: Path, parity: dict[str, Any]) -> None:
    """The rows of two steps, given one after the other, get the masks, the samples and the loss of the run."""
    sections: dict[str, Any] = {"parity": parity, "discriminator": {"heads": ["detection", "correction"]}}
    module = made(**sections, training={"dropout": 0.0})
    of_step = batches_of(tiny_configuration(**sections), tiny_shards)
    for step in (0, 1):
        (batch,) = of_step(step)
        rows, mask = batch.rows, batch.rows.attention_mask
        with torch.no_grad():
            expected = module.objective(rows)
            output = module(rows.token_ids, rows.token_type_ids, mask)
        total = sum(term.weight * term.total / batch.counts[name] for name, term in expected.terms.items())
        assert set(output.losses) == {"generator", "discriminator", "correction"}
        assert torch.equal(output.corrupted_ids, expected.observations["corrupted_ids"])
        assert float(output.loss) == pytest.approx(float(total), rel=1e-6)
        real = torch.ones_like(rows.token_ids, dtype=torch.bool) if mask is None else mask
        assert torch.equal(output.is_replaced[real] == 1, expected.observations["is_replaced"][real])
        assert (output.is_replaced[~real] == -100).all()
    assert int(module.rows_seen) == 16


def test_evaluation_masks_each_text_alike_whatever_stands_beside_it(made: Any) -> None:
    module = made().eval()
    collate = module.collator()
    with torch.no_grad():
        alone = module(**collate(TEXTS[:1]))
        beside = module(**collate(TEXTS[:8]))
        again = module(**collate(TEXTS[:8]))
    width = alone.corrupted_ids.shape[1]
    assert torch.equal(alone.corrupted_ids[0], beside.corrupted_ids[0, :width])
    assert torch.equal(beside.corrupted_ids, again.corrupted_ids)
    assert torch.equal(beside.loss, again.loss)
    assert int(module.rows_seen) == 0
    masks = [(beside.is_replaced[row] == 1).nonzero().flatten().tolist() for row in range(8)]
    assert len({tuple(mask) for mask in masks}) > 4


def test_accumulated_gradients_are_those_of_one_batch(made: Any) -> None:
    """Micro-batches of different lengths, weighed as Trainer asks: by the tokens of the whole step."""
    whole, parts = (made(training={"dropout": 0.0}) for _ in range(2))
    collate = whole.collator()
    # 20 tokens with [CLS] and [SEP], of which 3 are selected, and 7, of which 1 is: 15% without rounding.
    rows = [{"input_ids": [2, *range(6, 6 + length - 2), 3]} for length in (20, 20, 20, 20)]
    short = [{"input_ids": [2, *range(30, 30 + 5), 3]} for _ in range(4)]
    for given in (rows, [*rows[:3], *short[:1]]):
        whole.zero_grad()
        parts.zero_grad()
        tokens = sum(len(one["input_ids"]) for one in given)
        whole(**collate(given)).loss.backward()
        for micro in (given[:2], given[2:3], given[3:]):
            parts(**collate(micro), num_items_in_batch=tokens).loss.backward()
        pairs = zip(whole.parameters(), parts.parameters(), strict=True)
        ours = [(one.grad, other.grad) for one, other in pairs if one.grad is not None]
        # 3 of 20 is 15%, but 1 of 7 is 14%: the generator's loss then differs by rounding, as the docstring says.
        tolerance = 1e-5 if given is rows else 0.05
        assert all((one - other).norm() <= tolerance * one.norm() + 1e-6 for one, other in ours)
        assert len(ours) > 20


def test_it_learns_in_trainer_and_resumes(made: Any, tmp_path: Path) -> None:
    """With padding, accumulated gradients, evaluation and checkpoints; a resumed run ends with the same weights."""
    module = ReplacedTokenDetection(tiny_configuration(training={"dropout": 0.0}), made().tokenizer)
    more = {
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 8,
        "eval_strategy": "steps",
        "eval_steps": 20,
        "save_steps": 20,
        "load_best_model_at_end": False,
    }
    evaluated = TEXTS[:32]

    def detection(found: Any) -> dict[str, float]:
        logits, is_replaced = found.predictions[:2]
        real = is_replaced >= 0
        return {"detected": float(((logits > 0) == (is_replaced == 1))[real].mean())}

    def trainer(of: ReplacedTokenDetection) -> Trainer:
        return Trainer(
            of,
            arguments(tmp_path / "out", **more),
            train_dataset=TEXTS[:192],
            eval_dataset=evaluated,
            data_collator=of.collator(),
            compute_metrics=detection,
        )

    trained = trainer(module)
    trained.train()
    evaluations, losses = (
        [line[key] for line in trained.state.log_history if key in line] for key in ("eval_loss", "loss")
    )
    assert losses[-1] < 0.9 * losses[0]
    assert evaluations[-1] < evaluations[0]
    assert trained.state.log_history[-2]["eval_detected"] > 0.8
    assert int(module.rows_seen) == 60 * 16
    resumed = ReplacedTokenDetection(tiny_configuration(training={"dropout": 0.0}), module.tokenizer)
    trainer(resumed).train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-20"))
    assert int(resumed.rows_seen) == 60 * 16
    for (name, one), other in zip(module.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    module.save_pretrained(tmp_path / "run")
    predictor = electrain.load(tmp_path / "run")
    assert predictor.tasks == ("detect", "fill", "embed")
    text = TEXTS[0]["text"]
    with torch.no_grad():
        detector = module.eval().objective.discriminator
        ids = module.collator()([{"text": text}])["input_ids"]
        expected = torch.sigmoid(detector(ids, None, None))[0, 1:-1].tolist()
    found = [token.probability_replaced for token in predictor.detect(text).tokens][: len(expected)]
    assert len(text.split()) > 22 or found == pytest.approx(expected, rel=1e-3)


def test_it_learns_in_an_accelerate_loop(tiny_shards: Path, tmp_path: Path) -> None:
    module = ReplacedTokenDetection(TINY_TABLES, load_tokenizer(tiny_shards / "tokenizer"), {"data": {"segments": 1}})
    accelerator = Accelerator(cpu=True)
    loader = DataLoader(TEXTS, batch_size=16, shuffle=True, collate_fn=module.collator())  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(module, torch.optim.AdamW(module.parameters(), lr=5e-3), loader)
    losses = []
    for _ in range(5):
        for batch in loader:
            output = model(**batch)
            accelerator.backward(output.loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(output.loss.detach()))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    accelerator.unwrap_model(model).save_pretrained(tmp_path / "run")
    assert electrain.load(tmp_path / "run").fill("[MASK] .").masks


def test_shared_weights_are_saved_once_and_found_again(made: Any) -> None:
    module, other = made(), made(training={"seed": 9})
    state = module.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    result = other.load_state_dict(state)
    assert not result.missing_keys
    assert not result.unexpected_keys
    for one, another in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, another)
    embeddings = other.objective.generator.network.get_input_embeddings().weight
    assert embeddings is other.objective.discriminator.word_embeddings.weight


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([{"label": 1}], "example 1 of a batch: has neither"),
        ([{"input_ids": [2, 7, 3]}, {"input_ids": [7, 8]}], "example 2 of a batch: does not begin"),
        ([{"text": 3}], "has neither"),
    ],
)
def test_examples_that_are_no_rows_are_refused(made: Any, examples: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made().collator()(examples)


def test_rows_are_cut_with_their_end(made: Any) -> None:
    batch = made().collator()([{"input_ids": [2, *range(6, 80), 3], "token_type_ids": [0] * 40 + [1] * 36}])
    assert batch["input_ids"].shape == (1, 24)
    assert batch["input_ids"][0, [0, -1]].tolist() == [2, 3]
    assert "attention_mask" not in batch


def test_a_baseline_is_refused(tiny_shards: Path) -> None:
    baseline = tiny_configuration(training={"objective": "masked-language-modelling"})
    with pytest.raises(ElectrainError, match="must be replaced-token-detection"):
        ReplacedTokenDetection(baseline, tiny_shards / "tokenizer")


def test_examples_without_texts_name_the_way_out(made: Any) -> None:
    with pytest.raises(ElectrainError, match=r"example 1 of a batch: .* remove_unused_columns=False"):
        made().collator()([{"label": 1}])


def test_blank_texts_add_nothing_to_the_loss(made: Any) -> None:
    module = made()
    loss = module(**module.collator()([{"text": ""}, {"text": "  "}])).loss
    assert loss.isfinite()
    loss.backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in module.parameters())
