#include <cstdlib>
#include <stdexcept>

#include <ATen/ATen.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include "classify.h"

namespace {
class Script : public Network {
 public:
  explicit Script(const std::string& path) : module_(torch::jit::load(path)) {
    module_.eval();
    const auto graph = module_.get_method("forward").graph()->copy();
    torch::jit::Inline(*graph);
    const bool reads_memory = graph->toString(false).find("aten::as_strided") != std::string::npos;
    set_format(reads_memory ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast);
  }

  at::Tensor run(const at::Tensor& batch) override {
    try {
      return module_.forward({batch.contiguous(format_)}).toTensor();
    } catch (const std::exception&) {  // such as of view(), which may need contiguous memory
      if (format_ == at::MemoryFormat::Contiguous) throw;
      set_format(at::MemoryFormat::Contiguous);
      return run(batch);
    }
  }

 private:
  torch::jit::Module module_;
  at::MemoryFormat format_;

  void set_format(at::MemoryFormat format) {
    format_ = format;
    for (auto weights : module_.parameters())
      if (weights.dim() == 4) weights.set_data(weights.contiguous(format));
  }
};

class Package : public Network {
 public:
  explicit Package(const std::string& path) : loader_(path) {}

  // A package for any number of images takes at least two.
  at::Tensor run(const at::Tensor& batch) override {
    const auto images = batch.contiguous();
    const bool one = images.size(0) == 1;
    try {
      if (!one || !pads_) return loader_.run({images}).at(0);
    } catch (const std::exception& error) {
      if (!one || std::string(error.what()).find("too small at 0") == std::string::npos) throw;
      pads_ = true;
    }
    return loader_.run({at::cat({images, images})}).at(0).narrow(0, 0, 1);
  }

 private:
  torch::inductor::AOTIModelPackageLoader loader_;
  bool pads_ = false;
};
}  // namespace

std::unique_ptr<Network> load(const std::string& model) {
  // The profiling executor would record the first passes, and compile the program again.
  torch::jit::setGraphExecutorOptimize(false);
  // Without these checks, native code reads beyond the memory of an image of another size.
  setenv("AOTI_RUNTIME_CHECK_INPUTS", "1", true);
  caffe2::serialize::PyTorchStreamReader archive(model);
  if (archive.hasRecord("constants.pkl")) return std::make_unique<Script>(model);
  for (const auto& name : archive.getAllRecords())
    if (name.starts_with("data/aotinductor/")) return std::make_unique<Package>(model);
  throw std::runtime_error("it is not compiled. Compile it: predictor export cpp --compile");
}
