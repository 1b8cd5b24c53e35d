// Photos → pixels, without LibTorch.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

using Bytes = std::vector<std::uint8_t>;
using View = std::span<const std::uint8_t>;
using Size = std::array<int64_t, 2>;  // height and width

struct Image {
  Size size{};
  int channels = 3;          // 3: RGB, 4: RGBA
  Bytes pixels{};            // row by row, the channels of a pixel together
  int orientation = 1;       // of EXIF, 1 to 8; 1 is upright
  bool has_profile = false;  // a colour profile, which is not applied
};

// All functions throw std::exception if the file cannot be used.

// With `enough`, decodes a JPEG at a half, a quarter or an eighth of its size if its shorter side
// keeps at least that many pixels.
Image decode(View file, std::optional<int> enough);
Image decode_jpeg(View file, std::optional<int> enough);
Image decode_png(View file);
int orientation(View tiff);  // in EXIF, from "II" or "MM" on

// Resizes the pixels of an image, antialiased. The interpolation is called as in Pillow.
Bytes resample(const std::uint8_t* pixels, Size from, Size to, int64_t channels,
               const std::string& interpolation);
