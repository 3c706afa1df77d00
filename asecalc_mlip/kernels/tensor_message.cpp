// TensorNet in training: its messages, its filters from a table, and the matrices of an atom; forward, first and second
// derivative, as operations.h says.
//
// A tensor of an atom is nine rows of F numbers, one of the part I, three of A, five of S; filters have a row a part.
#include "operations.h"

namespace {

constexpr index_t ROWS = 9, PARTS = 3, TERMS = 6;
constexpr index_t PART[ROWS] = {0, 1, 1, 1, 2, 2, 2, 2, 2};

// --- m_i = Σ_e w_e y_j: inputs w (E, 3F), y (N, 9F) -----------------------------------------------------------------

template <typename T>
INLINE void tensor_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_centers(c, ROW(first, end) {
    T* m = c.out[0] + c.centers[first] * ROWS * F;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V sums[ROWS];
      for (auto& s : sums) s = zero;
      for (index_t e = first; e < end; ++e) {
        const T *w = c.in[0] + e * PARTS * F + f, *y = c.in[1] + c.others[e] * ROWS * F + f;
        for (int r = 0; r < ROWS; ++r) sums[r] += get<V>(w + PART[r] * F) * get<V>(y + r * F);
      }
      for (int r = 0; r < ROWS; ++r) add(m + r * F + f, sums[r]);
    });
  });
}

// in: w, y, gm; out: gw, gy
template <typename T>
INLINE void tensor_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_centers(c, ROW(first, end) {
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V g[ROWS];
      for (int r = 0; r < ROWS; ++r) g[r] = get<V>(c.in[2] + c.centers[first] * ROWS * F + r * F + f);
      for (index_t e = first; e < end; ++e) {
        const T *w = c.in[0] + e * PARTS * F + f, *y = c.in[1] + c.others[e] * ROWS * F + f;
        T *gw = c.out[0] + e * PARTS * F + f, *gy = c.out[1] + c.others[e] * ROWS * F + f;
        V of_part[PARTS] = {zero, zero, zero};
        for (int r = 0; r < ROWS; ++r) {
          of_part[PART[r]] += get<V>(y + r * F) * g[r];
          add(gy + r * F, get<V>(w + PART[r] * F) * g[r]);
        }
        for (int p = 0; p < PARTS; ++p) put(gw + p * F, of_part[p]);
      }
    });
  });
}

// in: w, y, gm, hw, hy; out: dgm, dw, dy
template <typename T>
INLINE void tensor_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_centers(c, ROW(first, end) {
    const index_t i = c.centers[first] * ROWS * F;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V g[ROWS], dg[ROWS];
      for (int r = 0; r < ROWS; ++r) g[r] = get<V>(c.in[2] + i + r * F + f), dg[r] = zero;
      for (index_t e = first; e < end; ++e) {
        const index_t k = e * PARTS * F + f, j = c.others[e] * ROWS * F + f;
        const T *w = c.in[0] + k, *y = c.in[1] + j, *hw = c.in[3] + k, *hy = c.in[4] + j;
        V of_part[PARTS] = {zero, zero, zero};
        for (int r = 0; r < ROWS; ++r) {
          const V direction = get<V>(hy + r * F), of_filter = get<V>(hw + PART[r] * F);
          dg[r] += of_filter * get<V>(y + r * F) + get<V>(w + PART[r] * F) * direction;
          of_part[PART[r]] += direction * g[r];
          add(c.out[2] + j + r * F, of_filter * g[r]);
        }
        for (int p = 0; p < PARTS; ++p) put(c.out[1] + k + p * F, of_part[p]);
      }
      for (int r = 0; r < ROWS; ++r) add(c.out[0] + i + r * F + f, dg[r]);
    });
  });
}

// --- u_i = Σ_e s_e w_e z_e with z_e = a_j + b_i: inputs w (E, 3F), s (E, 9), a and b (N, F) ---------------------------

