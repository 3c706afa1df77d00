// Products with dense layers whose weights lie in panels: of two registers' columns each, one after another, so that a
// panel streams through the first cache. The other side is `panels` of packing.py.
#pragma once
#include "lanes.h"

namespace {

// Rows in pieces of one register. Row p of atom j is at j·atom + p·row, and its next piece `piece` further.
template <typename T>
struct Rows {
  T* base;
  index_t atom, piece, row = Lanes<std::remove_const_t<T>>::count;
};

// C columns, in registers, of P rows of each of M atoms: out = in · b (+ bias), or out += in · b
template <typename T, int P, int M, int C>
INLINE void panel_tile(index_t pieces, Rows<const T> in, const T* b, Rows<T> out, const T* bias, bool add) {
  constexpr int L = Lanes<T>::count;
  Vec<T> sums[M * P][C];
  for (int m = 0; m < M; ++m)
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < C; ++n)
        sums[m * P + p][n] = add ? load(out.base + m * out.atom + p * out.row + n * out.piece)
                                 : (bias ? load(bias + n * L) : Vec<T>{});
  const T* a = in.base;
  for (index_t k = 0; k < pieces; ++k, a += in.piece)
    for (int l = 0; l < L; ++l, b += C * L) {
      Vec<T> row[C];
      for (int n = 0; n < C; ++n) row[n] = load(b + n * L);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m)
#pragma GCC unroll 5
        for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
          for (int n = 0; n < C; ++n) sums[m * P + p][n] += a[m * in.atom + p * in.row + l] * row[n];
    }
  for (int m = 0; m < M; ++m)
    for (int p = 0; p < P; ++p)
      for (int n = 0; n < C; ++n) store(out.base + m * out.atom + p * out.row + n * out.piece, sums[m * P + p][n]);
}

// All atoms past one panel, as many at a time as the registers hold
template <typename T, int P, int C>
INLINE void panel_atoms(index_t atoms, index_t pieces, Rows<const T> in, const T* b, Rows<T> out, const T* bias,
                        bool add) {
  constexpr int MOST = P == 5 ? 2 : P == 3 ? 4 : 8;
  const auto pass = [&](auto many) {
    constexpr int M = decltype(many)::value;
    panel_tile<T, P, M, C>(pieces, in, b, out, bias, add);
    in.base += M * in.atom, out.base += M * out.atom, atoms -= M;
  };
  while (atoms >= MOST) pass(std::integral_constant<int, MOST>{});
  if (MOST > 4 && atoms >= 4) pass(std::integral_constant<int, 4>{});
  if (MOST > 2 && atoms >= 2) pass(std::integral_constant<int, 2>{});
  if (atoms >= 1) pass(std::integral_constant<int, 1>{});
}

// P rows of each atom through a layer of `outputs` columns
template <typename T, int P>
INLINE void panel_layer(index_t atoms, index_t inputs, index_t outputs, Rows<const T> in, const T* b, Rows<T> out,
                        const T* bias, bool add) {
  constexpr index_t L = Lanes<T>::count;
  const index_t pieces = inputs / L;
  index_t n = 0;
  for (; n + 2 * L <= outputs; n += 2 * L, b += 2 * L * inputs, out.base += 2 * out.piece)
    panel_atoms<T, P, 2>(atoms, pieces, in, b, out, bias ? bias + n : nullptr, add);
  if (n < outputs) panel_atoms<T, P, 1>(atoms, pieces, in, b, out, bias ? bias + n : nullptr, add);
}

// Ordinary rows (atoms, inputs) through a layer. Functions of their own: inlined at every call they would make the build
// take minutes.
template <typename T>
INLINE void dense_rows(index_t atoms, index_t inputs, index_t outputs, const T* in, const T* b, T* out, const T* bias,
                       bool add) {
  constexpr index_t L = Lanes<T>::count;
  panel_layer<T, 1>(atoms, inputs, outputs, {in, inputs, L}, b, {out, outputs, L}, bias, add);
}
[[maybe_unused]] DISPATCH void dense(index_t atoms, index_t inputs, index_t outputs, const float* in, const float* b, float* out,
                    const float* bias = nullptr, bool add = false) {
  dense_rows(atoms, inputs, outputs, in, b, out, bias, add);
}
[[maybe_unused]] DISPATCH void dense(index_t atoms, index_t inputs, index_t outputs, const double* in, const double* b, double* out,
                    const double* bias = nullptr, bool add = false) {
  dense_rows(atoms, inputs, outputs, in, b, out, bias, add);
}

}  // namespace
