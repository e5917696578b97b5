"""Which cheap measure of a checkpoint says how good its encoder is? Several, beside a labelled tagging probe.

For each checkpoint of each run: a linear classifier on frozen states, fitted to some rows and scored on others, of

    tagging              what is to be predicted: labelled, 1,000 sentences of either kind
    tagging_small        labelled, 300 sentences of either kind, closed form: what a run can afford
    gap                  the class of a token that was left out, from its two neighbours
    masked               the class of a token shown as [MASK], from its place
    next                 the class of the token after a text that ends there, from the last token
    neighbour            the class of the next token, which the network sees
    unseen               the class of the token itself, fitted to half of the vocabulary and scored on the other half

and the run's own loss and detection AUC on rows. Classes are clusters of tokens by their neighbours in the shards
(`_frequency`: classes of frequency). `_own` are rows of the run's shards, the others those of --rows.

    python benchmarks/probe_choice.py RUN [RUN...] --rows SHARDS --data FOLDER --output lines.jsonl

A run keeps all of its checkpoints if `electrain.training.checkpoint.KEPT_CHECKPOINTS` is raised before it trains; of a
run without any, the model is measured, without loss and AUC.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd
from transformers import AutoModel

from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import Shards, open_shards
from electrain.foundation.configuration import read_toml
from electrain.pretraining.build import build_objective, micro_batches, vocabulary_of
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.objectives.detection_metrics import detection_metrics
from electrain.pretraining.probe import ProbeText, linear_classifier, states_of
from probes import FrozenEncoder, features_of, read_tagged

Array = NDArray[Any]
CLUSTERS, CONTEXT_WORDS, DIMENSIONS = 64, 300, 32
ROWS, PREFIXES, GAP = 300, 800, 8  # rows of either kind; one token in `GAP` is asked
PENALTY = 100.0


def clusters_of(shards: Shards, most_tokens: int = 2_000_000) -> Array:
    """(vocabulary,) int64: classes of tokens with similar neighbours, by PPMI, SVD and k-means."""
    places = torch.arange(min(most_tokens, shards.token_count))
    tokens = shards.take(places, with_words=False)[0].numpy()
    size = shards.vocabulary_size
    counts = np.bincount(tokens, minlength=size)
    context = np.argsort(-counts)[:CONTEXT_WORDS]
    column = np.full(size, -1)
    column[context] = np.arange(len(context))
    table = np.zeros((size, 2 * CONTEXT_WORDS))
    for side, (words, beside) in enumerate(((tokens[1:], tokens[:-1]), (tokens[:-1], tokens[1:]))):
        is_kept = column[beside] >= 0
        np.add.at(table, (words[is_kept], column[beside[is_kept]] + side * CONTEXT_WORDS), 1)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    table = np.log(np.maximum(1.0, table / np.maximum(expected, 1e-9)))
    left, values, _ = randomized_svd(table, DIMENSIONS, random_state=0)
    vectors = left * values
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    found: Array = KMeans(CLUSTERS, n_init=1, random_state=0).fit(vectors, sample_weight=np.sqrt(counts + 1)).labels_
    return found


def frequency_classes(counts: Array) -> Array:
    """(vocabulary,) int64: about eight classes of equal numbers of tokens in text."""
    order = np.argsort(-counts)
    classes = np.empty(len(counts), int)
    classes[order] = (np.cumsum(counts[order]) - 1) * 8 // max(1, counts.sum())
    return classes


def all_states(body: Any, ids: Array) -> Array:
    """(rows, length, layers, width) float32, of rows without padding."""
    places = np.arange(ids.shape[1])[:, None]
    return np.stack(states_of(body, [ProbeText(row, places, ()) for row in ids], padding_id=0))


def score(fit: tuple[Array, Array], other: tuple[Array, Array]) -> float:
    """Accuracy in per cent on `other` of a linear classifier."""
    return 100 * float(linear_classifier(PENALTY).fit(*fit).score(*other))


def flat(states: Array) -> Array:
    return states.reshape(len(states), -1)


def unlabelled(body: Any, ids: Array, specials: set[int], mask_id: int, classes: dict[str, Array]) -> dict[str, float]:
    """The label-free measures on rows of token ids, the first half of which fits."""
    half, (count, length) = len(ids) // 2, ids.shape
    is_special = np.isin(ids, list(specials))
    random = np.random.default_rng(0)
    places = random.integers(2, GAP, count)[:, None] + np.arange(0, length - GAP - 1, GAP)[None]
    rows = np.arange(count)[:, None]
    is_good = ~(is_special[rows, places] | is_special[rows, places - 1] | is_special[rows, places + 1])
    asked, in_fit = ids[rows, places][is_good], np.broadcast_to(rows < half, places.shape)[is_good]
    kept = np.ones(ids.shape, bool)
    kept[rows, places] = False
    left_of = places - 1 - np.arange(places.shape[1])
    gapped = all_states(body, ids[kept].reshape(count, -1))
    masked_ids = ids.copy()
    masked_ids[rows, places] = mask_id
    masked = all_states(body, masked_ids)
    whole = all_states(body, ids)
    features = {
        "gap": np.concatenate([flat(gapped[rows, left_of][is_good]), flat(gapped[rows, left_of + 1][is_good])], 1),
        "masked": flat(masked[rows, places][is_good]),
        "neighbour": flat(whole[rows, places - 1][is_good]),
    }
    found = {}
    for (name, x), (kind, of) in itertools.product(features.items(), classes.items()):
        y = of[asked]
        found[name + kind] = score((x[in_fit], y[in_fit]), (x[~in_fit], y[~in_fit]))
    x, is_first = flat(whole[rows, places][is_good]), asked % 2 == 0
    one, two = in_fit & is_first, ~in_fit & ~is_first
    for kind, of in classes.items():
        found["unseen" + kind] = score((x[one], of[asked][one]), (x[two], of[asked][two]))
    return found


def after_prefixes(body: Any, ids: Array, specials: set[int], sep: int, classes: dict[str, Array]) -> dict[str, float]:
    """The measure `next`: texts that end with [SEP] after some of a row's tokens."""
    lengths = (16, 24, 32, 40)
    xs, asked = [], []
    for number, length in enumerate(lengths):
        some = ids[number :: len(lengths)]
        some = some[~np.isin(some[:, length - 1 : length + 1], list(specials)).any(1)]
        cut = np.concatenate([some[:, :length], np.full((len(some), 1), sep)], 1)
        xs.append(flat(all_states(body, cut)[:, -2]))
        asked.append(some[:, length])
    x, word = np.concatenate(xs), np.concatenate(asked)
    is_fit = np.random.default_rng(1).random(len(word)) < 0.5
    return {
        "next" + kind: score((x[is_fit], of[word][is_fit]), (x[~is_fit], of[word][~is_fit]))
        for kind, of in classes.items()
    }