template <typename T>
INLINE void spread_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_centers(c, ROW(first, end) {
    const index_t i = c.centers[first];
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const V b = get<V>(c.in[3] + i * F + f);
      V sums[ROWS];
      for (auto& s : sums) s = zero;
      for (index_t e = first; e < end; ++e) {
        const T *w = c.in[0] + e * PARTS * F + f, *s = c.in[1] + e * ROWS;
        const V z = get<V>(c.in[2] + c.others[e] * F + f) + b;
        V amount[PARTS];
        for (int p = 0; p < PARTS; ++p) amount[p] = get<V>(w + p * F) * z;
        for (int r = 0; r < ROWS; ++r) sums[r] += s[r] * amount[PART[r]];
      }
      for (int r = 0; r < ROWS; ++r) add(c.out[0] + (i * ROWS + r) * F + f, sums[r]);
    });
  });
}

// in: w, s, a, b, gu; out: gw, ga, gb, and the sums over features gs (E, 9)
template <typename T>
INLINE void spread_backward(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const index_t i = c.centers[e], j = c.others[e], k = e * PARTS * F;
    const T *s = c.in[1] + e * ROWS, *gu = c.in[4] + i * ROWS * F;
    Sums<T, ROWS> sums;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const V z = get<V>(c.in[2] + j * F + f) + get<V>(c.in[3] + i * F + f);
      V amount[PARTS], along[PARTS] = {zero, zero, zero}, gz = zero;
      for (int p = 0; p < PARTS; ++p) amount[p] = get<V>(c.in[0] + k + p * F + f) * z;
      for (int r = 0; r < ROWS; ++r) {
        const V g = get<V>(gu + r * F + f);
        along[PART[r]] += s[r] * g;
        sums.add(r, amount[PART[r]] * g);
      }
      for (int p = 0; p < PARTS; ++p) {
        put(c.out[0] + k + p * F + f, along[p] * z);
        gz += get<V>(c.in[0] + k + p * F + f) * along[p];
      }
      add(c.out[1] + j * F + f, gz);
      add(c.out[2] + i * F + f, gz);
    });
    sums.write(to + e * ROWS);
  }
}

// in: w, s, a, b, gu, hw, hs, ha, hb; out: dgu, dw, da, db, and the sums over features ds (E, 9)
template <typename T>
INLINE void spread_second(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const index_t i = c.centers[e], j = c.others[e], k = e * PARTS * F;
    const T *s = c.in[1] + e * ROWS, *hs = c.in[6] + e * ROWS, *gu = c.in[4] + i * ROWS * F;
    T* dgu = c.out[0] + i * ROWS * F;
    Sums<T, ROWS> sums;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const V z = get<V>(c.in[2] + j * F + f) + get<V>(c.in[3] + i * F + f);
      const V hz = get<V>(c.in[7] + j * F + f) + get<V>(c.in[8] + i * F + f);
      V amount[PARTS], change[PARTS], along[PARTS], turned[PARTS], dz = zero;
      for (int p = 0; p < PARTS; ++p) {
        const V w = get<V>(c.in[0] + k + p * F + f), hw = get<V>(c.in[5] + k + p * F + f);
        amount[p] = w * z, change[p] = hw * z + w * hz;
        along[p] = turned[p] = zero;
      }
      for (int r = 0; r < ROWS; ++r) {
        const V g = get<V>(gu + r * F + f);
        along[PART[r]] += s[r] * g;
        turned[PART[r]] += hs[r] * g;
        sums.add(r, change[PART[r]] * g);
        add(dgu + r * F + f, s[r] * change[PART[r]] + hs[r] * amount[PART[r]]);
      }
      for (int p = 0; p < PARTS; ++p) {
        const V w = get<V>(c.in[0] + k + p * F + f), hw = get<V>(c.in[5] + k + p * F + f);
        put(c.out[1] + k + p * F + f, turned[p] * z + along[p] * hz);
        dz += hw * along[p] + w * turned[p];
      }
      add(c.out[2] + j * F + f, dz);
      add(c.out[3] + i * F + f, dz);
    });
    sums.write(to + e * ROWS);
  }
}

// --- w_e = Σ_k c_ek t_{start + k}: inputs c (E, 6), t (nodes, F) ----------------------------------------------------

template <typename T>
INLINE void table_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *k = c.in[0] + e * TERMS, *t = c.in[1] + c.others[e] * F;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V w = zero;
      for (int n = 0; n < TERMS; ++n) w += k[n] * get<V>(t + n * F + f);
      put(c.out[0] + e * F + f, w);
    });
  }
}

