// Vector registers, the exponential, matrix products and threads: the parts of the native engine.
#pragma once
#include "asecalc_kernels.h"

#include <cmath>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

namespace {

// 64 bytes at a time: one AVX-512 register, two of AVX2, four of SSE or NEON; the compiler splits it as needed.
template <typename T> struct Lanes;
template <> struct Lanes<float> {
  typedef float type __attribute__((vector_size(64), aligned(4)));
  typedef std::int32_t bits __attribute__((vector_size(64), aligned(4)));
  static constexpr int count = 16, mantissa = 23, bias = 127, terms = 7;
  static constexpr double largest = 87.0;
};
template <> struct Lanes<double> {
  typedef double type __attribute__((vector_size(64), aligned(8)));
  typedef std::int64_t bits __attribute__((vector_size(64), aligned(8)));
  static constexpr int count = 8, mantissa = 52, bias = 1023, terms = 13;
  static constexpr double largest = 700.0;
};

template <typename T> using Vec = typename Lanes<T>::type;

template <typename T> INLINE Vec<T> load(const T* p) { return *reinterpret_cast<const Vec<T>*>(p); }
template <typename T> INLINE void store(T* p, Vec<T> v) { *reinterpret_cast<Vec<T>*>(p) = v; }
template <typename T> INLINE Vec<T> fill(T value) { return value - Vec<T>{}; }

// By halves, each in a register: one after another, the additions would wait for each other.
template <typename T> INLINE T sum(Vec<T> v) {
  typedef T half_t __attribute__((vector_size(32)));
  typedef T quarter_t __attribute__((vector_size(16)));
  half_t halves[2];
  std::memcpy(halves, &v, sizeof v);
  halves[0] += halves[1];
  quarter_t quarters[2];
  std::memcpy(quarters, halves, sizeof quarters);
  quarters[0] += quarters[1];
  constexpr int n = int(16 / sizeof(T));
  T total = quarters[0][0] + quarters[0][n / 2];
  for (int l = 1; l < n / 2; ++l) total += quarters[0][l] + quarters[0][n / 2 + l];
  return total;
}

// eˣ = 2ⁿ eʳ with |r| ≤ ½ ln 2 and a Taylor series for eʳ, exact to the last digits of T.
template <typename T> INLINE Vec<T> exponential(Vec<T> x) {
  using L = Lanes<T>;
  const T most = T(L::largest);
  x = x > most ? fill<T>(most) : x;
  x = x < -most ? fill<T>(-most) : x;
  // Added to 3 · 2^(mantissa − 1), a number is rounded, and n stands in the last bits.
  const T shift = T(std::int64_t(3) << (L::mantissa - 1));
  const Vec<T> shifted = x * T(1.4426950408889634) + shift, whole = shifted - shift;
  const T high = T(0.693359375), low = T(-2.121944400546905827679e-4);  // ln 2 in two parts
  const Vec<T> r = (x - whole * high) - whole * low;
  double factorial = 1.0;
  for (int k = 2; k <= L::terms; ++k) factorial *= k;
  Vec<T> series = fill<T>(T(1.0 / factorial));
#pragma GCC unroll 16
  for (int k = L::terms; k > 0; --k) {
    factorial /= k;
    series = T(1.0 / factorial) + series * r;
  }
  typename L::bits power;
  std::memcpy(&power, &shifted, sizeof power);
  power = (power + L::bias) << L::mantissa;
  Vec<T> factor;
  std::memcpy(&factor, &power, sizeof factor);
  return series * factor;
}

// silu(h) = h σ(h), and its derivative σ (1 + h (1 − σ))
template <typename T> INLINE Vec<T> sigmoid(Vec<T> h) { return T(1) / (T(1) + exponential<T>(-h)); }
template <typename T> INLINE Vec<T> silu(Vec<T> h) { return h * sigmoid<T>(h); }
template <typename T> INLINE Vec<T> silu_slope(Vec<T> h) {
  const Vec<T> s = sigmoid<T>(h);
  return s * (T(1) + h * (T(1) - s));
}

// ln x for x ≥ 1: the exponent, and 2 artanh((m − 1)/(m + 1)) of a mantissa between √½ and √2.
template <typename T> INLINE Vec<T> logarithm(Vec<T> x) {
  using L = Lanes<T>;
  typename L::bits word;
  std::memcpy(&word, &x, sizeof word);
  // Seen from √½: what is above √2 counts towards the next power.
  Vec<T> root = fill<T>(T(M_SQRT1_2));
  typename L::bits origin;
  std::memcpy(&origin, &root, sizeof origin);
  const typename L::bits power = (word - origin) >> L::mantissa;
  word -= power << L::mantissa;
  Vec<T> m;
  std::memcpy(&m, &word, sizeof m);
  const Vec<T> s = (m - T(1)) / (m + T(1)), square = s * s;
  Vec<T> series = fill<T>(T(1) / T(2 * L::terms + 1));
  for (int k = L::terms - 1; k >= 0; --k) series = T(1) / T(2 * k + 1) + square * series;
  return __builtin_convertvector(power, Vec<T>) * T(M_LN2) + T(2) * s * series;
}

// ln(1 + eˣ), from the side on which eˣ cannot overflow
template <typename T> INLINE Vec<T> softplus(Vec<T> x) {
  const Vec<T> magnitude = x < T(0) ? -x : x, positive = x < T(0) ? Vec<T>{} : x;
  return positive + logarithm<T>(T(1) + exponential<T>(-magnitude));
}

// Readout of one atom: Σ silu(h) r, leaving its derivative in h
template <typename T> INLINE T silu_row(T* h, const T* r, index_t registers) {
  Vec<T> total = {};
  for (index_t k = 0; k < registers * Lanes<T>::count; k += Lanes<T>::count) {
    const Vec<T> value = load(h + k), weight = load(r + k);
    total += silu<T>(value) * weight;
    store(h + k, silu_slope<T>(value) * weight);
  }
  return sum<T>(total);
}

// Hands out pieces of one buffer, each on a cache line of its own; with no buffer it only counts.
template <typename T>
struct Arena {
  T* base;
  index_t used = 0;
  T* take(index_t count) {
    T* piece = base ? base + used : nullptr;
    used += (count + 15) / 16 * 16;
    return piece;
  }
};

template <typename T, int R, int C>
INLINE void product_tile(index_t K, const T* a, index_t lda, const T* b, index_t ldb, T* c, index_t ldc, const T* bias,
                         bool add) {
  constexpr int L = Lanes<T>::count;
  Vec<T> acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < C; ++n)
      acc[r][n] = add ? load(c + r * ldc + n * L) : (bias ? load(bias + n * L) : Vec<T>{});
  for (index_t k = 0; k < K; ++k) {
    Vec<T> row[C];
    for (int n = 0; n < C; ++n) row[n] = load(b + k * ldb + n * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int n = 0; n < C; ++n) acc[r][n] += a[r * lda + k] * row[n];
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < C; ++n) store(c + r * ldc + n * L, acc[r][n]);
}

