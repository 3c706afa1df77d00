// Operations of trainings: a call of any of them, its threads, and its name in the library.
//
// The derivative of a first derivative along a direction, written h… below, is the second derivative, and one pass over
// the edges yields all of it. Features do not mix, so threads share the features: each goes over all edges with some of
// them, no sum has two owners, and only sums over the features are put together at the end.
#pragma once
#include "lanes.h"

#include <algorithm>

namespace {

template <typename T>
struct Call {
  index_t atoms, edges, features;
  const index_t *centers, *others;  // others: neighbours, and after them the first knots of edges
  const T* const* in;
  T* const* out;
};

// A block of features: a register, or a single number for those that are left over.
template <typename V, typename T> INLINE V get(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename V, typename T> INLINE void put(T* p, V v) { std::memcpy(p, &v, sizeof v); }
template <typename V, typename T> INLINE void add(T* p, V v) { put(p, get<V>(p) + v); }
INLINE float total(float v) { return v; }
INLINE double total(double v) { return v; }
INLINE float total(Vec<float> v) { return sum<float>(v); }
INLINE double total(Vec<double> v) { return sum<double>(v); }

// body(f, zero) for each block of the features f0 … f1; BLOCK(f) begins such a body; decltype(zero) is the type of the
// block.
template <typename T, typename Body>
INLINE void over_features(index_t f0, index_t f1, Body body) {
  index_t f = f0;
  for (; f + Lanes<T>::count <= f1; f += Lanes<T>::count) body(f, Vec<T>{});
  for (; f < f1; ++f) body(f, T(0));
}
#define BLOCK(f) [&](index_t f, auto zero) __attribute__((always_inline))

// body(first, end) for the edges of each centre in turn; they are sorted by it
template <typename T, typename Body>
INLINE void over_centers(const Call<T>& c, Body body) {
  for (index_t first = 0, end; first < c.edges; first = end) {
    for (end = first + 1; end < c.edges && c.centers[end] == c.centers[first];) ++end;
    body(first, end);
  }
}
#define ROW(first, end) [&](index_t first, index_t end) __attribute__((always_inline))

// Zeros in a block of features of `rows` rows of an array
template <typename T, typename V>
INLINE void clear(const Call<T>& c, T* to, index_t rows, index_t f, V zero) {
  for (index_t r = 0; r < rows; ++r) put(to + r * c.features + f, zero);
}

// Sums over features of one edge: W numbers, each gathered in a register and in a number for what is left over.
template <typename T, int W>
struct Sums {
  Vec<T> wide[W];
  T rest[W];
  INLINE Sums() {
    for (int k = 0; k < W; ++k) wide[k] = Vec<T>{}, rest[k] = 0;
  }
  INLINE void add(int k, Vec<T> v) { wide[k] += v; }
  INLINE void add(int k, T v) { rest[k] += v; }
  INLINE void write(T* to) const {
    for (int k = 0; k < W; ++k) to[k] = total(wide[k]) + rest[k];
  }
};

// Work of `width` sums an edge over the features, which end in `sums`; starting a thread costs some 20 µs.
template <typename T, typename Work>
void by_features(const Call<T>& c, index_t threads, index_t width, T* sums, Work work) {
  const index_t F = c.features, blocks = (F + 15) / 16;
  if (c.edges * F < 60000) threads = 1;
  threads = std::max<index_t>(1, std::min(threads, blocks));
  if (threads == 1) return work(sums, 0, F);
  std::vector<std::vector<T>> parts(threads - 1, std::vector<T>(width * c.edges));
  std::vector<std::thread> pool;
  for (index_t t = 1; t < threads; ++t)
    pool.emplace_back(work, parts[t - 1].data(), blocks * t / threads * 16, std::min(F, blocks * (t + 1) / threads * 16));
  work(sums, 0, blocks * 1 / threads * 16);
  for (auto& thread : pool) thread.join();
  for (const auto& part : parts)
    for (index_t k = 0; k < width * c.edges; ++k) sums[k] += part[k];
}

}  // namespace

// NAME_f32(atoms, edges, features, threads, centers, others, inputs, outputs, sums), f64 likewise; whether outputs that
// are sums over edges must be zero is in the line of the operation in Python.
#define OPERATION_OF(NAME, WIDTH, T, S)                                                                                 \
  DISPATCH void NAME##_part(const Call<T>& c, T* sums, index_t f0, index_t f1) { NAME<T>(c, sums, f0, f1); }            \
  ASECALC_EXPORT void NAME##_##S(index_t atoms, index_t edges, index_t features, index_t threads, const index_t* centers,              \
                                 const index_t* others, const T* const* in, T* const* out, T* sums) {                   \
    const Call<T> c{atoms, edges, features, centers, others, in, out};                                                         \
    by_features(c, threads, WIDTH, sums, [c](T* to, index_t f0, index_t f1) { NAME##_part(c, to, f0, f1); });           \
  }
#define OPERATION(NAME, WIDTH)        \
  OPERATION_OF(NAME, WIDTH, float, f32) \
  OPERATION_OF(NAME, WIDTH, double, f64)
