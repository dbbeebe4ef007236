// The grid of a quantizer and its gradients, in one pass over memory each; see fused.py, which has
// the same in PyTorch's operators. Every value is rounded as there, last bit included: compiled
// without contraction, and for bfloat16 after each operation.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

constexpr int64_t CHUNK = 1 << 14;  // values of one sum: the order of summing is one for all threads
constexpr int64_t LEAST = 1 << 18;  // values from which on a thread is worth its start
constexpr int64_t GROUP = 256;  // bfloat16 values at a time
constexpr int LANES = 16;

struct Half {  // bfloat16
    uint16_t bits;
};

inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// What a value of type T takes of a float, half to even, as a float.
template <class T> inline float rounded(float value) { return value; }
template <> inline float rounded<Half>(float value) {
    const uint32_t bits = as_bits(value), up = bits + 0x7FFF + ((bits >> 16) & 1);
    return as_float((value != value ? 0x7FC00000 : up) & 0xFFFF0000);
}
inline float load(float value) { return value; }
inline float load(Half value) { return as_float(static_cast<uint32_t>(value.bits) << 16); }
inline void store(float& to, float value) { to = value; }
inline void store(Half& to, float value) {
    to.bits = static_cast<uint16_t>(as_bits(rounded<Half>(value)) >> 16);
}

struct Grid {
    float low, high, below, above;
    bool rectify;
};

// Each is called with the bounds of its code as constants to the loop, and for whole groups of LANES
// but at the end, so that compilers vectorize it.
template <bool RECTIFY, class T>
void quantize(const T* __restrict x, T* __restrict y, int64_t n, float scale, Grid grid) {
    for (int64_t i = 0; i < n; i++) {
        float code = rounded<T>(load(x[i]) / scale) + 0.0f;
        if (!RECTIFY) code = nearbyintf(code);
        // Written so that NaN stays.
        code = code < grid.low ? grid.low : code;
        code = code > grid.high ? grid.high : code;
        if (RECTIFY) code = nearbyintf(code);
        store(y[i], code * scale);
    }
}

// Of n values, a multiple of LANES; adds to LANES sums. READY: x is divided by the scale already,
// and into holds what passes inside.
template <bool READY>
[[gnu::noinline]] void gradients_of(const float* __restrict x, const float* __restrict g,
                         float* __restrict into, int64_t n, float scale, Grid grid,
                         float* __restrict sums) {
    for (int64_t i = 0; i < n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) {
            const float ratio = READY ? x[i + lane] : x[i + lane] / scale, pull = g[i + lane];
            const bool inside = ratio > grid.below && ratio < grid.above;
            // Times scale and divided by it again is what the chain rule does in Brevitas.
            const float passed = READY ? into[i + lane] : pull * scale / scale;
            into[i + lane] = inside ? passed : 0.0f;
            float code = nearbyintf(ratio);
            code = code < grid.low ? grid.low : code;
            code = code > grid.high ? grid.high : code;
            sums[lane] += pull * (code - (inside ? ratio : 0.0f));
        }
    }
}

template <class T>
double gradients(const T* __restrict x, const T* __restrict g, T* __restrict into, int64_t n,
                 float scale, Grid grid) {
    float sums[LANES] = {};
    int64_t i = 0;
    if constexpr (std::is_same_v<T, float>) {
        i = n - n % LANES;
        gradients_of<false>(x, g, into, i, scale, grid, sums);
    }
    while (i < n) {
        float ratios[GROUP] = {}, pulls[GROUP] = {}, passed[GROUP] = {};  // 0 beyond the end
        const int64_t count = std::min(GROUP, n - i);
        for (int64_t j = 0; j < count; j++) ratios[j] = rounded<T>(load(x[i + j]) / scale);
        for (int64_t j = 0; j < count; j++) pulls[j] = load(g[i + j]);
        for (int64_t j = 0; j < count; j++) passed[j] = rounded<T>(pulls[j] * scale) / scale;
        gradients_of<true>(ratios, pulls, passed, GROUP, scale, grid, sums);
        for (int64_t j = 0; j < count; j++) store(into[i + j], passed[j]);
        i += count;
    }
    double sum = 0;
    for (float one : sums) sum += one;
    return sum;
}

template <class F> void in_chunks(int64_t n, int64_t threads, F work) {
    const int64_t chunks = (n + CHUNK - 1) / CHUNK;
    const int64_t parts = std::max<int64_t>(1, std::min(threads, n / LEAST));
    const auto run = [&](int64_t part) {
        for (int64_t c = chunks * part / parts; c < chunks * (part + 1) / parts; c++) {
            work(c, c * CHUNK, std::min(CHUNK, n - c * CHUNK));
        }
    };
    std::vector<std::thread> others;
    for (int64_t part = 1; part < parts; part++) others.emplace_back(run, part);
    run(0);
    for (auto& one : others) one.join();
}

template <class T>
void quantize_all(const T* x, T* y, int64_t outer, int64_t inner, const float* scales, Grid grid,
                  int64_t threads) {
    for (int64_t k = 0; k < outer; k++) {
        in_chunks(inner, threads, [&](int64_t, int64_t at, int64_t count) {
            const auto part = grid.rectify ? quantize<true, T> : quantize<false, T>;
            part(x + k * inner + at, y + k * inner + at, count, scales[k], grid);
        });
    }
}

template <class T>
void gradients_all(const T* x, const T* g, T* into, int64_t outer, int64_t inner,
                   const float* scales, float* sums, Grid grid, int64_t threads) {
    std::vector<double> partial((inner + CHUNK - 1) / CHUNK);
    for (int64_t k = 0; k < outer; k++) {
        in_chunks(inner, threads, [&](int64_t chunk, int64_t at, int64_t count) {
            const int64_t i = k * inner + at;
            partial[chunk] = gradients(x + i, g + i, into + i, count, scales[k], grid);
        });
        double sum = 0;
        for (double one : partial) sum += one;
        sums[k] = static_cast<float>(sum);
    }
}

}  // namespace

extern "C" {

// bounds: low, high, below, above, as in fused.py.
void divqat_quantize(const void* x, void* y, int64_t outer, int64_t inner, const float* scales,
                     const float* bounds, int64_t rectify, int64_t half, int64_t threads) {
    const Grid grid{bounds[0], bounds[1], bounds[2], bounds[3], rectify != 0};
    if (half) {
        quantize_all(static_cast<const Half*>(x), static_cast<Half*>(y), outer, inner, scales,
                     grid, threads);
    } else {
        quantize_all(static_cast<const float*>(x), static_cast<float*>(y), outer, inner, scales,
                     grid, threads);
    }
}

void divqat_gradients(const void* x, const void* g, void* into, int64_t outer, int64_t inner,
                      const float* scales, float* sums, const float* bounds, int64_t half,
                      int64_t threads) {
    const Grid grid{bounds[0], bounds[1], bounds[2], bounds[3], false};
    if (half) {
        gradients_all(static_cast<const Half*>(x), static_cast<const Half*>(g),
                      static_cast<Half*>(into), outer, inner, scales, sums, grid, threads);
    } else {
        gradients_all(static_cast<const float*>(x), static_cast<const float*>(g),
                      static_cast<float*>(into), outer, inner, scales, sums, grid, threads);
    }
}
}
