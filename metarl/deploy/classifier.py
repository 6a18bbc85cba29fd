"""Runs a few-shot learner that `metarl export` wrote; needs Python 3.10, numpy and onnxruntime, and nothing else.

    from metarl_classifier import Classifier

    classifier = Classifier("cards.onnx")
    classifier.learn(images, ["hearts", "hearts", "spades", "spades"])  # unless exported with a support set
    classifier.predict(new_images)

`metarl export` copies this file beside the model. Inputs are arrays [row, *input] as in training; bytes stand for
numbers in [0, 1].
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

METADATA, SCORES = "metarl_learner", "metarl_scores"
VERSION = 1
_AT_ONCE = 500


class Classifier:
    """Learns one task from labelled examples, if it was not exported for one, and predicts.

    Args:
        path: Model that `metarl export` wrote.
        num_threads: Number of threads of the networks.

    Attributes:
        card: Description of the learner and its training, as the JSON file beside the model has it.
        classes: Names of the classes in the order of the scores; None for numbers, or before any were learned.

    Raises:
        ValueError: If the file is no such model.
    """

    def __init__(self, path: str | Path, *, num_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1

        def session(content: bytes) -> Any:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

        try:
            self._network = session(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"cannot read the model {path}: {error.strerror}") from error
        except Exception as error:  # the library raises errors of its own
            raise ValueError(f"{path} is no ONNX model that can be run: {str(error).splitlines()[:1]}") from error
        texts = self._network.get_modelmeta().custom_metadata_map
        if METADATA not in texts:
            raise ValueError(f"{path} is an ONNX model, but no few-shot learner that metarl export wrote")
        self.card: dict[str, Any] = json.loads(texts[METADATA])
        if self.card["version"] != VERSION:
            raise ValueError(
                f"{path} has version {self.card['version']}, this file reads {VERSION}; copy the one beside it"
            )
        self._scores = session(base64.b64decode(texts[SCORES])) if SCORES in texts else None
        self._support: dict[str, np.ndarray] | None = None
        self.classes: list[Any] | None = self.card["classes"]

    def learn(self, inputs: Any, labels: Sequence[Any] | np.ndarray) -> None:
        """Learn a task, instead of any before.

        Args:
            inputs: Examples [row, *input].
            labels: Class of every example, of any kind that sorts; or numbers [row, out], of a learner of numbers.

        Raises:
            TypeError: If the model was exported for one task.
            ValueError: If examples or labels do not have the learner's shapes, or there is but one class.
        """
        if self._scores is None:
            raise TypeError("this model was exported for one support set; export it without one to learn others")
        features = self._run(inputs)
        if len(labels) != len(features):
            raise ValueError(f"expected as many labels as examples, got {len(labels)} and {len(features)}")
        if self.card["kind"] == "regression":
            values = np.asarray(labels, np.float32)
            if values.ndim != 2 or not np.isfinite(values).all():
                raise ValueError(f"expected finite numbers [row, out], got {values.shape}")
        else:
            names, places = np.unique(np.asarray(labels), return_inverse=True)
            if len(names) < 2:
                raise ValueError(f"expected two classes or more, got {len(names)}")
            values = places.reshape(-1, 1) == np.arange(len(names))
            self.classes = names.tolist()
        self._support = {"support": features, "targets": values}

    def scores(self, inputs: Any) -> np.ndarray:
        """The learner's outputs [row, class], or the predicted numbers [row, out].

        Raises:
            RuntimeError: If nothing was learned before.
            ValueError: If inputs do not have the learner's shape.
            FloatingPointError: If an output is not finite.
        """
        outputs = self._run(inputs)
        if self._scores is not None:
            if self._support is None:
                raise RuntimeError("nothing was learned yet: call learn with labelled examples before")
            (outputs,) = self._scores.run(["scores"], {**self._support, "query": outputs})
        if np.isnan(outputs).any():
            raise FloatingPointError("a score is not a number")
        scores: np.ndarray = outputs
        return scores

    def probabilities(self, inputs: Any) -> np.ndarray:
        """The softmax of the scores, [row, class]."""
        scores = self.scores(inputs).astype(float)
        powers = np.exp(scores - scores.max(1, keepdims=True))
        probabilities: np.ndarray = powers / powers.sum(1, keepdims=True)
        return probabilities

    def predict(self, inputs: Any) -> Any:
        """The most probable class of every row as a list, or the predicted numbers [row, out]."""
        scores = self.scores(inputs)
        if self.card["kind"] == "regression":
            return scores
        names = range(scores.shape[1]) if self.classes is None else self.classes
        return [names[place] for place in scores.argmax(1)]

    def _run(self, inputs: Any) -> np.ndarray:
        """The network's outputs; all rows together only where they depend on each other."""
        rows, form = np.asarray(inputs), self.card["input"]
        if rows.ndim == 0 or list(rows.shape[1:]) != form["shape"] or len(rows) == 0:
            raise ValueError(f"expected inputs of shape [row, {str(form['shape'])[1:]}, got {list(rows.shape)}")
        if rows.dtype.kind not in "fiub":
            raise ValueError(f"expected numbers, got {rows.dtype}")
        if rows.dtype == np.uint8 and form["dtype"] == "float32":
            rows = rows.astype(np.float32) / 255
        rows = rows.astype(form["dtype"])
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise ValueError("expected finite inputs")
        size = len(rows) if self.card["transductive"] else _AT_ONCE
        pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
        return np.concatenate([self._network.run(None, {"inputs": piece})[0] for piece in pieces])
