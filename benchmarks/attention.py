"""Time of self-attention on this machine, spelled out as matrix products ("eager") and by the fused kernel ("sdpa").

    python benchmarks/attention.py [--lengths 64 128 256 512] [--head-widths 32 64] [--repetitions N]

One `ElectraSelfAttention` layer, compiled, forward and backward pass, in bfloat16 where the machine has it, the same
number of tokens at every length. The two take turns, so that other work on the machine slows both; the ratio is that of
their least times. A table goes to stderr, one line of JSON per row of it to stdout. `--processor-time` counts the
calling thread's own time, which other work hardly changes: run it with OMP_NUM_THREADS=1.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from transformers import ElectraConfig
from transformers.models.electra.modeling_electra import ElectraSelfAttention

from electrain.training.arithmetic import choose_arithmetic

IMPLEMENTATIONS = ("eager", "sdpa")


def attention_step(
    implementation: str, width: int, head_width: int, rows: int, length: int, dtype: torch.dtype
) -> Callable[[], None]:
    """A call that does one forward and one backward pass."""
    heads = width // head_width
    configuration = ElectraConfig(
        hidden_size=width,
        num_attention_heads=heads,
        attention_probs_dropout_prob=0.0,
        attn_implementation=implementation,
    )
    torch.manual_seed(0)
    layer = ElectraSelfAttention(configuration)
    layer.compile(dynamic=False)
    hidden = torch.randn(rows, length, width, requires_grad=True)
    direction = torch.randn(rows, length, width)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            mixed = layer(hidden)[0]
        mixed.backward(direction.to(mixed.dtype))
        layer.zero_grad()
        hidden.grad = None

    return step


def main() -> None:
    """Prints one line for each length and head width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--head-widths", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--width", type=int, default=256, help="of the layer")
    parser.add_argument("--tokens", type=int, default=4096, help="of a pass")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--processor-time", action="store_true", help="of the calling thread, in place of the clock's")
    arguments = parser.parse_args()
    clock = time.thread_time if arguments.processor_time else time.perf_counter
    dtype = choose_arithmetic("auto", torch.device("cpu")).dtype
    print(f"{'length':>8}{'head':>6}{'eager ms':>12}{'sdpa ms':>12}{'sdpa/eager':>12}", file=sys.stderr)
    for head_width in arguments.head_widths:
        for length in arguments.lengths:
            torch.compiler.reset()
            rows = max(1, arguments.tokens // length)
            steps = {
                name: attention_step(name, arguments.width, head_width, rows, length, dtype) for name in IMPLEMENTATIONS
            }
            seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
            for turn in range(arguments.repetitions + 1):
                for name, step in steps.items():
                    start = clock()
                    step()
                    if turn:  # the first compiles
                        seconds[name].append(clock() - start)
            eager, sdpa = (1000 * min(seconds[name]) for name in IMPLEMENTATIONS)
            line = {"length": length, "head_width": head_width, "eager_ms": round(eager, 3), "sdpa_ms": round(sdpa, 3)}
            print(json.dumps({**line, "threads": torch.get_num_threads(), "dtype": str(dtype)}), flush=True)
            print(f"{length:>8}{head_width:>6}{eager:>12.2f}{sdpa:>12.2f}{sdpa / eager:>12.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