// in: c, t, gw; out: gt, and the sums over features gc (E, 6)
template <typename T>
INLINE void table_backward(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *k = c.in[0] + e * TERMS, *t = c.in[1] + c.others[e] * F;
    Sums<T, TERMS> sums;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const V g = get<V>(c.in[2] + e * F + f);
      for (int n = 0; n < TERMS; ++n) {
        add(c.out[0] + (c.others[e] + n) * F + f, k[n] * g);
        sums.add(n, get<V>(t + n * F + f) * g);
      }
    });
    sums.write(to + e * TERMS);
  }
}

// in: c, t, gw, hc, ht; out: dgw, dt, and the sums over features dc (E, 6)
template <typename T>
INLINE void table_second(const Call<T>& c, T* to, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *k = c.in[0] + e * TERMS, *hk = c.in[3] + e * TERMS;
    const T *t = c.in[1] + c.others[e] * F, *ht = c.in[4] + c.others[e] * F;
    Sums<T, TERMS> sums;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const V g = get<V>(c.in[2] + e * F + f);
      V dg = zero;
      for (int n = 0; n < TERMS; ++n) {
        const V direction = get<V>(ht + n * F + f);
        dg += hk[n] * get<V>(t + n * F + f) + k[n] * direction;
        add(c.out[1] + (c.others[e] + n) * F + f, hk[n] * g);
        sums.add(n, direction * g);
      }
      put(c.out[0] + e * F + f, dg);
    });
    sums.write(to + e * TERMS);
  }
}

// --- matrices of atoms, here "edges" --------------------------------------------------------------------------------

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

// Matrices whose nine numbers, or gradients by them (DUAL), are rows of F numbers; the transpose with TURN
template <bool DUAL, bool TURN, typename V, typename T>
INLINE void read_matrix(const T* rows, index_t F, V m[9]) {
  V n[ROWS];
  for (int r = 0; r < ROWS; ++r) n[r] = get<V>(rows + r * F);
  if (DUAL) {
    V back[ROWS];
    metric_back<T>(n, back);
    for (int r = 0; r < ROWS; ++r) n[r] = back[r];
  }
  constexpr int A = TURN ? 3 : 1, B = TURN ? 6 : 2, C = TURN ? 7 : 5;
  m[0] = n[0] + n[4], m[4] = n[0] + n[5], m[8] = n[0] - n[4] - n[5];
  m[A] = n[6] - n[3], m[4 - A] = n[6] + n[3];
  m[B] = n[7] + n[2], m[8 - B] = n[7] - n[2];
  m[C] = n[8] - n[1], m[12 - C] = n[8] + n[1];
}

template <bool DUAL, typename V, typename T>
INLINE void write_matrix(const V m[9], T* rows, index_t F) {
  const T half = T(0.5);
  V n[ROWS], made[ROWS];
  n[0] = T(1.0 / 3.0) * (m[0] + m[4] + m[8]);
  n[1] = half * (m[7] - m[5]), n[2] = half * (m[2] - m[6]), n[3] = half * (m[3] - m[1]);
  n[4] = m[0] - n[0], n[5] = m[4] - n[0];
  n[6] = half * (m[1] + m[3]), n[7] = half * (m[2] + m[6]), n[8] = half * (m[5] + m[7]);
  if (DUAL) metric(n, made);
  for (int r = 0; r < ROWS; ++r) put(rows + r * F, DUAL ? made[r] : n[r]);
}

// C += A B, and B A too with BOTH
template <bool BOTH, typename V>
INLINE void multiply(const V a[9], const V b[9], V c[9]) {
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y)
      for (int k = 0; k < 3; ++k) {
        c[3 * x + y] += a[3 * x + k] * b[3 * k + y];
        if (BOTH) c[3 * x + y] += b[3 * x + k] * a[3 * k + y];
      }
}

// P = A B, or A B + B A with BOTH; in: a, b (N, 9, F); out: p
template <bool BOTH, typename T>
INLINE void multiply_forward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t at = i * ROWS * F + f;
      V a[9], b[9], p[9] = {};
      read_matrix<false, false>(c.in[0] + at, F, a);
      read_matrix<false, false>(c.in[1] + at, F, b);
      multiply<BOTH>(a, b, p);
      write_matrix<false>(p, c.out[0] + at, F);
    });
}

