"""A session on one model file in a JavaScript client, the same for every environment and version."""

import base64
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bge_export.contracts import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING, Artifact, TokenBatch
from bge_export.errors import ArtifactError, ClientError
from bge_export.files.proc import peak_bytes
from bge_export.heads.dense import dense_head
from bge_export.javascript.clients import Client
from bge_export.javascript.process import Link, ProcessLink


class ClientsSession:
    """One model file, opened in one slot of a client."""

    def __init__(
        self,
        link: Link,
        artifact: Artifact,
        client: Client,
        facts: Mapping[str, str],
        resources: ExitStack,
        slot: int = 0,
    ) -> None:
        """Wrap one slot of an open client; closing the session closes `resources`."""
        self._link = link
        self._artifact = artifact
        self._client = client
        self._resources = resources
        self._slot = slot
        self.facts = facts

    def run(self, batch: TokenBatch) -> Mapping[str, NDArray[np.float32]]:
        """Return the graph's outputs, as the client's model class gives them.

        Raises:
            ArtifactError: an output is not float32; clients would pool it as if it were.
            ClientError: the client failed.
        """
        answer = self._ask("run", outputs=list(self._artifact.outputs), **self._feed(batch))
        return {name: self._float32(name, given) for name, given in answer["outputs"].items()}

    def seconds(self, batch: TokenBatch, least: float) -> float:
        """Return the median duration of a run in seconds by the client's own clock, over `least` seconds of runs.

        Raises:
            ClientError: the client failed.
        """
        return float(self._ask("time", least=least, **self._feed(batch))["seconds"])

    def _ask(self, op: str, **fields: object) -> Mapping[str, Any]:
        request: dict[str, Any] = {"slot": self._slot, **fields}
        return self._link.ask(op, **request)

    def _feed(self, batch: TokenBatch) -> dict[str, Any]:
        arrays = batch.feed(("input_ids", "attention_mask", "token_type_ids"))
        flat = {name: array.ravel().tolist() for name, array in arrays.items()}
        return {"names": list(self._artifact.inputs), "dims": list(batch.input_ids.shape), "arrays": flat}

    def _float32(self, name: str, given: Mapping[str, Any]) -> NDArray[np.float32]:
        if given["type"] != "float32":
            raise ArtifactError(
                f"{self._artifact.model} gives {name} as {given['type']}, which clients pool as if it were float32. "
                "Export it again with float32 outputs."
            )

        return _decoded(given)

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the token ids that the client's own tokenizer produces for each text."""
        return [tuple(ids) for ids in self._ask("tokenize", texts=list(texts))["ids"]]

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Return the embedding of a text by the client's native pipeline, [D] float32.

        Clients without CLS pooling return token states, which their users pool by hand, as here the head does. No
        pipeline knows the layers that follow pooling: users take the graph's own embedding from the model.
        """
        if dense_head(self._artifact.spec).in_graph:
            return self._own_embedding(self.tokenize([text])[0])

        by_hand = not self._client.cls
        given = _decoded(self._ask("embed", text=text, by_hand=by_hand))
        if by_hand:
            mask = np.ones(given.shape[:2], dtype=np.int64)
            given = dense_head(self._artifact.spec).rows({LAST_HIDDEN_STATE: given}, mask)[LAST_HIDDEN_STATE]

        (row,) = given
        return np.asarray(row)

    def _own_embedding(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the embedding that the graph gives for token ids, [D] float32."""
        row = np.asarray([ids], dtype=np.int64)
        (embedding,) = self.run(TokenBatch(row, np.ones_like(row), np.zeros_like(row)))[SENTENCE_EMBEDDING]
        return np.asarray(embedding)

    def usage(self) -> tuple[float, int | None]:
        """Return the CPU seconds that the client has used since its start, and its peak memory in bytes if known."""
        return float(self._ask("usage")["cpu_seconds"]), self.peak_bytes()

    def peak_bytes(self) -> int | None:
        """Return the client's peak memory in bytes; None if the system or the environment does not report it.

        A browser's pages run in child processes, whose memory the main process does not count.
        """
        return peak_bytes(self._link.pid) if isinstance(self._link, ProcessLink) else None

    def close(self) -> None:
        """Stop the client."""
        self._resources.close()


def _decoded(given: Mapping[str, Any]) -> NDArray[np.float32]:
    """Return the float32 array of an answer.

    Raises:
        ClientError: the answer does not contain valid base64 of float32 values in the shape that it names.
    """
    try:
        values = np.frombuffer(base64.b64decode(str(given["values"]), validate=True), dtype="<f4")
        return values.astype(np.float32).reshape(given["dims"])
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError(f"the client's answer holds no float32 values: {error}") from error
