// Photos → pixels, without LibTorch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;
using Size = std::array<int64_t, 2>;  // height and width

using Colours = std::shared_ptr<void>;  // a transform to sRGB

struct Image {
  Size size{};
  int channels = 3;     // 3: RGB, 4: RGBA
  Bytes pixels{};       // row by row, the channels of a pixel together
  int orientation = 1;  // of EXIF, 1 to 8; 1 is upright
  Colours colours{};    // of a profile that is not sRGB's, to be applied to the pixels
  bool ignores_profile = false;
};

// All functions throw std::exception if the file cannot be used.

// With `enough`, decodes a JPEG at a half, a quarter or an eighth of its size if its shorter side
// keeps at least that many pixels.
Image decode(View file, std::optional<int> enough);
Image decode_jpeg(View file, std::optional<int> enough);
Image decode_png(View file);
void use_profile(Image&, View profile);  // one for RGB; ignores others, and damaged ones
int orientation(View tiff);  // in EXIF, from "II" or "MM" on

// Converts RGB pixels to sRGB.
void convert(const Colours&, const std::uint8_t* from, std::uint8_t* to, std::size_t count);

// Resizes the pixels of an image, antialiased. The interpolation is called as in Pillow.
Bytes resample(const std::uint8_t* pixels, Size from, Size to, int64_t channels,
               const std::string& interpolation);
