// Executes a lowered network on one image after the other, in integers.
//
// Every tensor is int32 (height, width, channels), dense. A convolution copies its input into a
// padded map of int16 first; products of pairs of int16 are added in int32. The caller guarantees
// that operands fit int16, that no weight is -2^15, and that every sum fits int32.

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

using Word = std::int32_t;
using Half = std::int16_t;
using Long = std::int64_t;

#if defined(__AVX512BW__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef Word Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// Each lane holds a pair of int16: sum + low * low + high * high.
inline Vector add_pairs(Vector sum, Vector a, Vector b) {
#if defined(__AVX512BW__)
  return sum + (Vector)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return sum + (Vector)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

enum Kind : Long { INPUT, CONV, LINE, COMPARE, POOL_MAX, POOL_SUM, ADD, GATHER };

// As ctypes writes it; what a kind does not use is 0.
struct Op {
  Long kind;
  const Word *a, *b;  // inputs
  Word* out;
  Long channels, height, width;              // of a; of a convolution with groups, all of them
  Long out_channels, out_height, out_width;  // of a convolution with groups, of the group
  Long kernel[2], strides[2], pads[2], dilations[2];
  const void *first, *second;  // arrays of parameters
  Long count, stride;          // steps of a convolution; thresholds; channels of its whole output
  Half* padded;                // a convolution's input with its padding, whose zeros stay
  Long padded_width;
  Long fills;  // whether the convolution copies its input there; whether copies leave a base
  Long base, step;
  float low, high, least, most;  // clips of codes; range of the image
};

// Codes clip(rint(x / scale)) of an image (C, H, W), divided and rounded as NumPy does.
bool input(const Op& op, const float* image) {
  const auto* scale = static_cast<const float*>(op.first);
  const Long pixels = op.height * op.width;
  bool inside = true;
  for (Long c = 0; c < op.channels; c++)
    for (Long i = 0; i < pixels; i++) {
      const float x = image[c * pixels + i];
      inside &= x >= op.least && x <= op.most;
      float code = x / scale[c * pixels + i];
      code = code < op.low ? op.low : code > op.high ? op.high : code;
      op.out[i * op.channels + c] = static_cast<Word>(__builtin_rintf(code));
    }
  return inside;
}

// BLOCK pixels (those beyond the last are the last again) by DEPTH vectors of output channels.
template <int BLOCK, int DEPTH>
inline void block(const Op& op, const Half* const* pixels, Long used, Long channel, Word* out) {
  const auto* weights = static_cast<const Half*>(op.first) + 2 * channel * op.count;
  const auto* offsets = static_cast<const Word*>(op.second);
  Vector sums[BLOCK][DEPTH] = {};
  for (Long k = 0; k < op.count; k++) {
    Vector w[DEPTH];
    for (int d = 0; d < DEPTH; d++)
      w[d] = *reinterpret_cast<const Vector*>(weights + 2 * LANES * (d * op.count + k));
    for (int p = 0; p < BLOCK; p++) {
      Word pair;
      std::memcpy(&pair, pixels[p] + offsets[k], sizeof pair);
      const Vector x = Vector{} + pair;
      for (int d = 0; d < DEPTH; d++) sums[p][d] = add_pairs(sums[p][d], x, w[d]);
    }
  }
  const Long left = op.out_channels - channel;
  for (int p = 0; p < BLOCK; p++)
    for (int d = 0; d < DEPTH && p < used; d++) {
      Word* to = out + p * op.stride + channel + d * LANES;
      if (left - d * LANES >= LANES)
        *reinterpret_cast<Vector*>(to) = sums[p][d];
      else
        std::memcpy(to, &sums[p][d], (left - d * LANES) * sizeof(Word));
    }
}

template <int BLOCK>
inline void blocks(const Op& op) {
  const Long pixels = op.out_height * op.out_width;
  for (Long start = 0; start < pixels; start += BLOCK) {
    const Long used = pixels - start < BLOCK ? pixels - start : BLOCK;
    const Half* from[BLOCK];
    for (Long p = 0; p < BLOCK; p++) {
      const Long at = start + (p < used ? p : used - 1);
      const Long y = at / op.out_width * op.strides[0], x = at % op.out_width * op.strides[1];
      from[p] = op.padded + (y * op.padded_width + x) * op.channels;
    }
    Word* out = op.out + start * op.stride;
    Long channel = 0;
    for (; op.out_channels - channel > LANES; channel += 2 * LANES)
      block<BLOCK, 2>(op, from, used, channel, out);
    if (channel < op.out_channels) block<BLOCK, 1>(op, from, used, channel, out);
  }
}

void convolution(const Op& op) {
  const Long row = op.width * op.channels;
  for (Long y = 0; op.fills && y < op.height; y++) {
    const Word* in = op.a + y * row;
    Half* __restrict to =
        op.padded + ((y + op.pads[0]) * op.padded_width + op.pads[1]) * op.channels;
    for (Long i = 0; i < row; i++) to[i] = static_cast<Half>(in[i]);
  }
  if (op.out_height * op.out_width == 1)
    blocks<1>(op);
  else
    blocks<6>(op);
}

// clip(rint(n * slope + offset)), a channel after the other.
void line(const Op& op) {
  const auto* slope = static_cast<const float*>(op.first);
  const auto* offset = static_cast<const float*>(op.second);
  const float low = op.low, high = op.high;
  for (Long i = 0; i < op.height * op.width; i++) {
    const Word* in = op.a + i * op.channels;
    Word* __restrict out = op.out + i * op.channels;
    for (Long c = 0; c < op.channels; c++) {
      float code = static_cast<float>(in[c]) * slope[c] + offset[c];
      code = code < low ? low : code > high ? high : code;
      out[c] = static_cast<Word>(__builtin_rintf(code));
    }
  }
}

// Thresholds (T, C), counted.
void compare(const Op& op) {
  const auto* thresholds = static_cast<const Word*>(op.first);
  const auto* signs = static_cast<const Word*>(op.second);
  const Word base = static_cast<Word>(op.base), step = static_cast<Word>(op.step);
  for (Long i = 0; i < op.height * op.width; i++) {
    const Word* in = op.a + i * op.channels;
    Word* __restrict out = op.out + i * op.channels;
    for (Long c = 0; c < op.channels; c++) out[c] = base;
    for (Long t = 0; t < op.count; t++)
      for (Long c = 0; c < op.channels; c++)
        out[c] += signs[c] * in[c] >= thresholds[t * op.channels + c] ? step : 0;
  }
}

// Maxima of signs * n, or sums, of windows; what lies outside the map counts for nothing.
template <bool SUM>
void pool(const Op& op) {
  const auto* signs = static_cast<const Word*>(op.first);  // (C,), or factors (H', W') of sums
  for (Long y = 0; y < op.out_height; y++)
    for (Long x = 0; x < op.out_width; x++) {
      Word* __restrict out = op.out + (y * op.out_width + x) * op.channels;
      for (Long c = 0; c < op.channels; c++) out[c] = SUM ? 0 : INT32_MIN;
      for (Long i = 0; i < op.kernel[0]; i++)
        for (Long j = 0; j < op.kernel[1]; j++) {
          const Long row = y * op.strides[0] + i * op.dilations[0] - op.pads[0];
          const Long column = x * op.strides[1] + j * op.dilations[1] - op.pads[1];
          if (row < 0 || row >= op.height || column < 0 || column >= op.width) continue;
          const Word* in = op.a + (row * op.width + column) * op.channels;
          for (Long c = 0; c < op.channels; c++) {
            const Word n = SUM ? in[c] : signs[c] * in[c];
            out[c] = SUM ? out[c] + n : n > out[c] ? n : out[c];
          }
        }
      for (Long c = 0; c < op.channels; c++) out[c] *= signs[SUM ? y * op.out_width + x : c];
    }
}

// Sums of two maps, each with a factor a channel.
void add(const Op& op) {
  const auto* one = static_cast<const Word*>(op.first);
  const auto* two = static_cast<const Word*>(op.second);
  for (Long i = 0; i < op.height * op.width; i++) {
    const Word *a = op.a + i * op.channels, *b = op.b + i * op.channels;
    Word* __restrict out = op.out + i * op.channels;
    for (Long c = 0; c < op.channels; c++) out[c] = a[c] * one[c] + b[c] * two[c];
  }
}

// Copies: out[to[i]] = a[i] * factors[i], and the base elsewhere.
void gather(const Op& op) {
  const auto* to = static_cast<const Word*>(op.first);
  const auto* factors = static_cast<const Word*>(op.second);
  Word* __restrict out = op.out;
  const Long size = op.out_channels * op.out_height * op.out_width;
  for (Long i = 0; op.fills && i < size; i++) out[i] = static_cast<Word>(op.base);
  for (Long i = 0; i < op.count; i++) out[to[i]] = op.a[i] * factors[i];
}

void execute(const Op& op) {
  switch (op.kind) {
    case CONV: return convolution(op);
    case LINE: return line(op);
    case COMPARE: return compare(op);
    case POOL_MAX: return pool<false>(op);
    case POOL_SUM: return pool<true>(op);
    case ADD: return add(op);
    case GATHER: return gather(op);
  }
}

}  // namespace

extern "C" Long lanes() { return LANES; }

extern "C" void execute(const Op* ops, Long count) {
  for (Long i = 0; i < count; i++) execute(ops[i]);
}

// As ctypes writes it.
struct Program {
  const Op* ops;
  Long count;
  const float* images;  // (N, size)
  Long size;
  const Word* last;  // where the last integers lie after each image
  Word* sums;        // (N, classes)
  Long classes;
};

// Images to their last integers. The first op makes codes of an image. Returns 0 where a value is
// out of range or NaN.
extern "C" Long predict(const Program* program, Long number) {
  const Program& p = *program;
  for (Long i = 0; i < number; i++) {
    if (!input(p.ops[0], p.images + i * p.size)) return 0;
    execute(p.ops + 1, p.count - 1);
    std::memcpy(p.sums + i * p.classes, p.last, p.classes * sizeof(Word));
  }
  return 1;
}