// in: a, b, gp; out: ga of G Bᵀ, gb of Aᵀ G
template <bool BOTH, typename T>
INLINE void multiply_backward(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t at = i * ROWS * F + f;
      V g[9], other[9];
      read_matrix<true, false>(c.in[2] + at, F, g);
      {
        V made[9] = {};
        read_matrix<false, true>(c.in[1] + at, F, other);
        multiply<BOTH>(g, other, made);
        write_matrix<true>(made, c.out[0] + at, F);
      }
      V made[9] = {};
      read_matrix<false, true>(c.in[0] + at, F, other);
      multiply<BOTH>(other, g, made);
      write_matrix<true>(made, c.out[1] + at, F);
    });
}

// in: a, b, gp, ha, hb; out: dgp of Hᵃ B + A Hᵇ, da of G Hᵇᵀ, db of Hᵃᵀ G
template <bool BOTH, typename T>
INLINE void multiply_second(const Call<T>& c, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t at = i * ROWS * F + f;
      V first[9], other[9];
      {
        V made[9] = {};
        read_matrix<false, false>(c.in[3] + at, F, first);
        read_matrix<false, false>(c.in[1] + at, F, other);
        multiply<BOTH>(first, other, made);
        read_matrix<false, false>(c.in[0] + at, F, first);
        read_matrix<false, false>(c.in[4] + at, F, other);
        multiply<BOTH>(first, other, made);
        write_matrix<false>(made, c.out[0] + at, F);
      }
      read_matrix<true, false>(c.in[2] + at, F, first);
      {
        V made[9] = {};
        read_matrix<false, true>(c.in[4] + at, F, other);
        multiply<BOTH>(first, other, made);
        write_matrix<true>(made, c.out[1] + at, F);
      }
      V made[9] = {};
      read_matrix<false, true>(c.in[3] + at, F, other);
      multiply<BOTH>(other, first, made);
      write_matrix<true>(made, c.out[2] + at, F);
    });
}

#define PRODUCT(NAME, BOTH)                                                                                            \
  template <typename T> INLINE void NAME##_forward(const Call<T>& c, T*, index_t f0, index_t f1) {                     \
    multiply_forward<BOTH>(c, f0, f1);                                                                                 \
  }                                                                                                                    \
  template <typename T> INLINE void NAME##_backward(const Call<T>& c, T*, index_t f0, index_t f1) {                    \
    multiply_backward<BOTH>(c, f0, f1);                                                                                \
  }                                                                                                                    \
  template <typename T> INLINE void NAME##_second(const Call<T>& c, T*, index_t f0, index_t f1) {                      \
    multiply_second<BOTH>(c, f0, f1);                                                                                  \
  }
PRODUCT(product, false)
PRODUCT(symmetric, true)

// y = x / (‖X‖² + 1), in: x (N, 9, F)
template <typename T>
INLINE void bound_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t at = i * ROWS * F + f;
      V n[ROWS], j[ROWS], square = zero;
      for (int r = 0; r < ROWS; ++r) n[r] = get<V>(c.in[0] + at + r * F);
      metric(n, j);
      for (int r = 0; r < ROWS; ++r) square += n[r] * j[r];
      const V s = T(1) / (square + T(1));
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + at + r * F, V(s * n[r]));
    });
}

// in: x, g; out: gx = s g − 2 s² (x·g) J x with s = 1/(‖X‖² + 1)
template <typename T>
INLINE void bound_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t at = i * ROWS * F + f;
      V n[ROWS], j[ROWS], g[ROWS], square = zero, along = zero;
      for (int r = 0; r < ROWS; ++r) n[r] = get<V>(c.in[0] + at + r * F), g[r] = get<V>(c.in[1] + at + r * F);
      metric(n, j);
      for (int r = 0; r < ROWS; ++r) square += n[r] * j[r], along += n[r] * g[r];
      const V s = T(1) / (square + T(1)), t = T(2) * s * s * along;
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + at + r * F, V(s * g[r] - t * j[r]));
    });
}

