// classify MODEL PHOTO…: print the best class of each photo.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>
#include <stdexcept>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <nlohmann/json.hpp>

#include "classify.h"

using nlohmann::json;

namespace {
constexpr auto kUsage =
    "Usage: classify [--json] [--batch N] [--threads N] MODEL PHOTO…\n"
    "Print the path, class id, class name and probability of each JPEG or PNG.\n"
    "  PHOTO        -: paths from standard input, one a line; an empty line ends a batch\n"
    "  --json       print JSON with all logits, and the milliseconds of the batch's forward pass\n"
    "  --batch N    photos in one forward pass (default: 8)\n"
    "  --threads N  threads of a forward pass (default: one per processor)\n"
    "Exit status: 0 all photos are done, 2 the model or a photo cannot be used.\n";

struct Options {
  bool json = false;
  std::size_t batch = 8;
  int threads = 0;
  std::vector<std::string> paths;  // of the model and the photos
};

int number(const std::string& option, const std::string& text) {
  const bool digits = text.find_first_not_of("0123456789") == text.npos;
  if (!digits || text.empty() || text.size() > 4 || std::stoi(text) == 0)
    throw std::invalid_argument(option + " needs a number from 1 to 9999");
  return std::stoi(text);
}

Options read_options(const std::vector<std::string>& arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& one = arguments[i];
    const std::string next = i + 1 < arguments.size() ? arguments[i + 1] : "";
    if (one == "--json") options.json = true;
    else if (one == "--batch") options.batch = number(one, next), ++i;
    else if (one == "--threads") options.threads = number(one, next), ++i;
    else if (one.starts_with("--")) throw std::invalid_argument("there is no option " + one);
    else options.paths.push_back(one);
  }
  if (options.paths.size() < 2) throw std::invalid_argument("a model and a photo are needed");
  return options;
}

void complain(const std::string& path, const std::string& sentence) {
  std::cerr << "classify: " << path << ": " << sentence << ".\n";
}

// What went wrong, without LibTorch's stack traces.
std::string reason(const std::exception& error) {
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch ? torch->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

class Classifier {
 public:
  explicit Classifier(const Options& options)
      : description_(read_description(options.paths[0])),
        network_(load(options.paths[0])),
        json_(options.json) {}

  // Returns whether all photos are done. Says on stderr why others are not.
  bool classify(const std::vector<std::string>& paths) {
    std::vector<std::string> done;
    std::vector<at::Tensor> pixels;
    for (const auto& path : paths) try {
        pixels.push_back(read(path));
        done.push_back(path);
      } catch (const std::exception& error) {
        complain(path, reason(error));
        if (json_) std::cout << json{{"photo", path}, {"error", reason(error)}} << std::endl;
      }
    if (!done.empty()) answer(done, batch(pixels, description_));
    return done.size() == paths.size();
  }

 private:
  at::Tensor read(const std::string& path) const {
    std::ifstream file(path, std::ios::binary);
    const Bytes bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file) throw std::runtime_error("the file cannot be read");
    const Image image = decode(bytes, enough(description_));
    if (image.ignores_profile) complain(path, "its colour profile is ignored");
    return prepare(image, description_);
  }

  void answer(const std::vector<std::string>& paths, const at::Tensor& images) {
    const auto began = std::chrono::steady_clock::now();
    const auto logits = network_->run(images).to(at::kFloat).flatten(1).contiguous();
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - began;
    for (std::size_t i = 0; i < paths.size(); ++i) {
      const float* row = logits.const_data_ptr<float>() + i * logits.size(1);
      print(paths[i], {row, row + logits.size(1)}, ms.count());
    }
    std::cout.flush();
  }

  // Prints the best class; where several can be right, also all others from the threshold on.
  void print(const std::string& path, const std::vector<float>& logits, double ms) const {
    const auto found = probabilities(description_, logits);
    std::vector<std::size_t> order(found.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return found[a] > found[b]; });
    for (const std::size_t index : order) {
      const auto& [id, name] = description_.labels[index];
      if (index != order[0] && (json_ || found[index] < description_.threshold)) break;
      if (json_)
        std::cout << json{{"photo", path}, {"class_id", id}, {"class_name", name},
                          {"probability", found[index]}, {"logits", logits}, {"forward_ms", ms}}
                  << '\n';
      else
        std::cout << path << '\t' << id << '\t' << name << '\t' << found[index] << '\n';
    }
  }

  Description description_;
  std::unique_ptr<Network> network_;
  bool json_;
};

bool classify_all(Classifier& classifier, const Options& options) {
  bool good = true;
  std::vector<std::string> paths;
  const auto add = [&](const std::string& path) {  // "" ends a batch
    if (!path.empty()) paths.push_back(path);
    if (path.empty() || paths.size() == options.batch) {
      good &= classifier.classify(paths);
      paths.clear();
    }
  };
  for (std::size_t i = 1; i < options.paths.size(); ++i)
    if (options.paths[i] != "-") add(options.paths[i]);
    else for (std::string line; std::getline(std::cin, line);) add(line);
  add("");
  return good;
}
}  // namespace

int main(int count, char** arguments) {
  Options options;
  try {
    options = read_options({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    std::cerr << "classify: " << error.what() << ".\n" << kUsage;
    return 2;
  }
  try {
    // As in the server: with denormal weights, some processors compute several times as slowly.
    at::globalContext().setFlushDenormal(true);
    if (options.threads) at::set_num_threads(options.threads);
    const c10::InferenceMode without_gradients;
    Classifier classifier(options);
    return classify_all(classifier, options) ? 0 : 2;
  } catch (const std::exception& error) {
    complain(options.paths[0], reason(error));
    return 2;
  }
}
