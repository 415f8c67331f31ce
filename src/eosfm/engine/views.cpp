// Several views of one image through folded ConvNeXtV2-Atto encoders, and their fusion, in one call without Python's lock.
//
// The plan, the order of the weights and the names are those of ../folded.py and ../fused.py. Matrix products are oneDNN's, by
// PyTorch's own operator; what lies between them is here: depthwise 7x7 and layer norm in one pass, the response norm's column
// sums, and the sum over views. Maps are (h * w, c), rows of pixels. One thread: the caller runs several images side by side.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using at::Tensor;

constexpr int kLevels = 4;
constexpr int64_t kChannels[kLevels] = {40, 80, 160, 320};
constexpr int kDepths[kLevels] = {2, 2, 6, 2};
constexpr float kEps = 1e-6f;
constexpr int64_t kPatch = 4;     // pixels per side of what a stem reads
constexpr int64_t kBlock = 4096;  // patches that are cut at once
constexpr int kSide = 7;  // of the depthwise kernel, and pixels of a row that are computed together

// Vectors of the compiler, which lowers them to what the machine has.
template <int W>
struct Types;
template <>
struct Types<16> {
  typedef float Float __attribute__((vector_size(64)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  typedef uint16_t Half __attribute__((vector_size(32)));
};
template <>
struct Types<8> {
  typedef float Float __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(32)));
  typedef uint16_t Half __attribute__((vector_size(16)));
};

// W floats as one value.
template <int W>
struct Vec : Types<W> {
  using typename Types<W>::Float;
  using typename Types<W>::Word;
  using typename Types<W>::Half;

  static Float load(const float* p) {
    Float v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static Float load(const c10::BFloat16* p) {
    Half v;
    std::memcpy(&v, p, sizeof v);
    return (Float)(__builtin_convertvector(v, Word) << 16);
  }
  static void store(float* p, Float v) { std::memcpy(p, &v, sizeof v); }
  static void store(c10::BFloat16* p, Float v) {  // to nearest, ties to even; what is not a number stays so
    Word bits = (Word)v;
    Word rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    Word word = v == v ? rounded : (Word{} + 0x7fc0u);
    Half half = __builtin_convertvector(word, Half);
    std::memcpy(p, &half, sizeof half);
  }
};

// f(std::integral_constant W, offset) for chunks of 16 and, where 8 are left, of 8. Channel counts are multiples of 8.
template <class F>
void chunks(int64_t count, F f) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) f(std::integral_constant<int, 16>{}, i);
  if (i < count) f(std::integral_constant<int, 8>{}, i);
}

float total(const float* x, int64_t count) {
  float part[16] = {};
  for (int64_t i = 0; i < count; i += 8)
    for (int k = 0; k < 8; ++k) part[k] += x[i + k];
  float sum = 0;
  for (int k = 0; k < 8; ++k) sum += part[k];
  return sum;
}

// Layer norm of one pixel, then scale and shift where they are given.
template <class T>
void norm_pixel(const float* x, int64_t c, T* out, const float* scale = nullptr, const float* shift = nullptr) {
  const float mean = total(x, c) / c;
  float squares[8] = {};
  for (int64_t i = 0; i < c; i += 8)
    for (int k = 0; k < 8; ++k) squares[k] += (x[i + k] - mean) * (x[i + k] - mean);
  const float inverse = 1.0f / std::sqrt(total(squares, 8) / c + kEps);
  chunks(c, [&](auto w, int64_t i) {
    using V = Vec<w>;
    auto v = (V::load(x + i) - mean) * inverse;
    if (scale) v = v * V::load(scale + i) + V::load(shift + i);
    V::store(out + i, v);
  });
}

template <class T>
void widen(const T* x, int64_t count, float* out) {
  chunks(count, [&](auto w, int64_t i) { Vec<w>::store(out + i, Vec<w>::load(x + i)); });
}

