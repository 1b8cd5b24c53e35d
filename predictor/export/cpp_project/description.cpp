#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stdexcept>

#include <caffe2/serialize/inline_container.h>
#include <nlohmann/json.hpp>

#include "classify.h"

using nlohmann::json;

namespace {
constexpr auto kFile = "extra/predictor.json";

void read_resize(const json& resize, Description& to) {
  to.target = resize.is_array() ? resize.get<Size>() : to.size;
  if (resize.is_number()) to.shorter_side = resize;
  to.pads = resize == "pad";
  to.resizes = resize != "none";
}

// A pixel is divided by the unit, and then the shift is subtracted.
void read_normalisation(const json& input, Description& to) {
  const std::string scale = input.at("scale");
  const float unit = scale == "0..255" ? 1 : scale == "-1..1" ? 127.5f : 255;
  const float shift = scale == "-1..1" ? 1 : 0;
  for (const float mean : input.at("mean")) to.offset.push_back((mean + shift) * unit);
  for (const float std : input.at("std")) to.divisor.push_back(std * unit);
}
}  // namespace

Description read_description(const std::string& model) {
  if (!std::filesystem::is_regular_file(model)) throw std::runtime_error("there is no such file");
  std::optional<caffe2::serialize::PyTorchStreamReader> archive;
  try {
    archive.emplace(model);
  } catch (const std::exception&) {
    throw std::runtime_error("it is not a model of PyTorch, or it is truncated");
  }
  if (!archive->hasRecord(kFile))
    throw std::runtime_error("it has no description. Write it with: predictor export cpp");
  const auto [text, size] = archive->getRecord(kFile);
  const char* begin = static_cast<const char*>(text.get());
  const json card = json::parse(begin, begin + size);
  const json &input = card.at("input"), &output = card.at("output"), &labels = card.at("labels");
  Description found;
  input.at("size").get_to(found.size);
  read_resize(input.at("resize"), found);
  input.at("interpolation").get_to(found.interpolation);
  input.at("channels").get_to(found.channels);
  read_normalisation(input, found);
  for (std::size_t index = 0; index < labels.size(); ++index) {
    const json& label = labels.at(std::to_string(index));
    found.labels.push_back({label.at(0), label.at(1)});
  }
  output.at("activation").get_to(found.activation);
  found.threshold = output.value("threshold", 2.0);
  return found;
}

std::vector<double> probabilities(const Description& from, const std::vector<float>& logits) {
  std::vector<double> found(logits.begin(), logits.end());
  if (from.activation == "softmax") {
    const double largest = *std::max_element(found.begin(), found.end());
    double sum = 0;
    for (double& value : found) sum += value = std::exp(value - largest);
    for (double& value : found) value /= sum;
  }
  if (from.activation == "sigmoid")
    for (double& value : found) value = 1 / (1 + std::exp(-value));
  for (double& value : found) value = std::clamp(value, 0.0, 1.0);
  if (found.size() == 1) found.insert(found.begin(), 1 - found[0]);
  if (found.size() != from.labels.size())
    throw std::runtime_error("its description has " + std::to_string(from.labels.size()) +
                             " labels, and it answers " + std::to_string(found.size()));
  return found;
}
