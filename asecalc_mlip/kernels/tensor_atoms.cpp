// TensorNet in training, the matrices of an atom: forward, first and second derivative, as operations.h says. Atoms are
// its edges here.
//
// A matrix is nine numbers, one of I, three of A, five of S (xx, yy, xy, xz, yz), each a row of F channels.
#include "operations.h"

namespace {

constexpr index_t ROWS = 9, PARTS = 3;
constexpr index_t PART[ROWS] = {0, 1, 1, 1, 2, 2, 2, 2, 2};

// Rows are more streams than a processor follows by itself, so those of the next atom are asked for ahead.
template <typename V, typename T>
INLINE void take(const T* rows, index_t F, V n[ROWS]) {
  for (int r = 0; r < ROWS; ++r) n[r] = get<V>(rows + r * F), __builtin_prefetch(rows + (ROWS + r) * F);
}
template <typename V, typename T>
INLINE void give(const V n[ROWS], T* rows, index_t F) {
  for (int r = 0; r < ROWS; ++r) put(rows + r * F, n[r]), __builtin_prefetch(rows + (ROWS + r) * F, 1);
}

// Nine numbers n of a matrix X, and gradients g = ∂E/∂n by them, are not the same: g = J n(∂E/∂X) with the metric
// J that ⟨X, Y⟩ = Σ X_ab Y_ab has in these numbers.
template <typename V>
INLINE void metric(const V n[ROWS], V out[ROWS]) {
  out[0] = 3 * n[0];
  for (int k = 1; k < 4; ++k) out[k] = 2 * n[k];
  out[4] = 2 * n[4] + n[5], out[5] = n[4] + 2 * n[5];
  for (int k = 6; k < 9; ++k) out[k] = 2 * n[k];
}

template <typename T, typename V>
INLINE void metric_back(const V g[ROWS], V out[ROWS]) {
  const T third = T(1.0 / 3.0), half = T(0.5);
  out[0] = third * g[0];
  for (int k = 1; k < 4; ++k) out[k] = half * g[k];
  out[4] = third * (2 * g[4] - g[5]), out[5] = third * (2 * g[5] - g[4]);
  for (int k = 6; k < 9; ++k) out[k] = half * g[k];
}

// Matrix of nine numbers, or its transpose
template <bool TURN, typename V>
INLINE void matrix(const V n[ROWS], V m[9]) {
  constexpr int A = TURN ? 3 : 1, B = TURN ? 6 : 2, C = TURN ? 7 : 5;
  m[0] = n[0] + n[4], m[4] = n[0] + n[5], m[8] = n[0] - n[4] - n[5];
  m[A] = n[6] - n[3], m[4 - A] = n[6] + n[3];
  m[B] = n[7] + n[2], m[8 - B] = n[7] - n[2];
  m[C] = n[8] - n[1], m[12 - C] = n[8] + n[1];
}
// That of gradients by the numbers
template <typename T, typename V>
INLINE void dual_matrix(const V g[ROWS], V m[9]) {
  V n[ROWS];
  metric_back<T>(g, n);
  matrix<false>(n, m);
}

template <typename T, typename V>
INLINE void numbers(const V m[9], V n[ROWS]) {
  const T half = T(0.5);
  n[0] = T(1.0 / 3.0) * (m[0] + m[4] + m[8]);
  n[1] = half * (m[7] - m[5]), n[2] = half * (m[2] - m[6]), n[3] = half * (m[3] - m[1]);
  n[4] = m[0] - n[0], n[5] = m[4] - n[0];
  n[6] = half * (m[1] + m[3]), n[7] = half * (m[2] + m[6]), n[8] = half * (m[5] + m[7]);
}
template <typename T, typename V>
INLINE void dual_numbers(const V m[9], V g[ROWS]) {
  V n[ROWS];
  numbers<T>(m, n);
  metric(n, g);
}

// c += a b, and b a too with BOTH, else twice a b
template <bool BOTH, typename V>
INLINE void multiply(const V a[9], const V b[9], V c[9]) {
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y) {
      V sum = a[3 * x] * b[y];
      for (int k = 1; k < 3; ++k) sum += a[3 * x + k] * b[3 * k + y];
      if (BOTH)
        for (int k = 0; k < 3; ++k) sum += b[3 * x + k] * a[3 * k + y];
      c[3 * x + y] += BOTH ? sum : sum + sum;
    }
}

