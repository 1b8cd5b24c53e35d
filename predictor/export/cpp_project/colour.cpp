// Colour profiles → sRGB with Little CMS, as the server converts them.
#include <algorithm>
#include <array>
#include <cstdlib>

#include <lcms2.h>

#include "image.h"

namespace {
constexpr int kSame = 2;  // a profile that changes no colour by more is one of the many of sRGB
constexpr auto kFlags = cmsFLAGS_NOCACHE | cmsFLAGS_BLACKPOINTCOMPENSATION;
constexpr std::array kClasses{cmsSigInputClass, cmsSigDisplayClass, cmsSigOutputClass,
                              cmsSigColorSpaceClass};

bool changes(const Colours& colours) {
  Bytes before, after;
  for (int red = 0; red < 256; red += 17)
    for (int green = 0; green < 256; green += 17)
      for (int blue = 0; blue < 256; blue += 17)
        for (const int value : {red, green, blue}) before.push_back(value);
  after.resize(before.size());
  convert(colours, before.data(), after.data(), before.size() / 3);
  for (std::size_t i = 0; i < before.size(); ++i)
    if (std::abs(before[i] - after[i]) > kSame) return true;
  return false;
}
}  // namespace

void use_profile(Image& image, View profile) {
  const std::shared_ptr<void> from(cmsOpenProfileFromMem(profile.data(), profile.size()),
                                   [](void* one) { if (one) cmsCloseProfile(one); });
  const std::shared_ptr<void> to(cmsCreate_sRGBProfile(), cmsCloseProfile);
  Colours colours;
  if (from && cmsGetColorSpace(from.get()) == cmsSigRgbData &&
      std::ranges::count(kClasses, cmsGetDeviceClass(from.get())))
    colours.reset(cmsCreateTransform(from.get(), TYPE_RGB_8, to.get(), TYPE_RGB_8,
                                     INTENT_RELATIVE_COLORIMETRIC, kFlags),
                  [](void* one) { if (one) cmsDeleteTransform(one); });
  image.ignores_profile = !colours;
  if (colours && changes(colours)) image.colours = colours;
}

void convert(const Colours& colours, const std::uint8_t* from, std::uint8_t* to, std::size_t count) {
  cmsDoTransform(colours.get(), from, to, count);
}