// One row of seven pixels by W channels of a depthwise 7x7.
template <int W>
void taps7(const float* padded, int64_t row, int64_t c, const float* weight, const float* bias, float* out) {
  using V = Vec<W>;
  typename V::Float sum[kSide];
  for (auto& s : sum) s = V::load(bias);
  for (int dy = 0; dy < kSide; ++dy) {
    typename V::Float tap[kSide];
#pragma GCC unroll 7
    for (int dx = 0; dx < kSide; ++dx) tap[dx] = V::load(weight + (dy * kSide + dx) * c);
    const float* line = padded + dy * row;
#pragma GCC unroll 13
    for (int p = 0; p < 2 * kSide - 1; ++p) {
      const auto v = V::load(line + p * c);
#pragma GCC unroll 7
      for (int dx = 0; dx < kSide; ++dx)
        if (p - dx >= 0 && p - dx < kSide) sum[p - dx] += v * tap[dx];
    }
  }
#pragma GCC unroll 7
  for (int p = 0; p < kSide; ++p) V::store(out + p * c, sum[p]);
}

struct Workspace {
  std::vector<float> padded, block, column, scale;
};

// Depthwise 7x7 (weight as (49, c)), bias, and layer norm without scale and shift.
template <class T>
void depthwise_norm(const T* x, int64_t h, int64_t w, int64_t c, const float* weight, const float* bias, T* out, Workspace& s) {
  const int64_t wide = (w + kSide - 1) / kSide * kSide, row = (wide + kSide - 1) * c;
  s.padded.assign((h + kSide - 1) * row, 0.0f);
  s.block.resize(kSide * c);
  for (int64_t i = 0; i < h; ++i) widen(x + i * w * c, w * c, s.padded.data() + (i + 3) * row + 3 * c);
  for (int64_t i = 0; i < h; ++i)
    for (int64_t j = 0; j < w; j += kSide) {
      const float* from = s.padded.data() + i * row + j * c;
      chunks(c, [&](auto v, int64_t k) { taps7<v>(from + k, row, c, weight + k, bias + k, s.block.data() + k); });
      for (int64_t p = 0; p < std::min<int64_t>(kSide, w - j); ++p)
        norm_pixel(s.block.data() + p * c, c, out + (i * w + j + p) * c);
    }
}

// Sums of squares of the columns of (n, m).
template <class T>
void column_energy(const T* x, int64_t n, int64_t m, float* out) {
  std::memset(out, 0, m * sizeof(float));
  for (int64_t i = 0; i < n; i += 8) {
    const int64_t rows = std::min<int64_t>(8, n - i);
    chunks(m, [&](auto w, int64_t k) {
      using V = Vec<w>;
      typename V::Float sum = {};
      for (int64_t r = 0; r < rows; ++r) {
        const auto v = V::load(x + (i + r) * m + k);
        sum += v * v;
      }
      V::store(out + k, V::load(out + k) + sum);
    });
  }
}

Tensor linear(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, c10::string_view then) {
  using Scalars = c10::List<std::optional<at::Scalar>>;
  using Call = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, c10::string_view, Scalars,
                      std::optional<c10::string_view>);
  static auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Call>();
  return op.call(x, weight, bias, then, Scalars(), c10::string_view("none"));
}

Tensor linear_add(const Tensor& x, const Tensor& add, const Tensor& weight, const Tensor& bias) {
  using Call = Tensor(const Tensor&, const Tensor&, const Tensor&, const std::optional<Tensor>&, c10::string_view);
  static auto op = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "binary").typed<Call>();
  return op.call(x, add, weight, bias, "add");
}

// What is left to read of a flat tensor.
struct Reader {
  Tensor rest;
  Tensor take(at::IntArrayRef shape) {
    int64_t n = 1;
    for (auto side : shape) n *= side;
    Tensor taken = rest.narrow(0, 0, n).view(shape);
    rest = rest.narrow(0, n, rest.size(0) - n);
    return taken;
  }
};

