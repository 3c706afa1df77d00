// Matrices 3 × 3 of atoms and channels, vectorised over channels, for the native TensorNet.
//
// A matrix is nine numbers, one of I, three of A, five of S (xx, yy, xy, xz, yz). Those of an atom lie together,
// (channels / L, 9, L) with the L channels of a register innermost: a neighbour's numbers are read in one run, and a
// halo exchange copies one run per atom. Gradients are matrices too, G = ∂E/∂X, kept in the same way, so that a change of
// X changes E by ⟨G, ΔX⟩ = Σ G_xy ΔX_xy.
#pragma once
#include "panels.h"

namespace {

constexpr int part_of(int k) { return k == 0 ? 0 : k < 4 ? 1 : 2; }

template <typename T>
INLINE void load9(const T* t, Vec<T> n[9]) {
  for (int k = 0; k < 9; ++k) n[k] = load(t + k * Lanes<T>::count);
}
template <typename T>
INLINE void store9(T* t, const Vec<T> n[9]) {
  for (int k = 0; k < 9; ++k) store(t + k * Lanes<T>::count, n[k]);
}

template <typename T>
INLINE void to_matrix(const Vec<T> n[9], Vec<T> m[9]) {
  m[0] = n[0] + n[4], m[1] = n[6] - n[3], m[2] = n[7] + n[2];
  m[3] = n[6] + n[3], m[4] = n[0] + n[5], m[5] = n[8] - n[1];
  m[6] = n[7] - n[2], m[7] = n[8] + n[1], m[8] = n[0] - n[4] - n[5];
}

template <typename T>
INLINE void from_matrix(const Vec<T> m[9], Vec<T> n[9]) {
  const T half = T(0.5);
  n[0] = (m[0] + m[4] + m[8]) * T(1.0 / 3.0);
  n[1] = half * (m[7] - m[5]), n[2] = half * (m[2] - m[6]), n[3] = half * (m[3] - m[1]);
  n[4] = m[0] - n[0], n[5] = m[4] - n[0];
  n[6] = half * (m[1] + m[3]), n[7] = half * (m[2] + m[6]), n[8] = half * (m[5] + m[7]);
}

// c += a b, with either of them turned over
template <typename T, bool TA, bool TB>
INLINE void multiply(const Vec<T> a[9], const Vec<T> b[9], Vec<T> c[9]) {
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y)
      for (int k = 0; k < 3; ++k) c[3 * x + y] += a[TA ? 3 * k + x : 3 * x + k] * b[TB ? 3 * y + k : 3 * k + y];
}

// Numbers j with ⟨X, Y⟩ = Σ_k j_k(X) n_k(Y)
template <typename T>
INLINE void metric(const Vec<T> n[9], Vec<T> j[9]) {
  j[0] = T(3) * n[0], j[4] = T(2) * n[4] + n[5], j[5] = n[4] + T(2) * n[5];
  for (int k = 1; k < 9; ++k)
    if (k != 4 && k != 5) j[k] = T(2) * n[k];
}

// ⟨X, Y⟩ of each part, from the metric of X
template <typename T>
INLINE void inner_parts(const Vec<T> j[9], const Vec<T> n[9], Vec<T> by[3]) {
  by[0] = j[0] * n[0];
  by[1] = j[1] * n[1] + j[2] * n[2] + j[3] * n[3];
  by[2] = j[4] * n[4] + j[5] * n[5] + j[6] * n[6] + j[7] * n[7] + j[8] * n[8];
}
template <typename T>
INLINE Vec<T> inner(const Vec<T> j[9], const Vec<T> n[9]) {
  Vec<T> by[3];
  inner_parts<T>(j, n, by);
  return by[0] + by[1] + by[2];
}

// X/(‖X‖² + 1)
template <typename T>
INLINE void bound(Vec<T> x[9]) {
  Vec<T> j[9];
  metric<T>(x, j);
  const Vec<T> factor = T(1) / (inner<T>(j, x) + T(1));
  for (int k = 0; k < 9; ++k) x[k] *= factor;
}

// Gradient by X from g, that by X/(‖X‖² + 1)
template <typename T>
INLINE void bound_back(const Vec<T> x[9], Vec<T> g[9]) {
  Vec<T> j[9];
  metric<T>(x, j);
  const Vec<T> factor = T(1) / (inner<T>(j, x) + T(1)), along = T(2) * inner<T>(j, g) * factor;
  for (int k = 0; k < 9; ++k) g[k] = factor * (g[k] - along * x[k]);
}

// The channels of each part of n atoms, mixed
template <typename T>
INLINE void mix_parts(index_t n, index_t F, const T* in, const T* w0, const T* w1, const T* w2, T* out, bool add) {
  constexpr index_t L = Lanes<T>::count;
  panel_layer<T, 1>(n, F, F, {in, 9 * F, 9 * L}, w0, {out, 9 * F, 9 * L}, nullptr, add);
  panel_layer<T, 3>(n, F, F, {in + L, 9 * F, 9 * L}, w1, {out + L, 9 * F, 9 * L}, nullptr, add);
  panel_layer<T, 5>(n, F, F, {in + 4 * L, 9 * F, 9 * L}, w2, {out + 4 * L, 9 * F, 9 * L}, nullptr, add);
}
DISPATCH void mix(index_t n, index_t F, const float* in, const float* w0, const float* w1, const float* w2, float* out,
                  bool add = false) {
  mix_parts(n, F, in, w0, w1, w2, out, add);
}
DISPATCH void mix(index_t n, index_t F, const double* in, const double* w0, const double* w1, const double* w2,
                  double* out, bool add = false) {
  mix_parts(n, F, in, w0, w1, w2, out, add);
}

}  // namespace