// in: x, g, h, a direction of gx; out: dg, dx
template <typename T>
INLINE void bound_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t at = i * ROWS * F + f;
      V n[ROWS], j[ROWS], g[ROWS], d[ROWS], jd[ROWS], square = zero, xg = zero, hg = zero, hx = zero;
      for (int r = 0; r < ROWS; ++r) {
        n[r] = get<V>(c.in[0] + at + r * F), g[r] = get<V>(c.in[1] + at + r * F);
        d[r] = get<V>(c.in[2] + at + r * F);
      }
      metric(n, j);
      metric(d, jd);
      for (int r = 0; r < ROWS; ++r) square += n[r] * j[r], xg += n[r] * g[r], hg += d[r] * g[r], hx += d[r] * j[r];
      const V s = T(1) / (square + T(1)), t = T(2) * s * s, along = T(4) * s * t * xg * hx - t * hg;
      for (int r = 0; r < ROWS; ++r) {
        put(c.out[0] + at + r * F, V(s * d[r] - t * hx * n[r]));
        put(c.out[1] + at + r * F, V(along * j[r] - t * (g[r] * hx + xg * jd[r])));
      }
    });
}

// ‖I‖², ‖A‖², ‖S‖² side by side (N, 3F), in: x (N, 9, F)
template <typename T>
INLINE void squares_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V n[ROWS], j[ROWS], of_part[PARTS] = {zero, zero, zero};
      for (int r = 0; r < ROWS; ++r) n[r] = get<V>(c.in[0] + (i * ROWS + r) * F + f);
      metric(n, j);
      for (int r = 0; r < ROWS; ++r) of_part[PART[r]] += n[r] * j[r];
      for (int p = 0; p < PARTS; ++p) put(c.out[0] + (i * PARTS + p) * F + f, of_part[p]);
    });
}

// in: x, g; out: gx = 2 g J x
template <typename T>
INLINE void squares_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V n[ROWS], j[ROWS], g[PARTS];
      for (int r = 0; r < ROWS; ++r) n[r] = get<V>(c.in[0] + (i * ROWS + r) * F + f);
      for (int p = 0; p < PARTS; ++p) g[p] = T(2) * get<V>(c.in[1] + (i * PARTS + p) * F + f);
      metric(n, j);
      for (int r = 0; r < ROWS; ++r) put(c.out[0] + (i * ROWS + r) * F + f, V(g[PART[r]] * j[r]));
    });
}

// in: x, g, h, a direction of gx; out: dg = 2 h·J x, dx = 2 g J h
template <typename T>
INLINE void squares_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V n[ROWS], h[ROWS], jh[ROWS], g[PARTS], dg[PARTS] = {zero, zero, zero};
      for (int r = 0; r < ROWS; ++r) {
        n[r] = get<V>(c.in[0] + (i * ROWS + r) * F + f);
        h[r] = get<V>(c.in[2] + (i * ROWS + r) * F + f);
      }
      for (int p = 0; p < PARTS; ++p) g[p] = T(2) * get<V>(c.in[1] + (i * PARTS + p) * F + f);
      metric(h, jh);
      for (int r = 0; r < ROWS; ++r) {
        dg[PART[r]] += T(2) * n[r] * jh[r];
        put(c.out[1] + (i * ROWS + r) * F + f, V(g[PART[r]] * jh[r]));
      }
      for (int p = 0; p < PARTS; ++p) put(c.out[0] + (i * PARTS + p) * F + f, dg[p]);
    });
}

}  // namespace

OPERATION(tensor_forward, 0)
OPERATION(tensor_backward, 0)
OPERATION(tensor_second, 0)
OPERATION(spread_forward, 0)
OPERATION(spread_backward, ROWS)
OPERATION(spread_second, ROWS)
OPERATION(table_forward, 0)
OPERATION(table_backward, TERMS)
OPERATION(table_second, TERMS)
OPERATION(product_forward, 0)
OPERATION(product_backward, 0)
OPERATION(product_second, 0)
OPERATION(symmetric_forward, 0)
OPERATION(symmetric_backward, 0)
OPERATION(symmetric_second, 0)
OPERATION(bound_forward, 0)
OPERATION(bound_backward, 0)
OPERATION(bound_second, 0)
OPERATION(squares_forward, 0)
OPERATION(squares_backward, 0)
OPERATION(squares_second, 0)
