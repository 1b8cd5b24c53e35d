#include <algorithm>
#include <stdexcept>

#include <png.h>

#include "image.h"

namespace {
struct Decoder {
  View rest;
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, fail, ignore);
  png_infop info = png_create_info_struct(png);

  explicit Decoder(View file) : rest(file) { png_set_read_fn(png, &rest, read); }
  ~Decoder() { png_destroy_read_struct(&png, &info, nullptr); }

  // The exception leaves libpng's C functions. They hold nothing that ~Decoder does not free.
  [[noreturn]] static void fail(png_structp, png_const_charp text) {
    throw std::runtime_error(std::string("the PNG is damaged or truncated: ") + text);
  }
  static void ignore(png_structp, png_const_charp) {}  // a warning
  static void read(png_structp png, png_bytep to, std::size_t size) {
    View& rest = *static_cast<View*>(png_get_io_ptr(png));
    if (size > rest.size()) png_error(png, "the file ends");
    std::copy_n(rest.begin(), size, to);
    rest = rest.subspan(size);
  }
};
}  // namespace

Image decode_png(View file) {
  Decoder decoder(file);
  const auto [png, info] = std::pair(decoder.png, decoder.info);
  png_read_info(png, info);
  png_set_expand(png);  // palettes, grey below 8 bits; a transparent colour becomes alpha
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  Image image{.size = {png_get_image_height(png, info), png_get_image_width(png, info)},
              .channels = png_get_channels(png, info)};
  const std::size_t row_size = png_get_rowbytes(png, info);
  image.pixels.resize(row_size * image.size[0]);
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < image.size[0]; ++y) rows.push_back(&image.pixels[y * row_size]);
  png_read_image(png, rows.data());
  try {
    png_read_end(png, info);  // EXIF may follow the pixels
  } catch (const std::runtime_error&) {  // no pixel is missing
  }
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  if (png_get_eXIf_1(png, info, &size, &exif)) image.orientation = orientation({exif, size});
  png_charp name = nullptr;
  png_bytep profile = nullptr;
  int compression = 0;
  if (png_get_iCCP(png, info, &name, &compression, &profile, &size))
    use_profile(image, {profile, size});
  return image;
}