// --- y = x/(‖X‖² + 1) -------------------------------------------------------------------------------------------------

template <typename T, typename V>
struct Bound {
  V j[ROWS], s;

  INLINE explicit Bound(const V n[ROWS]) {
    metric(n, j);
    V square = n[0] * j[0];
    for (int r = 1; r < ROWS; ++r) square += n[r] * j[r];
    s = T(1) / (square + T(1));
  }
  // Gradient by x from g, that by y: s g − 2 s² (x·g) J x
  INLINE void back(const V n[ROWS], const V g[ROWS], V to[ROWS]) const {
    V along = n[0] * g[0];
    for (int r = 1; r < ROWS; ++r) along += n[r] * g[r];
    along *= T(2) * s * s;
    for (int r = 0; r < ROWS; ++r) to[r] = s * g[r] - along * j[r];
  }
  // Along a change h of x: that of y, and the gradient by x of h · back(g)
  INLINE void second(const V n[ROWS], const V g[ROWS], const V h[ROWS], V dy[ROWS], V dx[ROWS]) const {
    V jh[ROWS], xg = n[0] * g[0], hg = h[0] * g[0], hx = h[0] * j[0];
    metric(h, jh);
    for (int r = 1; r < ROWS; ++r) xg += n[r] * g[r], hg += h[r] * g[r], hx += h[r] * j[r];
    const V t = T(2) * s * s, along = T(4) * s * t * xg * hx - t * hg;
    for (int r = 0; r < ROWS; ++r) {
      dy[r] = s * h[r] - t * hx * n[r];
      dx[r] = along * j[r] - t * (g[r] * hx + xg * jh[r]);
    }
  }
};

// The same where BOUND, and nothing where not
template <bool BOUND, typename T, typename V>
INLINE void bound(V n[ROWS]) {
  if (!BOUND) return;
  const V s = Bound<T, V>(n).s;
  for (int r = 0; r < ROWS; ++r) n[r] *= s;
}
template <bool BOUND, typename T, typename V>
INLINE void bound_back(const V n[ROWS], V g[ROWS]) {
  if (!BOUND) return;
  V made[ROWS];
  Bound<T, V>(n).back(n, g, made);
  std::copy(made, made + ROWS, g);
}
// g becomes the gradient by x
template <bool BOUND, typename T, typename V>
INLINE void bound_second(const V n[ROWS], V g[ROWS], const V h[ROWS], V dy[ROWS], V dx[ROWS]) {
  if (BOUND) {
    const Bound<T, V> b(n);
    b.second(n, g, h, dy, dx);
    V made[ROWS];
    b.back(n, g, made);
    std::copy(made, made + ROWS, g);
  } else {
    for (int r = 0; r < ROWS; ++r) dy[r] = h[r], dx[r] = V{};
  }
}

// body(at, zero) for each block of the features of each atom, with `at` its place in an array of matrices
template <typename T, typename Body>
INLINE void over_atoms(const Call<T>& c, index_t f0, index_t f1, Body body) {
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, [&](index_t f, auto zero) __attribute__((always_inline)) {
      body(i * ROWS * c.features + f, zero);
    });
}

// Place of the numbers of an atom's parts, from that of its matrices
INLINE index_t parts_of(index_t at, index_t F) { return at / (ROWS * F) * PARTS * F + at % F; }

// --- x = v q of the part of a row, bounded or not; in: v (N, 9, F), q (N, 3F) ------------------------------------------

template <bool BOUND, typename T>
INLINE void scaled_forward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V x[ROWS];
    take(c.in[0] + at, F, x);
    for (int r = 0; r < ROWS; ++r) x[r] *= get<V>(c.in[1] + parts_of(at, F) + PART[r] * F);
    bound<BOUND, T>(x);
    give(x, c.out[0] + at, F);
  });
}

