"""The program `thawlab`, also `python -m thawlab`."""

from thawlab import process


def run() -> None:
    """Run the command line in a process of its own."""
    process.prepare()
    from thawlab.cli.main import app

    code: object = 0
    try:
        app()
    except SystemExit as leaving:
        code = leaving.code
    process.leave(code)


if __name__ == "__main__":
    run()
