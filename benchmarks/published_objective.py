"""The fields of replaced token detection as it was published, where the presets `demo` and `tiny` have other ones."""

# As the command line names them, with the two numbers of `tiny` before it changed: docs/objectives.md shows this list.
PUBLISHED = {
    "generator.kind": "masked",
    "generator.layers": "0",
    "discriminator.heads": "detection",
    "discriminator.loss-weight": "10",
    "corruption.masked-fraction": "0.4",
    "corruption.missing-fraction": "0",
    "start.word-embeddings": "random",
    "training.softmax-words": "0",
}
