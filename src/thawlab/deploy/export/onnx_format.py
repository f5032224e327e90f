"""ONNX: one file for ONNX Runtime, OpenVINO and others; in single precision, half precision, or 8 bits."""

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thawlab.cores import usable_cores
from thawlab.data.types import Pixels
from thawlab.deploy.export.formats import Exporter, Material, Outputs, Session, exporters, named
from thawlab.deploy.export.graph import ExportedGraph
from thawlab.deploy.export.torch_format import exported_program, quiet
from thawlab.errors import UsageError
from thawlab.files import write_atomically

ONNX_FILE = "model.onnx"
# The tensor of images at working size within the graph, where `predict`, which fits them itself, begins.
_FITTED = "fitted"
_OPSET = 18
# What is computed in 8 bits: the operators with weights, in the backbone alone. The head is small, and decides. With the cut
# behind a convolution left out, its output would be measured before the cut, and most of the 8 bits spent on what is cut off.
_WEIGHTED, _CUTS = ("Conv", "Gemm", "MatMul"), ("Clip", "Relu")
_BACKBONE, _HEAD = re.compile(r"'network\b"), re.compile(r"'network(\.\w+)?\.classifier\.head\b")
_BATCH = 32


def _model(material: Material, half: bool) -> Any:
    """Return the ONNX model of a classifier, with its description inside."""
    graph = ExportedGraph(material.model, half)
    names = material.card["outputs"]
    with quiet(), contextlib.redirect_stdout(None):
        program = torch.onnx.export(
            exported_program(graph), input_names=["images"], output_names=names, opset_version=_OPSET, dynamo=True
        )
    assert program is not None
    model = program.model_proto
    _name_fitted(model.graph)
    for key, value in {"thawlab": json.dumps(material.card), "classes": json.dumps(material.card["classes"])}.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _name_fitted(graph: Any) -> None:
    """Give the images at working size a name: what is multiplied by the scale of the normalisation."""
    [scaled] = [node for node in graph.node if node.op_type == "Mul" and "scale" in node.input]
    [old] = [name for name in scaled.input if name != "scale"]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_FITTED if name == old else name for name in names]
    for entry in graph.value_info:
        if entry.name == old:
            entry.name = _FITTED


def _stripped(model: Any) -> bytes:
    """Return a model's bytes without what the exporter notes about this machine's source files."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _write(material: Material, folder: Path, half: bool = False) -> None:
    content = _stripped(_model(material, half))
    write_atomically(folder / ONNX_FILE, lambda file: file.write(content))


def _write_int8(material: Material, folder: Path) -> None:
    """Write a model whose convolutions and products have weights and activations of 8 bits (Jacob et al. 2018)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = _model(material, half=False)
    aside = [node.name for node in model.graph.node if not _is_quantized(node)]
    if not any(node.op_type in _WEIGHTED and _is_quantized(node) for node in model.graph.node):
        raise UsageError(
            f"--format onnx-int8: '{material.model.card.architecture}' has no layer that could have 8 bits; take onnx"
        )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _batches(material.calibration)

        def get_next(self) -> dict[str, Pixels] | None:
            return next(self._batches, None)

    with tempfile.TemporaryDirectory() as place, quiet():
        before, after = Path(place) / "float.onnx", Path(place) / "int8.onnx"
        before.write_bytes(_stripped(model))
        quantize_static(
            before,
            after,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_WEIGHTED, *_CUTS],
            nodes_to_exclude=aside,
            per_channel=True,
            # Weights of 7 bits: without VNNI, sums of products of 8 bits overflow on x86.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        content = after.read_bytes()
    write_atomically(folder / ONNX_FILE, lambda file: file.write(content))


def _is_quantized(node: Any) -> bool:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "")
    return node.op_type in (*_WEIGHTED, *_CUTS) and bool(_BACKBONE.search(scopes)) and not _HEAD.search(scopes)


def _batches(images: Pixels) -> Iterator[dict[str, Pixels]]:
    for start in range(0, len(images), _BATCH):
        yield {"images": np.ascontiguousarray(images[start : start + _BATCH])}


def _open(folder: Path) -> Session:
    return _session(folder / ONNX_FILE, lambda images: {"images": images})


def _open_fitted(folder: Path) -> Session:
    import onnx
    from onnx.utils import Extractor

    model = onnx.load(folder / ONNX_FILE)
    if not any(_FITTED in node.output for node in model.graph.node):
        raise UsageError(f"{folder}: was exported by an earlier version; export it again with --force")
    part = Extractor(model).extract_model([_FITTED, "images"], [output.name for output in model.graph.output])

    def inputs(images: Pixels) -> dict[str, np.ndarray]:
        # Of the images as they were, the rest of the graph may want to know how many they are, and no more.
        return {_FITTED: images.astype(np.float32), "images": np.zeros((len(images), 1, 1, 3), np.uint8)}

    return _session(part.SerializeToString(), inputs)


def _session(model: Path | bytes, inputs: Callable[[Pixels], dict[str, np.ndarray]]) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 3  # errors alone
    # Threads that wait let go of their core: whatever decodes the next images, and the user's other work, has a use for it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def answer(images: Pixels) -> Outputs:
        return named(names, session.run(names, inputs(images)))

    return answer


_ONNX = Exporter(
    _write,
    _open,
    open_fitted=_open_fitted,
    library="onnx",
    runtime="onnxruntime",
    extra="onnx",
    modules=("onnx", "onnxruntime", "onnxscript"),
)
exporters.register("onnx")(_ONNX)
exporters.register("onnx-float16")(
    replace(_ONNX, write=partial(_write, half=True), tolerance=0.05, agreement=0.999, same_decisions=False)
)
exporters.register("onnx-int8")(replace(_ONNX, write=_write_int8, calibrated=True, same_decisions=False))
