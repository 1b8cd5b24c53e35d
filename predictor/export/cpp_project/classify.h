// Pixels → batch → logits → probabilities.
#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "image.h"

struct Label {
  std::string id, name;
};

// What predictor.json in a model's file says: what the model takes, and what it answers.
struct Description {
  Size size;                 // of what the model takes
  int64_t shorter_side = 0;  // after resizing; 0: `target` counts
  Size target;               // after resizing
  bool pads = false;         // fits into `target`, and keeps its proportions
  bool resizes = true;       // otherwise, photos must have the size
  std::string interpolation, channels;
  std::vector<float> offset, divisor;  // (pixel - offset) / divisor normalises 0 to 255
  std::vector<Label> labels;
  std::string activation;
  double threshold;  // the least probability of further classes; above 1: only the best counts
};

// All functions throw std::exception if the model or the image cannot be used.

Description read_description(const std::string& model);

// (N,) logits → (classes,) probabilities; one logit is that of the second of two classes.
std::vector<double> probabilities(const Description&, const std::vector<float>& logits);

std::optional<int> enough(const Description&);  // for decode()

// Turns an image upright, resizes it, and cuts out or pads the centre: (height, width, C) uint8.
at::Tensor prepare(const Image&, const Description&);

// Normalises N images: (N, C, height, width) float32, channels last in memory.
at::Tensor batch(const std::vector<at::Tensor>& pixels, const Description&);

struct Network {
  virtual ~Network() = default;
  virtual at::Tensor run(const at::Tensor& batch) = 0;  // → (N, outputs)
};

// Loads TorchScript (.pt), or a package of AOTInductor (.pt2).
std::unique_ptr<Network> load(const std::string& model);