// Layer norm of every pixel, and four neighbours side by side: (h/2 * w/2, 4c).
template <class T>
Tensor halved(const Tensor& x, int64_t h, int64_t w) {
  const int64_t c = x.size(1);
  Tensor cut = at::empty({h / 2 * (w / 2), 4 * c}, x.options());
  const T* from = x.const_data_ptr<T>();
  T* to = cut.data_ptr<T>();
  float pixel[320];
  for (int64_t i = 0; i < h / 2 * 2; ++i)
    for (int64_t j = 0; j < w / 2 * 2; ++j) {
      widen(from + (i * w + j) * c, c, pixel);
      norm_pixel(pixel, c, to + ((i / 2 * (w / 2) + j / 2) * 4 + (i % 2) * 2 + j % 2) * c);
    }
  return cut;
}

template <class T>
std::vector<Tensor> encode(Tensor x, const Tensor& low, const Tensor& high, const Tensor& taps, int64_t h, int64_t w, Workspace& s) {
  Reader rounded{low}, exact{high};
  const float* tap = taps.const_data_ptr<float>();
  std::vector<Tensor> out;
  for (int level = 0; level < kLevels; ++level) {
    const int64_t c = kChannels[level];
    if (level) {
      const Tensor cut = halved<T>(x, h, w);
      const Tensor weight = rounded.take({c, 2 * c}), bias = rounded.take({c});
      x = linear(cut, weight, bias, "none");
      h /= 2;
      w /= 2;
    }
    Tensor y = at::empty_like(x), scaled;
    for (int block = 0; block < kDepths[level]; ++block) {
      rounded.take({50 * c});  // the depthwise layer as `taps` has it
      depthwise_norm(x.const_data_ptr<T>(), h, w, c, tap, tap + 49 * c, y.data_ptr<T>(), s);
      tap += 50 * c;
      const Tensor first = rounded.take({4 * c, c}), bias = rounded.take({4 * c});
      Tensor t = linear(y, first, bias, "gelu");
      const Tensor shift = rounded.take({c}), response = exact.take({4 * c});
      Tensor second = (level == kLevels - 1 ? rounded : exact).take({c, 4 * c});
      s.column.resize(4 * c);
      s.scale.resize(4 * c);
      column_energy(t.const_data_ptr<T>(), h * w, 4 * c, s.column.data());
      for (auto& e : s.column) e = std::sqrt(e);
      const float mean = total(s.column.data(), 4 * c) / (4 * c);
      const float* weight = response.const_data_ptr<float>();
      for (int64_t i = 0; i < 4 * c; ++i) s.scale[i] = 1 + weight[i] * (s.column[i] / (mean + kEps));
      if (level == kLevels - 1) {  // fewer pixels than channels
        T* p = t.data_ptr<T>();
        for (int64_t i = 0; i < h * w; ++i, p += 4 * c)
          chunks(4 * c, [&](auto v, int64_t k) { Vec<v>::store(p + k, Vec<v>::load(p + k) * Vec<v>::load(&s.scale[k])); });
      } else {
        const float* p = second.const_data_ptr<float>();
        if (!scaled.defined()) scaled = at::empty({c, 4 * c}, t.options());
        T* q = scaled.data_ptr<T>();
        for (int64_t i = 0; i < c; ++i, p += 4 * c, q += 4 * c)
          chunks(4 * c, [&](auto v, int64_t k) { Vec<v>::store(q + k, Vec<v>::load(p + k) * Vec<v>::load(&s.scale[k])); });
        second = scaled;
      }
      x = linear_add(t, x, second, shift);
    }
    out.push_back(x);
  }
  return out;
}

// Patches of 4x4 pixels of the channels `index`, each a row (channel, y, x): those of `rows` lines of patches from `first` on.
void cut(const Tensor& image, const Tensor& index, int64_t first, int64_t rows, float* to) {
  const int64_t height = image.size(-2), width = image.size(-1), *channel = index.const_data_ptr<int64_t>();
  const float* from = image.const_data_ptr<float>();
  for (int64_t i = kPatch * first; i < kPatch * (first + rows); i += kPatch)
    for (int64_t j = 0; j < width; j += kPatch)
      for (int64_t k = 0; k < index.numel(); ++k)
        for (int64_t y = 0; y < kPatch; ++y, to += kPatch)
          std::memcpy(to, from + (channel[k] * height + i + y) * width + j, kPatch * sizeof(float));
}