@torch.no_grad()
def own_measures(objective: Any, config: PretrainConfig, shards: Shards, first: int) -> dict[str, float]:
    """Loss terms and detection AUC on rows, of an objective that does not train."""
    rows = RowSource(shards, config.data, config.training.seed)
    batches = micro_batches(rows, config, vocabulary_of(shards.tokenizer))
    sums: dict[str, list[float]] = {}
    scores, truth = [], []
    objective.eval()
    for step in range(first, first + 20):
        torch.manual_seed(step)
        (batch,) = batches(step)
        outcome = objective(objective.prepare(batch.rows, torch.device("cpu")))
        for name, term in outcome.terms.items():
            sums.setdefault(name, []).append(float(term.total) / float(batch.counts[name]))
        if "replaced_logits" in outcome.observations:
            keep = ~batch.rows.is_special.numpy()
            scores.append(outcome.observations["replaced_logits"].numpy()[keep])
            truth.append(outcome.observations["is_replaced"].numpy()[keep])
    found = {f"minus_{name}_loss": -float(np.mean(values)) for name, values in sums.items()}
    if scores:
        found["auc"] = detection_metrics(np.concatenate(scores), np.concatenate(truth)).auc
    return found


def checkpoints_of(run: Path, config: PretrainConfig, shards: Shards) -> Iterator[tuple[int, Any, Any]]:
    """Step, objective and encoder of each checkpoint; the objective is None where only the model is left."""
    folders = sorted(run.glob("checkpoints/step-*"), key=lambda path: int(path.name[5:]))
    if not folders:
        facts = json.loads((run / "manifest.json").read_text())["facts"]
        yield int(facts["step"]), None, AutoModel.from_pretrained(run / "model").eval()
    for folder in folders:
        objective = build_objective(
            config,
            vocabulary_size=shards.vocabulary_size,
            special_ids=shards.special_ids,
            unigram_counts=shards.unigram_counts,
        )
        objective.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        yield int(folder.name[5:]), objective, getattr(objective, "model", None) or objective.discriminator


