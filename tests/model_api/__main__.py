"""Run the stand-in in the foreground."""

import argparse

from model_api.server import Server


def main():
    options = argparse.ArgumentParser(prog="model_api", description="A stand-in for model APIs, on loopback.")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--folder", required=True, help="where it finds its orders and leaves requests.jsonl")
    chosen = options.parse_args()
    Server(chosen.port, chosen.folder).serve_forever()


if __name__ == "__main__":
    main()