// An image through a view's own stem: matrix product in float32, then layer norm with scale and shift. In blocks, because
// all patches of a large image of many bands would be the largest tensor of all.
template <class T>
Tensor stem(const Tensor& image, const Tensor& index, const Tensor& weight, const Tensor& bias, const Tensor& affine,
            at::ScalarType type) {
  const int64_t h = image.size(-2) / kPatch, w = image.size(-1) / kPatch, c = weight.size(0);
  const int64_t step = std::max<int64_t>(1, kBlock / w);
  Tensor out = at::empty({h * w, c}, weight.options().dtype(type));
  const float* a = affine.const_data_ptr<float>();
  T* to = out.data_ptr<T>();
  for (int64_t first = 0; first < h; first += step) {
    const int64_t rows = std::min(step, h - first);
    Tensor patches = at::empty({rows * w, index.numel() * kPatch * kPatch}, weight.options());
    cut(image, index, first, rows, patches.data_ptr<float>());
    const Tensor y = linear(patches, weight, bias, "none");
    const float* from = y.const_data_ptr<float>();
    for (int64_t i = 0; i < rows * w; ++i, to += c) norm_pixel(from + i * c, c, to, a, a + c);
  }
  return out;
}

template <class T>
Tensor normed(const Tensor& x) {
  Tensor out = at::empty_like(x);
  const int64_t c = x.size(1);
  float pixel[320];
  for (int64_t i = 0; i < x.size(0); ++i) {
    widen(x.const_data_ptr<T>() + i * c, c, pixel);
    norm_pixel(pixel, c, out.data_ptr<T>() + i * c);
  }
  return out;
}

template <class T>
void add_to(const Tensor& sum, const Tensor& x) {
  float* to = sum.data_ptr<float>();
  const T* from = x.const_data_ptr<T>();
  chunks(sum.numel(), [&](auto w, int64_t i) { Vec<w>::store(to + i, Vec<w>::load(to + i) + Vec<w>::load(from + i)); });
}

// One entry per view in each list but `mixes`, which has a matrix per view and level, or none: then the maps themselves come
// back, view by view. With `mixes`, map times matrix is added to `sums`, one per level, in float32.
template <class T>
std::vector<Tensor> run(const Tensor& image, const std::vector<Tensor>& indices, const std::vector<Tensor>& weights,
                        const std::vector<Tensor>& biases, const std::vector<Tensor>& affines, const std::vector<Tensor>& lows, const std::vector<Tensor>& highs,
                        const std::vector<Tensor>& taps, const std::vector<Tensor>& mixes, const std::vector<Tensor>& sums,
                        bool layer, at::ScalarType type) {
  static thread_local Workspace space;
  std::vector<Tensor> out;
  for (size_t v = 0; v < indices.size(); ++v) {
    const Tensor x = stem<T>(image, indices[v], weights[v], biases[v], affines[v], type);
    auto maps = encode<T>(x, lows[v], highs[v], taps[v], image.size(-2) / kPatch, image.size(-1) / kPatch, space);
    if (mixes.empty()) {
      out.insert(out.end(), maps.begin(), maps.end());
      continue;
    }
    for (int level = 0; level < kLevels; ++level) {
      const Tensor map = layer ? normed<T>(maps[level]) : maps[level];
      const Tensor part = linear(map, mixes[v * kLevels + level], std::nullopt, "none");
      add_to<T>(sums[level], part);
    }
  }
  return out;
}

