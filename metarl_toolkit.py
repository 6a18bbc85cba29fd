"""Entry of the command `metarl`, outside the package: it answers also where the package cannot be imported."""

import sys

REMEDY = (
    "PyPI's metarl is another project with the same import name; run: pip uninstall metarl, "
    "then: pip install --force-reinstall --no-deps metarl-toolkit"
)


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        # Inside, because the imports are what can fail; the other project has no __all__.
        from metarl import __all__  # noqa: F401, PLC0415
        from metarl.experiments.cli import main as command  # noqa: PLC0415
    except KeyboardInterrupt:
        print("metarl: interrupted", file=sys.stderr)
        return 130
    except ImportError:
        from importlib.metadata import distributions  # noqa: PLC0415

        # As in metarl/__init__.py, which the other project's may have replaced: only ours has a command.
        if all(other.entry_points for other in distributions(name="metarl")):
            raise
        print(f"metarl: error: {REMEDY}", file=sys.stderr)
        return 1
    return command()