// in: v, q, gx; out: gv, gq
template <bool BOUND, typename T>
INLINE void scaled_backward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V v[ROWS], q[PARTS], x[ROWS], g[ROWS], gq[PARTS] = {zero, zero, zero};
    take(c.in[0] + at, F, v);
    take(c.in[2] + at, F, g);
    for (int p = 0; p < PARTS; ++p) q[p] = get<V>(c.in[1] + parts_of(at, F) + p * F);
    for (int r = 0; r < ROWS; ++r) x[r] = v[r] * q[PART[r]];
    bound_back<BOUND, T>(x, g);
    for (int r = 0; r < ROWS; ++r) gq[PART[r]] += g[r] * v[r], g[r] *= q[PART[r]];
    give(g, c.out[0] + at, F);
    for (int p = 0; p < PARTS; ++p) put(c.out[1] + parts_of(at, F) + p * F, gq[p]);
  });
}

// in: v, q, gx, hv, hq; out: dgx, dv, dq
template <bool BOUND, typename T>
INLINE void scaled_second(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V v[ROWS], q[PARTS], hq[PARTS], x[ROWS], g[ROWS], hv[ROWS], h[ROWS], dg[ROWS], dx[ROWS];
    V dq[PARTS] = {zero, zero, zero};
    take(c.in[0] + at, F, v);
    take(c.in[2] + at, F, g);
    take(c.in[3] + at, F, hv);
    for (int p = 0; p < PARTS; ++p) {
      q[p] = get<V>(c.in[1] + parts_of(at, F) + p * F);
      hq[p] = get<V>(c.in[4] + parts_of(at, F) + p * F);
    }
    for (int r = 0; r < ROWS; ++r) x[r] = v[r] * q[PART[r]], h[r] = hv[r] * q[PART[r]] + v[r] * hq[PART[r]];
    bound_second<BOUND, T>(x, g, h, dg, dx);
    give(dg, c.out[0] + at, F);
    for (int r = 0; r < ROWS; ++r) {
      dq[PART[r]] += dx[r] * v[r] + g[r] * hv[r];
      dx[r] = dx[r] * q[PART[r]] + g[r] * hq[PART[r]];
    }
    give(dx, c.out[1] + at, F);
    for (int p = 0; p < PARTS; ++p) put(c.out[2] + parts_of(at, F) + p * F, dq[p]);
  });
}

// --- s = P/(‖P‖² + 1) with P = Y M + M Y, or 2 Y M; in: y, m (N, 9, F) --------------------------------------------------

template <bool BOTH, typename T, typename V>
INLINE void product_of(const V y[ROWS], const V m[ROWS], V p[ROWS]) {
  V a[9], b[9], made[9] = {};
  matrix<false>(y, a);
  matrix<false>(m, b);
  multiply<BOTH>(a, b, made);
  numbers<T>(made, p);
}

// Add to the gradients by y and m of ⟨G, P(y, m)⟩
template <bool BOTH, typename V>
INLINE void product_back(const V g[9], const V y[ROWS], const V m[ROWS], V gy[9], V gm[9]) {
  V a[9], b[9];
  matrix<true>(m, b);
  multiply<BOTH>(g, b, gy);
  matrix<true>(y, a);
  multiply<BOTH>(a, g, gm);
}

template <bool BOTH, typename T>
INLINE void combined_forward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V y[ROWS], m[ROWS], p[ROWS];
    take(c.in[0] + at, F, y);
    take(c.in[1] + at, F, m);
    product_of<BOTH, T>(y, m, p);
    bound<true, T>(p);
    give(p, c.out[0] + at, F);
  });
}

