#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include <jpeglib.h>

#include <jerror.h>

#include "image.h"

namespace {
constexpr int kApp1 = JPEG_APP0 + 1, kApp2 = JPEG_APP0 + 2;
constexpr std::string_view kExif{"Exif\0\0", 6};

struct Decoder : jpeg_decompress_struct {
  jpeg_error_mgr errors;
  bool file_ended = false, scan_ended = false;  // too early

  explicit Decoder(View file) {
    err = jpeg_std_error(&errors);
    errors.error_exit = fail;
    errors.emit_message = warn;
    jpeg_create_decompress(this);
    jpeg_mem_src(this, file.data(), file.size());
  }
  ~Decoder() { jpeg_destroy_decompress(this); }

  // The exception leaves libjpeg's C functions. They hold nothing that ~Decoder does not free.
  [[noreturn]] static void fail(j_common_ptr decoder) {
    char text[JMSG_LENGTH_MAX];
    decoder->err->format_message(decoder, text);
    throw std::runtime_error(std::string("the JPEG is damaged: ") + text);
  }
  static void warn(j_common_ptr common, int) {
    auto* decoder = static_cast<Decoder*>(reinterpret_cast<j_decompress_ptr>(common));
    if (common->err->msg_code == JWRN_JPEG_EOF) decoder->file_ended = true;
    if (common->err->msg_code == JWRN_HIT_MARKER) decoder->scan_ended = true;
  }
};

void read_metadata(Decoder& decoder, Image& image) {
  for (auto* marker = decoder.marker_list; marker; marker = marker->next) {
    const View content(marker->data, marker->data_length);
    const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
    if (text.starts_with(kExif)) image.orientation = orientation(content.subspan(kExif.size()));
  }
  JOCTET* profile = nullptr;
  unsigned size = 0;
  if (!jpeg_read_icc_profile(&decoder, &profile, &size)) return;
  if (decoder.num_components == 4) image.ignores_profile = true;
  else use_profile(image, {profile, size});
  std::free(profile);
}

// Repeats grey, and converts CMYK, which all programs write inverted, as Pillow does.
Bytes to_rgb(const Bytes& samples, int components) {
  Bytes rgb(samples.size() / components * 3);
  for (std::size_t from = 0, to = 0; to < rgb.size(); from += components, to += 3)
    for (int i = 0; i < 3; ++i) {
      const int light = samples[from + components - 1];
      const int ink = components == 1 ? 0 : 255 - samples[from + i];
      rgb[to + i] = light - (ink * light + 127) / 255;
    }
  return rgb;
}
}  // namespace

Image decode_jpeg(View file, std::optional<int> enough) {
  Decoder decoder(file);
  for (const int marker : {kApp1, kApp2}) jpeg_save_markers(&decoder, marker, 0xFFFF);
  jpeg_read_header(&decoder, TRUE);
  if (enough) {
    const int times = std::min(decoder.image_width, decoder.image_height) / *enough;
    decoder.scale_denom = times >= 8 ? 8 : times >= 4 ? 4 : times >= 2 ? 2 : 1;
  }
  const int components = decoder.num_components;
  decoder.out_color_space =
      components == 1 ? JCS_GRAYSCALE : components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&decoder);
  Image image{.size = {decoder.output_height, decoder.output_width}};
  read_metadata(decoder, image);
  const std::size_t row_size = std::size_t{decoder.output_width} * components;
  image.pixels.resize(row_size * decoder.output_height);
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW row = &image.pixels[decoder.output_scanline * row_size];
    jpeg_read_scanlines(&decoder, &row, 1);
  }
  // Some phones leave out the marker of the end only. A progressive file may lack a scan then.
  if (decoder.file_ended && (decoder.scan_ended || decoder.progressive_mode))
    throw std::runtime_error("the JPEG is truncated. Copy or download it again");
  if (components != 3) image.pixels = to_rgb(image.pixels, components);
  return image;
}