template <typename T, int C>
INLINE void product_columns(index_t M, index_t K, const T* a, index_t lda, const T* b, index_t ldb, T* c, index_t ldc,
                            const T* bias, bool add) {
  index_t m = 0;
  for (; m + 8 <= M; m += 8) product_tile<T, 8, C>(K, a + m * lda, lda, b, ldb, c + m * ldc, ldc, bias, add);
  for (; m + 4 <= M; m += 4) product_tile<T, 4, C>(K, a + m * lda, lda, b, ldb, c + m * ldc, ldc, bias, add);
  for (; m < M; ++m) product_tile<T, 1, C>(K, a + m * lda, lda, b, ldb, c + m * ldc, ldc, bias, add);
}

template <typename T>
INLINE void product_panels(index_t M, index_t N, index_t K, const T* a, index_t lda, const T* b, index_t ldb, T* c,
                           index_t ldc, const T* bias, bool add) {
  constexpr index_t L = Lanes<T>::count;
  index_t n = 0;
  for (; n + 2 * L <= N; n += 2 * L)
    product_columns<T, 2>(M, K, a, lda, b + n, ldb, c + n, ldc, bias ? bias + n : nullptr, add);
  if (n < N) product_columns<T, 1>(M, K, a, lda, b + n, ldb, c + n, ldc, bias ? bias + n : nullptr, add);
}

// C = A B (+ bias per column), or C += A B with `add`; N is a whole number of registers. Column panels go outside, so
// that a panel of B stays in the first cache while all rows of A pass. Functions of their own: inlined at every call
// they would make the build take minutes.
[[maybe_unused]] DISPATCH void product(index_t M, index_t N, index_t K, const float* a, index_t lda, const float* b, index_t ldb,
                      float* c, index_t ldc, const float* bias = nullptr, bool add = false) {
  product_panels(M, N, K, a, lda, b, ldb, c, ldc, bias, add);
}
[[maybe_unused]] DISPATCH void product(index_t M, index_t N, index_t K, const double* a, index_t lda, const double* b, index_t ldb,
                      double* c, index_t ldc, const double* bias = nullptr, bool add = false) {
  product_panels(M, N, K, a, lda, b, ldb, c, ldc, bias, add);
}

// Run work(first, last) over the atoms, shared by edges. Starting a thread costs about 20 µs, so small systems stay on
// the caller's.
template <typename Work>
void share(const index_t* rows, index_t atoms, index_t threads, Work work) {
  const index_t edges = rows[atoms] + 8 * atoms;
  if (threads < 2 || edges < 4000) return work(0, atoms);
  std::vector<std::thread> pool;
  index_t first = 0;
  for (index_t t = 1; t <= threads; ++t) {
    index_t last = first;
    while (last < atoms && rows[last] + 8 * last < edges * t / threads) ++last;
    if (t == threads) last = atoms;
    if (t < threads) pool.emplace_back(work, first, last);
    else work(first, last);
    first = last;
  }
  for (auto& thread : pool) thread.join();
}

}  // namespace
