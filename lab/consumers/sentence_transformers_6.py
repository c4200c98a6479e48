"""sentence-transformers 6: PyTorch, and OpenVINO through optimum-intel. Its ONNX backend cannot be installed."""

# needs: sentence-transformers[openvino]==6.2.0 torch==2.15.0

from lane import Embed, Job, lane, main

FLOAT32 = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}


def opened(job: Job, **options: object) -> tuple[Embed, Embed]:
    """Return its two functions for texts of documents and of queries."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(job.folder, device="cpu", **options)
    return model.encode_document, model.encode_query


@lane("torch")
def torch(job: Job) -> tuple[Embed, Embed]:
    """The folder's PyTorch weights."""
    return opened(job)


@lane("openvino", "openvino-fp32", 'backend="openvino"', "bfloat16 where the processor has it")
def openvino(job: Job) -> tuple[Embed, Embed]:
    """The file that it finds by itself, in the precision that OpenVINO chooses."""
    return opened(job, backend="openvino")


@lane(
    "openvino, float32",
    "openvino-fp32",
    'backend="openvino", model_kwargs={"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}',
)
def openvino_float32(job: Job) -> tuple[Embed, Embed]:
    """The same, computed in float32."""
    return opened(job, backend="openvino", model_kwargs=FLOAT32)


@lane(
    "openvino, int8",
    "openvino-int8",
    'model_kwargs={"file_name": "openvino/openvino_model_qint8_quantized.xml", "ov_config": …}',
)
def openvino_int8(job: Job) -> tuple[Embed, Embed]:
    """The int8 file by its name, computed in float32 where it is not int8."""
    return opened(job, backend="openvino", model_kwargs={**FLOAT32, "file_name": job.files["openvino-int8"]})


if __name__ == "__main__":
    main("sentence-transformers", "transformers", "optimum-intel", "openvino")