// in: y, m, gs; out: gy, gm
template <bool BOTH, typename T>
INLINE void combined_backward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V y[ROWS], m[ROWS], p[ROWS], g[ROWS], G[9], gy[9] = {}, gm[9] = {}, n[ROWS];
    take(c.in[0] + at, F, y);
    take(c.in[1] + at, F, m);
    take(c.in[2] + at, F, g);
    product_of<BOTH, T>(y, m, p);
    bound_back<true, T>(p, g);
    dual_matrix<T>(g, G);
    product_back<BOTH>(G, y, m, gy, gm);
    dual_numbers<T>(gy, n);
    give(n, c.out[0] + at, F);
    dual_numbers<T>(gm, n);
    give(n, c.out[1] + at, F);
  });
}

// in: y, m, gs, hy, hm; out: dgs, dy, dm
template <bool BOTH, typename T>
INLINE void combined_second(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V y[ROWS], m[ROWS], hy[ROWS], hm[ROWS], p[ROWS], g[ROWS], h[ROWS], n[ROWS], dp[ROWS];
    V G[9], dy[9] = {}, dm[9] = {};
    take(c.in[0] + at, F, y);
    take(c.in[1] + at, F, m);
    take(c.in[2] + at, F, g);
    take(c.in[3] + at, F, hy);
    take(c.in[4] + at, F, hm);
    product_of<BOTH, T>(y, m, p);
    product_of<BOTH, T>(hy, m, h);
    product_of<BOTH, T>(y, hm, n);
    for (int r = 0; r < ROWS; ++r) h[r] += n[r];
    bound_second<true, T>(p, g, h, n, dp);
    give(n, c.out[0] + at, F);
    dual_matrix<T>(g, G);
    product_back<BOTH>(G, hy, hm, dy, dm);
    dual_matrix<T>(dp, G);
    product_back<BOTH>(G, y, m, dy, dm);
    dual_numbers<T>(dy, n);
    give(n, c.out[1] + at, F);
    dual_numbers<T>(dm, n);
    give(n, c.out[2] + at, F);
  });
}

// --- z = X + D + D D, bounded or not; in: x, d (N, 9, F) ----------------------------------------------------------------

// Half of the gradient by a change of d comes from each of its places in D D
template <typename T, typename V>
INLINE void square_back(const V g[ROWS], const V d[ROWS], V to[ROWS]) {
  V G[9], D[9], made[9] = {}, n[ROWS];
  dual_matrix<T>(g, G);
  matrix<true>(d, D);
  multiply<true>(G, D, made);
  dual_numbers<T>(made, n);
  for (int r = 0; r < ROWS; ++r) to[r] += n[r];
}

template <typename T, typename V>
INLINE void sum_of(const V x[ROWS], const V d[ROWS], V z[ROWS]) {
  product_of<true, T>(d, d, z);
  for (int r = 0; r < ROWS; ++r) z[r] = x[r] + d[r] + T(0.5) * z[r];
}

template <bool BOUND, typename T>
INLINE void updated_forward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V x[ROWS], d[ROWS], z[ROWS];
    take(c.in[0] + at, F, x);
    take(c.in[1] + at, F, d);
    sum_of<T>(x, d, z);
    bound<BOUND, T>(z);
    give(z, c.out[0] + at, F);
  });
}

// in: x, d, gz; out: gx, gd
template <bool BOUND, typename T>
INLINE void updated_backward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V x[ROWS], d[ROWS], z[ROWS], g[ROWS], gd[ROWS];
    take(c.in[0] + at, F, x);
    take(c.in[1] + at, F, d);
    take(c.in[2] + at, F, g);
    sum_of<T>(x, d, z);
    bound_back<BOUND, T>(z, g);
    give(g, c.out[0] + at, F);
    std::copy(g, g + ROWS, gd);
    square_back<T>(g, d, gd);
    give(gd, c.out[1] + at, F);
  });
}

