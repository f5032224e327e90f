"""A plain handler of FastAPI over ONNX Runtime, as tutorials write it: decode, resize, run, answer."""

from __future__ import annotations

import argparse
import io

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, File, UploadFile
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("model", help="an ONNX file that takes n × 3 × side × side and gives logits")
parser.add_argument("--side", type=int, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--threads", type=int, required=True)
wanted = parser.parse_args()

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = wanted.threads
session = onnxruntime.InferenceSession(wanted.model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile = File()) -> dict[str, list[float]]:  # noqa: B008 - as FastAPI's own documentation writes it
    image = Image.open(io.BytesIO(file.file.read())).convert("RGB").resize((wanted.side, wanted.side))
    values = (np.asarray(image, dtype=np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    [logits] = session.run(None, {name: values})
    exponents = np.exp(logits[0] - logits[0].max())
    return {"probabilities": (exponents / exponents.sum()).tolist()}


uvicorn.run(app, host="127.0.0.1", port=wanted.port, log_level="warning")
