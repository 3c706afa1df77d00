// Channels of the parts of matrices, mixed by a weight each, for trainings. A matrix is nine rows of channels, one of I,
// three of A, five of S. Both functions are bilinear, and the derivatives of each are calls of the two.
//
//   tensor_mix    y_r = W x_r, with W that of the part of row r; W is (outputs, inputs), or (inputs, outputs) if turned
//   tensor_outer  the gradient by the weights, G = Σ a_r b_rᵀ over atoms and the rows of a part
//
// Widths are whole registers.
#include "panels.h"

#include <algorithm>

namespace {

constexpr index_t PARTS = 3, FIRST[PARTS + 1] = {0, 1, 4, 9}, ROWS = 9;

// Weights in the panels of panels.h
template <typename T>
INLINE void in_panels(const T* w, index_t inputs, index_t outputs, bool turned, T* to) {
  constexpr index_t L = Lanes<T>::count;
  for (index_t n = 0; n < outputs; n += 2 * L) {
    const index_t width = std::min(2 * L, outputs - n);
    T* panel = to + n * inputs;
    if (turned)
      for (index_t k = 0; k < inputs; ++k) std::copy(w + k * outputs + n, w + k * outputs + n + width, panel + k * width);
    else
      for (index_t l = 0; l < width; ++l)
        for (index_t k = 0; k < inputs; ++k) panel[k * width + l] = w[(n + l) * inputs + k];
  }
}

// The P rows of one part of atoms. With a panel of weights those that are taken together fit the first cache.
template <typename T, int P>
INLINE void mix_part(index_t atoms, index_t inputs, index_t outputs, const T* x, const T* panels, T* out) {
  constexpr index_t L = Lanes<T>::count, TILE = P == 5 ? 10 : P == 3 ? 16 : 48;
  for (index_t i = 0; i < atoms; i += TILE)
    panel_layer<T, P>(std::min(TILE, atoms - i), inputs, outputs, {x + i * ROWS * inputs, ROWS * inputs, L, inputs},
                      panels, {out + i * ROWS * outputs, ROWS * outputs, L, outputs}, nullptr, false);
}

template <typename T>
INLINE void mix_atoms(index_t atoms, index_t inputs, index_t outputs, const T* x, const T* panels, T* out) {
  const index_t size = inputs * outputs;
  mix_part<T, 1>(atoms, inputs, outputs, x, panels, out);
  mix_part<T, 3>(atoms, inputs, outputs, x + FIRST[1] * inputs, panels + size, out + FIRST[1] * outputs);
  mix_part<T, 5>(atoms, inputs, outputs, x + FIRST[2] * inputs, panels + 2 * size, out + FIRST[2] * outputs);
}

// to (8 rows, C registers) += Σ a bᵀ over atoms and P rows
template <typename T, int P, int C>
INLINE void outer_tile(index_t atoms, const T* a, index_t left, const T* b, index_t right, T* to) {
  constexpr int L = Lanes<T>::count, R = 8;
  Vec<T> sums[R][C];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < C; ++n) sums[r][n] = load(to + r * right + n * L);
  for (index_t i = 0; i < atoms; ++i, a += ROWS * left, b += ROWS * right)
    for (int p = 0; p < P; ++p) {
      Vec<T> row[C];
      for (int n = 0; n < C; ++n) row[n] = load(b + p * right + n * L);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int n = 0; n < C; ++n) sums[r][n] += a[p * left + r] * row[n];
    }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < C; ++n) store(to + r * right + n * L, sums[r][n]);
}

// Rows `first` to `last` of one of the three results, whole registers of them
template <typename T, int P>
INLINE void outer_part(index_t atoms, index_t left, index_t right, const T* a, const T* b, T* to, index_t first,
                       index_t last) {
  constexpr index_t L = Lanes<T>::count, TILE = P == 5 ? 10 : P == 3 ? 16 : 48;
  std::fill(to + first * right, to + last * right, T(0));
  for (index_t i = 0; i < atoms; i += TILE, a += TILE * ROWS * left, b += TILE * ROWS * right)
    for (index_t c = 0; c < right; c += 2 * L)
      for (index_t r = first; r < last; r += 8) {
        const index_t many = std::min(TILE, atoms - i);
        if (c + 2 * L <= right) outer_tile<T, P, 2>(many, a + r, left, b + c, right, to + r * right + c);
        else outer_tile<T, P, 1>(many, a + r, left, b + c, right, to + r * right + c);
      }
}

