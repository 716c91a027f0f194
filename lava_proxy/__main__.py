"""``python -m lava_proxy``: the command line."""

from __future__ import annotations

from lava_proxy.cli.main import app

if __name__ == "__main__":
    app()