def main() -> None:
    """Appends one line for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="shards whose last rows no run has read")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="*", default=[], help="the checkpoints; none: all")
    options = parser.parse_args()
    known = (
        {(one["run"], one["step"]) for one in map(json.loads, options.output.open())}
        if options.output.exists()
        else set()
    )
    other = open_shards(options.rows, verify=False)
    tags = options.data / "brown_pos"
    tagged = [read_tagged(tags / "train.conll.gz", 1000), read_tagged(tags / "test.conll.gz", 1000)]
    small = [read_tagged(tags / "validation.conll.gz", 600)[part] for part in (slice(300), slice(300, 600))]
    for run in options.runs:
        config = load_configuration(read_toml(run / "config.toml"))
        own = open_shards(Path(json.loads((run / "manifest.json").read_text())["facts"]["shards"]), verify=False)
        classes = {"": clusters_of(own), "_frequency": frequency_classes(own.unigram_counts)}
        ids = {}
        for name, shards in (("", other), ("_own", own)):
            rows = RowSource(shards, config.data, config.training.seed)
            numbers = np.arange(rows.rows_per_epoch - 2 * ROWS, rows.rows_per_epoch, dtype=np.int64)
            ids[name] = rows.batch(numbers).token_ids.numpy()
        rows = RowSource(other, config.data, config.training.seed)
        prefixes = rows.batch(np.arange(rows.rows_per_epoch - 2 * PREFIXES, rows.rows_per_epoch)).token_ids.numpy()
        special, sep = set(own.special_ids.all), own.special_ids.sep
        is_same = own.manifest == other.manifest
        for step, objective, network in checkpoints_of(run, config, own):
            if (str(run), step) in known or (options.steps and step not in options.steps and objective is not None):
                continue
            began = time.perf_counter()
            body = (network.body if objective is not None else network).eval()
            found: dict[str, Any] = {"run": str(run), "step": step}
            encoder = FrozenEncoder.__new__(FrozenEncoder)
            encoder.tokenizer, encoder.model, encoder.longest_row = own.tokenizer, body, config.data.sequence_length
            sets = [features_of(encoder, pairs, is_pooled=False) for pairs in tagged]
            found["tagging"] = score(*((flat(one.vectors), one.labels) for one in sets))
            layers = range(sets[0].vectors.shape[1])
            found["tagging_by_layer"] = [score(*((one.vectors[:, n], one.labels) for one in sets)) for n in layers]
            sets = [features_of(encoder, pairs, is_pooled=False) for pairs in small]
            found["tagging_small"] = score(*((flat(one.vectors), one.labels) for one in sets))
            for name in ("",) if is_same else ids:
                measured = unlabelled(body, ids[name], special, own.special_ids.mask, classes)
                found |= {key + name: value for key, value in measured.items()}
            found |= after_prefixes(body, prefixes, special, sep, classes)
            if objective is not None:
                found |= own_measures(objective, config, other, rows.rows_per_epoch // 32 - 30)
                if not is_same:
                    found |= {k + "_own": v for k, v in own_measures(objective, config, own, 5).items()}
            found["seconds"] = round(time.perf_counter() - began, 1)
            with options.output.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
