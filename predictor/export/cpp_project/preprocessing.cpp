#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>

#include "classify.h"

namespace {
constexpr int kOversampling = 2, kMaxAspectRatio = 16;  // as in the server
// Pixels whose colours are converted before they are resized; of larger photos, afterwards.
constexpr int64_t kMaxExact = 200'000;

// A quotient by 255, rounded, as Pillow computes it.
at::Tensor round_255(const at::Tensor& value) { return (value + 127).floor_divide(255); }

// Whole numbers: (height, width, C) int32.
at::Tensor wide(const at::Tensor& pixels) { return pixels.to(at::kInt); }

at::Tensor alpha_of(const at::Tensor& rgba) { return wide(rgba.slice(2, 3, 4)); }

at::Tensor upright(at::Tensor pixels, int orientation) {
  if (orientation >= 5 && orientation <= 8) pixels = pixels.transpose(0, 1);
  if (orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8)
    pixels = pixels.flip(0);
  if (orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7)
    pixels = pixels.flip(1);
  return pixels;
}

at::Tensor over_white(const at::Tensor& rgba) {
  const auto alpha = alpha_of(rgba);
  return round_255(255 * (255 - alpha) + wide(rgba.slice(2, 0, 3)) * alpha).to(at::kByte);
}

at::Tensor to_grey(const at::Tensor& rgb) {
  const auto weights = at::tensor({19595, 38470, 7471}, at::kInt);  // of ITU-R BT.601, × 65536
  return ((wide(rgb) * weights).sum(2, true, at::kInt) + 0x8000).floor_divide(0x10000).to(at::kByte);
}

Size size_of(const at::Tensor& pixels) { return {pixels.size(0), pixels.size(1)}; }

// The size after resizing.
Size resized(Size size, const Description& to) {
  if (to.shorter_side) {
    const int64_t shorter = std::min(size[0], size[1]);
    return {to.shorter_side * size[0] / shorter, to.shorter_side * size[1] / shorter};
  }
  if (!to.pads) return to.target;
  const double scale = std::max(double(size[0]) / to.size[0], double(size[1]) / to.size[1]);
  for (int64_t& side : size) side = std::max(1.0, std::nearbyint(side / scale));
  return size;
}

// The centre of a very long image. Its longer side is at most 16 times the shorter one, counted
// from the proportions of what the model takes.
at::Tensor cut_long(const at::Tensor& pixels, const Description& to) {
  const auto [high, wide] = to.target;
  const auto most = [&](int64_t one, int64_t other, int64_t side) {
    const double ratio = double(one) / (to.shorter_side ? to.shorter_side : other);
    return int64_t(std::ceil(kMaxAspectRatio * std::max(1.0, ratio) * side));
  };
  const auto [height, width] = size_of(pixels);
  const int64_t kept_rows = std::min(height, most(high, wide, width));
  const int64_t kept_columns = std::min(width, most(wide, high, height));
  return pixels.narrow(0, (height - kept_rows) / 2, kept_rows)
      .narrow(1, (width - kept_columns) / 2, kept_columns);
}

at::Tensor resize(const at::Tensor& pixels, Size to, const std::string& interpolation) {
  const auto from = pixels.contiguous();
  const int64_t channels = from.size(2);
  Bytes found =
      resample(from.const_data_ptr<std::uint8_t>(), size_of(from), to, channels, interpolation);
  return at::from_blob(found.data(), {to[0], to[1], channels}, at::kByte).clone();
}

// Colours count by their alpha while they are mixed.
at::Tensor resize_rgba(const at::Tensor& rgba, Size to, const std::string& interpolation) {
  const auto weighted = round_255(wide(rgba.slice(2, 0, 3)) * alpha_of(rgba)).to(at::kByte);
  const auto mixed = resize(at::cat({weighted, rgba.slice(2, 3, 4)}, 2), to, interpolation);
  const auto alpha = alpha_of(mixed), colours = wide(mixed.slice(2, 0, 3));
  const auto divided = (colours * 255).floor_divide(alpha.clamp_min(1)).clamp_max(255);
  return at::cat({at::where(alpha == 0, colours, divided), alpha}, 2).to(at::kByte);
}

// How many of an axis' pixels the centre of the resized image is made of.
int64_t used(int64_t from, int64_t resized, int64_t cut) {
  const double scale = double(from) / resized;
  const int64_t reach = 1 + 2 * std::ceil(std::max(1.0, scale));
  const int64_t first =
      resized >= cut ? std::nearbyint((resized - cut) / 2.0) : -((cut - resized) / 2);
  const int64_t begin = std::floor(first * scale), end = std::ceil((first + cut) * scale);
  return std::min(from, end + reach) - std::max<int64_t>(0, begin - reach);
}

at::Tensor to_srgb(const at::Tensor& pixels, const Colours& colours) {
  const auto from = pixels.slice(2, 0, 3).contiguous(), found = at::empty_like(from);
  convert(colours, from.const_data_ptr<std::uint8_t>(), found.mutable_data_ptr<std::uint8_t>(),
          from.numel() / 3);
  return at::cat({found, pixels.slice(2, 3)}, 2);
}

// Cuts the centre of an axis to this length, or pads it with black: as torchvision's CenterCrop.
at::Tensor centre(const at::Tensor& pixels, int64_t axis, int64_t length) {
  const int64_t found = pixels.size(axis), missing = length - found;
  if (missing <= 0) return pixels.narrow(axis, std::nearbyint(-missing / 2.0), length);
  std::vector<int64_t> padding(2 * (3 - axis), 0);  // from the last axis on
  padding[padding.size() - 2] = missing / 2, padding[padding.size() - 1] = missing - missing / 2;
  return at::constant_pad_nd(pixels, padding);
}
}  // namespace