// in: x, d, gz, hx, hd; out: dgz, dx, dd
template <bool BOUND, typename T>
INLINE void updated_second(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V x[ROWS], d[ROWS], z[ROWS], g[ROWS], hx[ROWS], hd[ROWS], h[ROWS], dg[ROWS], dz[ROWS], dd[ROWS];
    take(c.in[0] + at, F, x);
    take(c.in[1] + at, F, d);
    take(c.in[2] + at, F, g);
    take(c.in[3] + at, F, hx);
    take(c.in[4] + at, F, hd);
    sum_of<T>(x, d, z);
    product_of<true, T>(hd, d, h);
    for (int r = 0; r < ROWS; ++r) h[r] += hx[r] + hd[r];
    bound_second<BOUND, T>(z, g, h, dg, dz);
    give(dg, c.out[0] + at, F);
    give(dz, c.out[1] + at, F);
    std::copy(dz, dz + ROWS, dd);
    if (BOUND) square_back<T>(dz, d, dd);
    square_back<T>(g, hd, dd);
    give(dd, c.out[2] + at, F);
  });
}

// --- squares ----------------------------------------------------------------------------------------------------------

// ‖I‖², ‖A‖², ‖S‖² side by side (N, 3F), in: x (N, 9, F)
template <typename T>
INLINE void squares_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V n[ROWS], j[ROWS], of_part[PARTS] = {zero, zero, zero};
    take(c.in[0] + at, F, n);
    metric(n, j);
    for (int r = 0; r < ROWS; ++r) of_part[PART[r]] += n[r] * j[r];
    for (int p = 0; p < PARTS; ++p) put(c.out[0] + parts_of(at, F) + p * F, of_part[p]);
  });
}

// in: x, g; out: gx = 2 g J x
template <typename T>
INLINE void squares_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V n[ROWS], j[ROWS], g[PARTS];
    take(c.in[0] + at, F, n);
    for (int p = 0; p < PARTS; ++p) g[p] = T(2) * get<V>(c.in[1] + parts_of(at, F) + p * F);
    metric(n, j);
    for (int r = 0; r < ROWS; ++r) j[r] *= g[PART[r]];
    give(j, c.out[0] + at, F);
  });
}

// in: x, g, h, a direction of gx; out: dg = 2 h·J x, dx = 2 g J h
template <typename T>
INLINE void squares_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_atoms(c, f0, f1, BLOCK(at) {
    using V = decltype(zero);
    V n[ROWS], h[ROWS], jh[ROWS], g[PARTS], dg[PARTS] = {zero, zero, zero};
    take(c.in[0] + at, F, n);
    take(c.in[2] + at, F, h);
    for (int p = 0; p < PARTS; ++p) g[p] = T(2) * get<V>(c.in[1] + parts_of(at, F) + p * F);
    metric(h, jh);
    for (int r = 0; r < ROWS; ++r) dg[PART[r]] += T(2) * n[r] * jh[r], jh[r] *= g[PART[r]];
    give(jh, c.out[1] + at, F);
    for (int p = 0; p < PARTS; ++p) put(c.out[0] + parts_of(at, F) + p * F, dg[p]);
  });
}

}  // namespace

#define TWO_KINDS(NAME, FUNCTION, FLAG)                                                                                \
  template <typename T> INLINE void NAME##_forward(const Call<T>& c, T*, index_t f0, index_t f1) {                     \
    FUNCTION##_forward<FLAG>(c, f0, f1);                                                                               \
  }                                                                                                                    \
  template <typename T> INLINE void NAME##_backward(const Call<T>& c, T*, index_t f0, index_t f1) {                    \
    FUNCTION##_backward<FLAG>(c, f0, f1);                                                                              \
  }                                                                                                                    \
  template <typename T> INLINE void NAME##_second(const Call<T>& c, T*, index_t f0, index_t f1) {                      \
    FUNCTION##_second<FLAG>(c, f0, f1);                                                                                \
  }                                                                                                                    \
  OPERATION(NAME##_forward, 0)                                                                                         \
  OPERATION(NAME##_backward, 0)                                                                                        \
  OPERATION(NAME##_second, 0)
TWO_KINDS(scale, scaled, false)
TWO_KINDS(scale_bound, scaled, true)
TWO_KINDS(combine, combined, true)
TWO_KINDS(combine_turned, combined, false)
TWO_KINDS(update, updated, false)
TWO_KINDS(update_bound, updated, true)
OPERATION(squares_forward, 0)
OPERATION(squares_backward, 0)
OPERATION(squares_second, 0)
