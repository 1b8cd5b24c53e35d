"""An app like those in tutorials, with which the benchmark compares the predictor."""

import torch
from flask import Flask, Response, jsonify, request

from benchmarks.network import answer, pixels, served

app = Flask(__name__)
model = served()


@app.get("/readyz")
def readyz() -> str:
    """Answer 200: the benchmark polls this endpoint to learn that the server is up."""
    return "ready"


@app.post("/predict")
def predict() -> Response:
    """Classify one photo, as tutorials do."""
    with torch.no_grad():
        index = model(pixels(request.get_data()).unsqueeze(0)).argmax(1).item()
    return jsonify(answer(index))