template <typename T>
INLINE void outer_rows(index_t atoms, index_t left, index_t right, const T* a, const T* b, T* const* out, index_t first,
                       index_t last) {
  outer_part<T, 1>(atoms, left, right, a, b, out[0], first, last);
  outer_part<T, 3>(atoms, left, right, a + FIRST[1] * left, b + FIRST[1] * right, out[1], first, last);
  outer_part<T, 5>(atoms, left, right, a + FIRST[2] * left, b + FIRST[2] * right, out[2], first, last);
}

// One clone of each for a processor
#define FUNCTIONS(T)                                                                                                   \
  DISPATCH void arrange(const T* w, index_t inputs, index_t outputs, bool turned, T* to) {                             \
    in_panels(w, inputs, outputs, turned, to);                                                                         \
  }                                                                                                                    \
  DISPATCH void mix_some(index_t atoms, index_t inputs, index_t outputs, const T* x, const T* panels, T* out) {        \
    mix_atoms(atoms, inputs, outputs, x, panels, out);                                                                 \
  }                                                                                                                    \
  DISPATCH void outer_some(index_t atoms, index_t left, index_t right, const T* a, const T* b, T* const* out,          \
                           index_t first, index_t last) {                                                              \
    outer_rows(atoms, left, right, a, b, out, first, last);                                                            \
  }
FUNCTIONS(float)
FUNCTIONS(double)

// work(first, last) over `count` units in shares of whole `unit`s; starting a thread costs some 20 µs.
template <typename Work>
void shared(index_t count, index_t unit, index_t threads, index_t products, Work work) {
  const index_t units = (count + unit - 1) / unit;
  threads = products < 10000000 ? 1 : std::max<index_t>(1, std::min(threads, units));
  std::vector<std::thread> pool;
  for (index_t t = 1; t < threads; ++t)
    pool.emplace_back(work, units * t / threads * unit, std::min(count, units * (t + 1) / threads * unit));
  work(0, std::min(count, units / threads * unit));
  for (auto& thread : pool) thread.join();
}

template <typename T>
void mix(index_t atoms, index_t inputs, index_t outputs, index_t threads, index_t turned, const T* x, const T* const* w,
         T* out) {
  const index_t size = inputs * outputs;
  std::vector<T> space(PARTS * size + 64 / sizeof(T));
  // On a cache line, as vectors are.
  T* panels = reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(space.data()) + 63) / 64 * 64);
  for (index_t part = 0; part < PARTS; ++part) arrange(w[part], inputs, outputs, turned, panels + part * size);
  shared(atoms, 16, threads, ROWS * atoms * size, [=](index_t first, index_t last) {
    mix_some(last - first, inputs, outputs, x + first * ROWS * inputs, panels, out + first * ROWS * outputs);
  });
}

template <typename T>
void outer(index_t atoms, index_t left, index_t right, index_t threads, const T* a, const T* b, T* const* out) {
  shared(left, Lanes<T>::count, threads, ROWS * atoms * left * right,
         [=](index_t first, index_t last) { outer_some(atoms, left, right, a, b, out, first, last); });
}

}  // namespace

#define MIXING(T, S)                                                                                                   \
  ASECALC_EXPORT void tensor_mix_##S(index_t atoms, index_t inputs, index_t outputs, index_t threads, index_t turned,  \
                                     const T* x, const T* const* weights, T* out) {                                    \
    mix(atoms, inputs, outputs, threads, turned, x, weights, out);                                                     \
  }                                                                                                                    \
  ASECALC_EXPORT void tensor_outer_##S(index_t atoms, index_t left, index_t right, index_t threads, const T* a,        \
                                       const T* b, T* const* out) {                                                    \
    outer(atoms, left, right, threads, a, b, out);                                                                     \
  }
MIXING(float, f32)
MIXING(double, f64)
