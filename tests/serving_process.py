"""A service with a stand-in model, in a process of its own.

python serving_process.py SETTINGS SECONDS_PER_TEXT SECONDS_OF_LOADING
"""

import json
import sys
import time

from fastapi import FastAPI

from electrain.foundation.process import end_cleanly_on_signals
from electrain.inference.serve.app import create_app
from electrain.inference.serve.server import listen, serve, url_of
from electrain.inference.serve.settings import ServeSettings
from stand_in import StandIn


def main() -> None:
    settings, seconds = ServeSettings(**json.loads(sys.argv[1])), float(sys.argv[2])

    def load() -> FastAPI:
        time.sleep(float(sys.argv[3]))
        app = create_app({"one": StandIn()}, settings)
        for batcher in app.state.batchers.values():
            batcher.predictor.seconds_per_text = seconds
        return app

    end_cleanly_on_signals()
    listener = listen("127.0.0.1", 0)
    print(url_of(listener), flush=True)
    serve(load, listener, settings)


if __name__ == "__main__":
    main()
