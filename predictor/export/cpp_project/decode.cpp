#include <stdexcept>
#include <string_view>

#include "image.h"

namespace {
constexpr int kOrientation = 0x0112, kLong = 4;  // a tag, and a type of 32 bits
}

Image decode(View file, std::optional<int> enough) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (text.starts_with("\xFF\xD8\xFF")) return decode_jpeg(file, enough);
  if (text.starts_with("\x89PNG")) return decode_png(file);
  throw std::runtime_error("this is neither a JPEG nor a PNG. Convert it to one of them");
}

int orientation(View tiff) {
  const bool big_endian = !tiff.empty() && tiff[0] == 'M';
  const auto number = [&](std::size_t at, int size) {  // bytes behind the end are 0
    std::size_t value = 0;
    for (int i = 0; i < size; ++i) {
      const std::size_t place = at + (big_endian ? i : size - 1 - i);
      value = value << 8 | (place < tiff.size() ? tiff[place] : 0);
    }
    return value;
  };
  const std::size_t directory = number(4, 4), entries = number(directory, 2);
  for (std::size_t at = directory + 2; at < directory + 2 + 12 * entries; at += 12)
    if (number(at, 2) == kOrientation) return number(at + 8, number(at + 2, 2) == kLong ? 4 : 2);
  return 1;
}
