"""The figures of a pretraining report: the numbers of the journal that they draw, and their captions."""

from electrain.foundation.report_curves import BLACK, GREEN, VERMILION, Curve, FigurePlan

FIGURES = (
    FigurePlan(
        "Probe",
        "What a linear classifier reads out of the frozen encoder: accuracy on labelled texts that did not fit it. The "
        "checkpoint where it is highest is the one to fine-tune.",
        "per cent",
        (Curve("probe_accuracy", "probe", GREEN),),
    ),
    FigurePlan("Loss", "The weighted sum that training minimises.", "nats", (Curve("loss", "total", BLACK),)),
    FigurePlan(
        "Generator loss",
        "Cross-entropy of the masked words; a plateau at the start is word frequency alone.",
        "nats",
        (Curve("generator_loss", "generator"),),
    ),
    FigurePlan(
        "Discriminator loss",
        "Binary cross-entropy over all tokens but [MASK]; it need not fall, since the generator improves too.",
        "nats",
        (Curve("discriminator_loss", "discriminator", VERMILION),),
    ),
    FigurePlan(
        "Masked-word loss",
        "Cross-entropy of the masked words; a plateau at the start is word frequency alone.",
        "nats",
        (Curve("masked_language_model_loss", "masked language model"),),
    ),
    FigurePlan(
        "Masked-word accuracy",
        "Fraction of the masked words restored.",
        "fraction",
        (Curve("masked_language_model_accuracy", "masked language model"),),
    ),
    FigurePlan(
        "Detection against word frequency",
        "Probability that a replaced token scores above an original one; 0.5 is guessing. Above the dashed line, the "
        "discriminator reads the context.",
        "AUC",
        (Curve("discriminator_auc", "discriminator", VERMILION), Curve("unigram_auc", "word frequency", BLACK, "--")),
    ),
    FigurePlan(
        "Detection at probability one half",
        "Precision: the fraction of tokens called replaced that are. Recall: the fraction of replaced tokens found.",
        "fraction",
        (Curve("discriminator_precision", "precision"), Curve("discriminator_recall", "recall", VERMILION, "--")),
    ),
    FigurePlan(
        "Generator accuracy",
        "Fraction of the masked words that the generator's first choice restores.",
        "fraction",
        (Curve("generator_accuracy", "generator"),),
    ),
    FigurePlan(
        "Generator entropy",
        "Spread of the generator's predictions; near 0 it always draws the same word.",
        "nats",
        (Curve("generator_entropy", "generator"),),
    ),
    FigurePlan(
        "Tokens replaced",
        "Fraction of the tokens that differ from the original text, which is what the discriminator has to find.",
        "fraction of tokens",
        (Curve("replaced_fraction", "replaced", GREEN),),
    ),
    FigurePlan(
        "Words corrected",
        "Fraction of the words that the correction head's first choice restores, in real text and in text written by "
        "the generator.",
        "fraction",
        (
            Curve("correction_accuracy", "real text"),
            Curve("correction_accuracy_written", "written text", VERMILION, "--"),
        ),
    ),
    FigurePlan(
        "Correction loss", "Cross-entropy of the words to restore.", "nats", (Curve("correction_loss", "correction"),)
    ),
    FigurePlan(
        "Energy loss",
        "Cross-entropy of telling text from an equal amount of noise.",
        "nats",
        (Curve("electric_loss", "electric"),),
    ),
    FigurePlan(
        "Value of the game",
        "E[log D(original)] + E[log(1 - D(replaced))]: 0 for a discriminator that is never wrong, -1.39 for one that "
        "only guesses.",
        "nats",
        (Curve("game_value", "value", BLACK),),
    ),
    FigurePlan(
        "The generator's reward",
        "The discriminator's cross-entropy at the words drawn, which an adversarial generator raises.",
        "nats",
        (Curve("generator_reward", "reward"),),
    ),
    FigurePlan("Learning rate", "At each step.", "", (Curve("learning_rate", "learning rate", BLACK),)),
    FigurePlan(
        "Gradient norm", "Norm over all parameters, before clipping.", "", (Curve("gradient_norm", "norm", BLACK),)
    ),
    FigurePlan(
        "Speed", "Tokens per second, padding not counted.", "tokens/s", (Curve("tokens_per_second", "tokens/s", GREEN),)
    ),
    FigurePlan(
        "Use of the machine",
        "Operations per second as a fraction of the measured rate of large matrix products.",
        "fraction",
        (Curve("matrix_rate_fraction", "fraction", GREEN),),
    ),
)