std::optional<int> enough(const Description& to) {
  if (!to.resizes) return {};
  return kOversampling * (to.shorter_side ? to.shorter_side : std::max(to.target[0], to.target[1]));
}

at::Tensor prepare(const Image& image, const Description& to) {
  const auto [high, wide] = image.size;
  auto pixels = at::from_blob(const_cast<std::uint8_t*>(image.pixels.data()),
                              {high, wide, image.channels}, at::kByte);
  pixels = upright(pixels, image.orientation);
  if (!to.resizes && size_of(pixels) != to.size)
    throw std::runtime_error("the model takes photos of " + std::to_string(to.size[1]) + " × " +
                             std::to_string(to.size[0]) + " pixels only. Resize it first");
  if (image.channels == 4 && to.channels != "RGBA") pixels = over_white(pixels);
  pixels = cut_long(pixels, to);
  const Size from = size_of(pixels), target = resized(from, to);
  const bool few = used(from[0], target[0], to.size[0]) * used(from[1], target[1], to.size[1]) <=
                   kMaxExact;
  const bool early = image.colours && few && pixels.size(2) == 3;
  const bool late = image.colours && !early;
  if (early) pixels = to_srgb(pixels, image.colours);
  if (to.channels == "L" && !late) pixels = to_grey(pixels);
  const auto function = pixels.size(2) == 4 ? resize_rgba : resize;
  pixels = function(pixels, target, to.interpolation);
  if (late) pixels = to_srgb(pixels, image.colours);
  if (to.channels == "L" && late) pixels = to_grey(pixels);
  if (to.channels == "RGBA" && pixels.size(2) == 3)
    pixels = at::cat({pixels, at::full_like(pixels.slice(2, 0, 1), 255)}, 2);
  pixels = centre(centre(pixels, 0, to.size[0]), 1, to.size[1]);
  return to.channels == "BGR" ? pixels.flip(2) : pixels;
}

at::Tensor batch(const std::vector<at::Tensor>& pixels, const Description& to) {
  const auto offset = at::tensor(to.offset), divisor = at::tensor(to.divisor);
  return ((at::stack(pixels).to(at::kFloat) - offset) / divisor).permute({0, 3, 1, 2});
}
