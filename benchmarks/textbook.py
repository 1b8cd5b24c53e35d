"""An app like those in tutorials, with which the benchmark compares the predictor."""

import os
from io import BytesIO

import torch
import torchvision
from flask import Flask, Response, jsonify, request
from PIL import Image
from torchvision import transforms

from predictor.models.labels import load_labels

app = Flask(__name__)
labels = load_labels()
model = torchvision.models.get_model(os.environ["BENCH_MODEL"])
model.load_state_dict(torch.load(os.environ["BENCH_WEIGHTS"]))
model.eval()
transform = transforms.Compose(
    [
        transforms.Resize(255),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


@app.get("/readyz")
def readyz() -> str:
    """Answer 200: the benchmark polls this endpoint to learn that the server is up."""
    return "ready"


@app.post("/predict")
def predict() -> Response:
    """Classify one photo, as tutorials do."""
    image = Image.open(BytesIO(request.get_data())).convert("RGB")
    with torch.no_grad():
        index = model(transform(image).unsqueeze(0)).argmax(1).item()
    return jsonify(class_id=labels[index].class_id, class_name=labels[index].class_name)