std::vector<Tensor> views(const Tensor& image, const std::vector<Tensor>& indices, const std::vector<Tensor>& weights,
                          const std::vector<Tensor>& biases, const std::vector<Tensor>& affines, const std::vector<Tensor>& lows,
                          const std::vector<Tensor>& highs, const std::vector<Tensor>& taps, const std::vector<Tensor>& mixes,
                          const std::vector<Tensor>& sums, bool layer) {
  TORCH_CHECK(!lows.empty(), "no view");
  TORCH_CHECK(image.dim() == 4 && image.size(0) == 1 && image.scalar_type() == at::kFloat && image.is_contiguous() && image.is_cpu(),
              "the image must be (1, c, h, w), float32, contiguous and on the CPU");
  TORCH_CHECK(image.numel() > 0 && image.size(-2) % kPatch == 0 && image.size(-1) % kPatch == 0, "an image of whole patches");
  for (const auto* list : {&indices, &weights, &biases, &affines, &lows, &highs, &taps}) {
    TORCH_CHECK(list->size() == lows.size(), "lists of different lengths");
    for (const auto& t : *list) TORCH_CHECK(t.is_contiguous() && t.is_cpu(), "tensors must be contiguous and on the CPU");
  }
  TORCH_CHECK(mixes.empty() || mixes.size() == kLevels * lows.size(), "mixes: one per view and level");
  TORCH_CHECK(sums.size() == (mixes.empty() ? 0 : kLevels), "sums: one per level, with mixes");
  for (int level = 0; level < (int)sums.size(); ++level) {
    const Tensor& sum = sums[level];
    const int64_t pixels = (image.size(-2) >> (level + 2)) * (image.size(-1) >> (level + 2)), c = mixes[level].size(0);
    TORCH_CHECK(sum.is_contiguous() && sum.is_cpu() && sum.scalar_type() == at::kFloat, "sums must be contiguous float32");
    TORCH_CHECK(sum.numel() == pixels * c && c % 8 == 0, "sums of another size");
    for (size_t v = 0; v < lows.size(); ++v) TORCH_CHECK(mixes[v * kLevels + level].size(0) == c, "mixes of different widths");
  }
  for (const auto& index : indices) {
    TORCH_CHECK(index.scalar_type() == at::kLong, "channels must be int64");
    const int64_t* channel = index.const_data_ptr<int64_t>();
    for (int64_t k = 0; k < index.numel(); ++k) TORCH_CHECK(0 <= channel[k] && channel[k] < image.size(1), "no such channel");
  }
  int64_t taken = 0;
  for (int level = 0; level < kLevels; ++level) taken += kDepths[level] * 50 * kChannels[level];
  for (size_t v = 0; v < lows.size(); ++v) {
    TORCH_CHECK(weights[v].dim() == 2 && weights[v].size(0) == kChannels[0] &&
                    weights[v].size(1) == kPatch * kPatch * indices[v].numel() && biases[v].numel() == kChannels[0],
                "a stem of another size");
    TORCH_CHECK(affines[v].numel() == 2 * kChannels[0] && taps[v].numel() == taken, "affines or taps of another size");
    for (const auto* t : {&weights[v], &affines[v], &taps[v], &highs[v]})
      TORCH_CHECK(t->scalar_type() == at::kFloat, "stems, affines, taps and highs must be float32");
    TORCH_CHECK(lows[v].scalar_type() == lows[0].scalar_type(), "lows of different precision");
  }
  const auto type = lows[0].scalar_type();
  if (type == at::kBFloat16)
    return run<c10::BFloat16>(image, indices, weights, biases, affines, lows, highs, taps, mixes, sums, layer, type);
  TORCH_CHECK(type == at::kFloat, "float32 or bfloat16");
  return run<float>(image, indices, weights, biases, affines, lows, highs, taps, mixes, sums, layer, type);
}

}  // namespace

TORCH_LIBRARY(eosfm_native, m) {
  m.def(
      "views(Tensor image, Tensor[] indices, Tensor[] weights, Tensor[] biases, Tensor[] affines, Tensor[] lows, Tensor[] highs, "
      "Tensor[] taps, Tensor[] mixes, Tensor(a!)[] sums, bool layer) -> Tensor[]",
      views);
}
