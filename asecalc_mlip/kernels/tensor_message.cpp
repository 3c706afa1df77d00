// Message passing of TensorNet in training, and its filters from a table: forward, first and second derivative.
//
// As in message.cpp every operation is linear in each argument, and the derivative of the first derivative along a
// direction, written h… below, is the second. Features do not mix, so threads share the features: each goes over all
// edges with some of them, no sum has two owners, and only sums over the features are put together at the end.
//
// Beside the messages there are the products of an atom's own matrices, whose gradients are products again.
//
// A tensor of an atom is nine rows of F numbers, one of the part I, three of A, five of S; filters have a row a part.
#include "asecalc_kernels.h"

#include <algorithm>
#include <thread>
#include <vector>

namespace {

constexpr index_t ROWS = 9, TERMS = 6;
constexpr index_t PART[ROWS] = {0, 1, 1, 1, 2, 2, 2, 2, 2};

template <typename T>
struct Call {
  index_t edges, features;
  const index_t *centers, *others;  // others: neighbours, or first nodes of intervals
  const T* const* in;
  T* const* out;
};

// --- m_i = Σ_e w_e y_j: inputs w (E, 3F), y (N, 9F) -----------------------------------------------------------------

template <typename T>
INLINE void tensor_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *w = c.in[0] + e * 3 * F, *y = c.in[1] + c.others[e] * ROWS * F;
    T* m = c.out[0] + c.centers[e] * ROWS * F;
    for (index_t r = 0; r < ROWS; ++r) {
      const T *wr = w + PART[r] * F, *yr = y + r * F;
      T* mr = m + r * F;
#pragma omp simd
      for (index_t f = f0; f < f1; ++f) mr[f] += wr[f] * yr[f];
    }
  }
}

// in: w, y, gm; out: gw, gy
template <typename T>
INLINE void tensor_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *w = c.in[0] + e * 3 * F, *y = c.in[1] + c.others[e] * ROWS * F, *g = c.in[2] + c.centers[e] * ROWS * F;
    T *gw = c.out[0] + e * 3 * F, *gy = c.out[1] + c.others[e] * ROWS * F;
    for (index_t r = 0; r < ROWS; ++r) {
      const T *wr = w + PART[r] * F, *yr = y + r * F, *gr = g + r * F;
      T *gwr = gw + PART[r] * F, *gyr = gy + r * F;
      const bool first = r == 0 || PART[r] != PART[r - 1];
#pragma omp simd
      for (index_t f = f0; f < f1; ++f) {
        gwr[f] = (first ? T(0) : gwr[f]) + yr[f] * gr[f];
        gyr[f] += wr[f] * gr[f];
      }
    }
  }
}

// in: w, y, gm, hw, hy; out: dgm, dw, dy
template <typename T>
INLINE void tensor_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const index_t i = c.centers[e] * ROWS * F, j = c.others[e] * ROWS * F, k = e * 3 * F;
    for (index_t r = 0; r < ROWS; ++r) {
      const index_t p = k + PART[r] * F;
      const T *w = c.in[0] + p, *y = c.in[1] + j + r * F, *g = c.in[2] + i + r * F;
      const T *hw = c.in[3] + p, *hy = c.in[4] + j + r * F;
      T *dg = c.out[0] + i + r * F, *dw = c.out[1] + p, *dy = c.out[2] + j + r * F;
      const bool first = r == 0 || PART[r] != PART[r - 1];
#pragma omp simd
      for (index_t f = f0; f < f1; ++f) {
        dg[f] += hw[f] * y[f] + w[f] * hy[f];
        dw[f] = (first ? T(0) : dw[f]) + hy[f] * g[f];
        dy[f] += hw[f] * g[f];
      }
    }
  }
}

// --- u_i = Σ_e s_e a_e: inputs a (E, 3F), s (E, 9) ------------------------------------------------------------------

template <typename T>
INLINE void spread_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *a = c.in[0] + e * 3 * F, *s = c.in[1] + e * ROWS;
    T* u = c.out[0] + c.centers[e] * ROWS * F;
    for (index_t r = 0; r < ROWS; ++r) {
      const T* ar = a + PART[r] * F;
      T* ur = u + r * F;
#pragma omp simd
      for (index_t f = f0; f < f1; ++f) ur[f] += s[r] * ar[f];
    }
  }
}

// in: a, s, gu; out: ga, and the sums over features gs (E, 9)
template <typename T>
INLINE void spread_backward(const Call<T>& c, T* sums, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *a = c.in[0] + e * 3 * F, *s = c.in[1] + e * ROWS, *g = c.in[2] + c.centers[e] * ROWS * F;
    T* ga = c.out[0] + e * 3 * F;
    for (index_t r = 0; r < ROWS; ++r) {
      const T *ar = a + PART[r] * F, *gr = g + r * F;
      T *gar = ga + PART[r] * F, total = 0;
      const bool first = r == 0 || PART[r] != PART[r - 1];
#pragma omp simd reduction(+ : total)
      for (index_t f = f0; f < f1; ++f) {
        gar[f] = (first ? T(0) : gar[f]) + s[r] * gr[f];
        total += ar[f] * gr[f];
      }
      sums[e * ROWS + r] = total;
    }
  }
}

// in: a, s, gu, ha, hs; out: dgu, da, and the sums over features ds (E, 9)
template <typename T>
INLINE void spread_second(const Call<T>& c, T* sums, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *s = c.in[1] + e * ROWS, *hs = c.in[4] + e * ROWS;
    for (index_t r = 0; r < ROWS; ++r) {
      const index_t p = e * 3 * F + PART[r] * F, i = c.centers[e] * ROWS * F + r * F;
      const T *a = c.in[0] + p, *g = c.in[2] + i, *ha = c.in[3] + p;
      T *dg = c.out[0] + i, *da = c.out[1] + p, total = 0;
      const bool first = r == 0 || PART[r] != PART[r - 1];
#pragma omp simd reduction(+ : total)
      for (index_t f = f0; f < f1; ++f) {
        dg[f] += s[r] * ha[f] + hs[r] * a[f];
        da[f] = (first ? T(0) : da[f]) + hs[r] * g[f];
        total += ha[f] * g[f];
      }
      sums[e * ROWS + r] = total;
    }
  }
}

// --- w_e = Σ_k c_ek t_{start + k}: inputs c (E, 6), t (nodes, F) ----------------------------------------------------

template <typename T>
INLINE void table_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *k = c.in[0] + e * TERMS, *t = c.in[1] + c.others[e] * F;
    T* w = c.out[0] + e * F;
#pragma omp simd
    for (index_t f = f0; f < f1; ++f)
      w[f] = k[0] * t[f] + k[1] * t[F + f] + k[2] * t[2 * F + f] + k[3] * t[3 * F + f] + k[4] * t[4 * F + f] +
             k[5] * t[5 * F + f];
  }
}

// in: c, t, gw; out: gt, and the sums over features gc (E, 6)
template <typename T>
INLINE void table_backward(const Call<T>& c, T* sums, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *k = c.in[0] + e * TERMS, *g = c.in[2] + e * F;
    for (index_t n = 0; n < TERMS; ++n) {
      const T* t = c.in[1] + (c.others[e] + n) * F;
      T *gt = c.out[0] + (c.others[e] + n) * F, total = 0;
#pragma omp simd reduction(+ : total)
      for (index_t f = f0; f < f1; ++f) {
        gt[f] += k[n] * g[f];
        total += t[f] * g[f];
      }
      sums[e * TERMS + n] = total;
    }
  }
}

// in: c, t, gw, hc, ht; out: dgw, dt, and the sums over features dc (E, 6)
template <typename T>
INLINE void table_second(const Call<T>& c, T* sums, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e) {
    const T *k = c.in[0] + e * TERMS, *hk = c.in[3] + e * TERMS, *g = c.in[2] + e * F;
    T* dg = c.out[0] + e * F;
    for (index_t n = 0; n < TERMS; ++n) {
      const index_t row = (c.others[e] + n) * F;
      const T *t = c.in[1] + row, *ht = c.in[4] + row;
      T *dt = c.out[1] + row, total = 0;
#pragma omp simd reduction(+ : total)
      for (index_t f = f0; f < f1; ++f) {
        dg[f] = (n == 0 ? T(0) : dg[f]) + hk[n] * t[f] + k[n] * ht[f];
        dt[f] += hk[n] * g[f];
        total += ht[f] * g[f];
      }
      sums[e * TERMS + n] = total;
    }
  }
}

// --- matrices of atoms, here "edges": products and bounds ------------------------------------------------------------

// Nine numbers n of a matrix X, and gradients g = ∂E/∂n by them, are not the same: g = J n(∂E/∂X) with the metric
// J that ⟨X, Y⟩ = Σ X_ab Y_ab has in these numbers.
template <typename T>
INLINE void metric(const T n[ROWS], T out[ROWS]) {
  out[0] = 3 * n[0];
  for (int k = 1; k < 4; ++k) out[k] = 2 * n[k];
  out[4] = 2 * n[4] + n[5], out[5] = n[4] + 2 * n[5];
  for (int k = 6; k < 9; ++k) out[k] = 2 * n[k];
}

template <typename T>
INLINE void metric_back(const T g[ROWS], T out[ROWS]) {
  const T third = T(1.0 / 3.0), half = T(0.5);
  out[0] = third * g[0];
  for (int k = 1; k < 4; ++k) out[k] = half * g[k];
  out[4] = third * (2 * g[4] - g[5]), out[5] = third * (2 * g[5] - g[4]);
  for (int k = 6; k < 9; ++k) out[k] = half * g[k];
}

template <typename T>
INLINE void to_matrix(const T n[ROWS], bool turned, T m[9]) {
  const T sign = turned ? T(-1) : T(1), x = sign * n[1], y = sign * n[2], z = sign * n[3];
  m[0] = n[0] + n[4], m[1] = n[6] - z, m[2] = n[7] + y;
  m[3] = n[6] + z, m[4] = n[0] + n[5], m[5] = n[8] - x;
  m[6] = n[7] - y, m[7] = n[8] + x, m[8] = n[0] - n[4] - n[5];
}

template <typename T>
INLINE void from_matrix(const T m[9], T n[ROWS]) {
  const T half = T(0.5);
  n[0] = T(1.0 / 3.0) * (m[0] + m[4] + m[8]);
  n[1] = half * (m[7] - m[5]), n[2] = half * (m[2] - m[6]), n[3] = half * (m[3] - m[1]);
  n[4] = m[0] - n[0], n[5] = m[4] - n[0];
  n[6] = half * (m[1] + m[3]), n[7] = half * (m[2] + m[6]), n[8] = half * (m[5] + m[7]);
}

// What `kind` says of a product: whether a, b and the result are gradients, a and b turned over, and A B + B A or A B
enum Kind { DUAL_A = 1, DUAL_B = 2, DUAL_OUT = 4, TURN_A = 8, TURN_B = 16, SYMMETRIC = 32 };

template <typename T, bool DA, bool DB, bool DO, bool SYM>
INLINE void product_atom(index_t F, const T* a, const T* b, T* out, bool turn_a, bool turn_b, index_t f0, index_t f1) {
#pragma omp simd
  for (index_t f = f0; f < f1; ++f) {
    T na[ROWS], nb[ROWS], ma[9], mb[9], mc[9], nc[ROWS], scratch[ROWS];
    for (int r = 0; r < ROWS; ++r) na[r] = a[r * F + f], nb[r] = b[r * F + f];
    if (DA) {
      metric_back(na, scratch);
      for (int r = 0; r < ROWS; ++r) na[r] = scratch[r];
    }
    if (DB) {
      metric_back(nb, scratch);
      for (int r = 0; r < ROWS; ++r) nb[r] = scratch[r];
    }
    to_matrix(na, turn_a, ma);
    to_matrix(nb, turn_b, mb);
    for (int x = 0; x < 3; ++x)
      for (int y = 0; y < 3; ++y) {
        T total = 0;
        for (int k = 0; k < 3; ++k) total += ma[3 * x + k] * mb[3 * k + y];
        if (SYM)
          for (int k = 0; k < 3; ++k) total += mb[3 * x + k] * ma[3 * k + y];
        mc[3 * x + y] = total;
      }
    from_matrix(mc, nc);
    if (DO) {
      metric(nc, scratch);
      for (int r = 0; r < ROWS; ++r) nc[r] = scratch[r];
    }
    for (int r = 0; r < ROWS; ++r) out[r * F + f] = nc[r];
  }
}

template <typename T, int KIND>
INLINE void product_kind(const Call<T>& c, index_t kind, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i)
    product_atom<T, (KIND & DUAL_A) != 0, (KIND & DUAL_B) != 0, (KIND & DUAL_OUT) != 0, (KIND & SYMMETRIC) != 0>(
        F, c.in[0] + i * ROWS * F, c.in[1] + i * ROWS * F, c.out[0] + i * ROWS * F, (kind & TURN_A) != 0,
        (kind & TURN_B) != 0, f0, f1);
}

// in: a, b (N, 9, F); out: their product; centers[0] is the kind
template <typename T>
INLINE void product_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t kind = c.centers[0];
  switch (kind & ~index_t(TURN_A | TURN_B)) {
#define CASE(K) case K: product_kind<T, K>(c, kind, f0, f1); break;
    CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
    CASE(32) CASE(33) CASE(34) CASE(35) CASE(36) CASE(37) CASE(38) CASE(39)
#undef CASE
  }
}

// y = x / (‖X‖² + 1), in: x (N, 9, F)
template <typename T>
INLINE void bound_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i) {
    const T* x = c.in[0] + i * ROWS * F;
    T* y = c.out[0] + i * ROWS * F;
#pragma omp simd
    for (index_t f = f0; f < f1; ++f) {
      T n[ROWS], j[ROWS], square = 0;
      for (int r = 0; r < ROWS; ++r) n[r] = x[r * F + f];
      metric(n, j);
      for (int r = 0; r < ROWS; ++r) square += n[r] * j[r];
      const T s = 1 / (square + 1);
      for (int r = 0; r < ROWS; ++r) y[r * F + f] = s * n[r];
    }
  }
}

// in: x, g; out: gx = s g − 2 s² (x·g) J x with s = 1/(‖X‖² + 1)
template <typename T>
INLINE void bound_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i) {
    const T *x = c.in[0] + i * ROWS * F, *g = c.in[1] + i * ROWS * F;
    T* gx = c.out[0] + i * ROWS * F;
#pragma omp simd
    for (index_t f = f0; f < f1; ++f) {
      T n[ROWS], j[ROWS], square = 0, along = 0;
      for (int r = 0; r < ROWS; ++r) n[r] = x[r * F + f];
      metric(n, j);
      for (int r = 0; r < ROWS; ++r) square += n[r] * j[r], along += n[r] * g[r * F + f];
      const T s = 1 / (square + 1), t = 2 * s * s * along;
      for (int r = 0; r < ROWS; ++r) gx[r * F + f] = s * g[r * F + f] - t * j[r];
    }
  }
}

// in: x, g, h, a direction of gx; out: dx, dg
template <typename T>
INLINE void bound_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t i = 0; i < c.edges; ++i) {
    const index_t at = i * ROWS * F;
    const T *x = c.in[0] + at, *g = c.in[1] + at, *h = c.in[2] + at;
    T *dx = c.out[0] + at, *dg = c.out[1] + at;
#pragma omp simd
    for (index_t f = f0; f < f1; ++f) {
      T n[ROWS], j[ROWS], d[ROWS], jd[ROWS], square = 0, xg = 0, hg = 0, hx = 0;
      for (int r = 0; r < ROWS; ++r) n[r] = x[r * F + f], d[r] = h[r * F + f];
      metric(n, j);
      metric(d, jd);
      for (int r = 0; r < ROWS; ++r) {
        const T v = g[r * F + f];
        square += n[r] * j[r], xg += n[r] * v, hg += d[r] * v, hx += d[r] * j[r];
      }
      const T s = 1 / (square + 1), t = 2 * s * s, along = 4 * s * t * xg * hx - t * hg;
      for (int r = 0; r < ROWS; ++r) {
        dx[r * F + f] = along * j[r] - t * (g[r * F + f] * hx + xg * jd[r]);
        dg[r * F + f] = s * d[r] - t * hx * n[r];
      }
    }
  }
}

// --- threads --------------------------------------------------------------------------------------------------------

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

// NAME_f32(edges, features, threads, centers, others, inputs, outputs, sums), f64 likewise; outputs that are sums over
// edges must be zero.
#define OPERATION_OF(NAME, WIDTH, T, S)                                                                                 \
  DISPATCH void NAME##_part(const Call<T>& c, T* sums, index_t f0, index_t f1) { NAME<T>(c, sums, f0, f1); }            \
  ASECALC_EXPORT void NAME##_##S(index_t edges, index_t features, index_t threads, const index_t* centers,              \
                                 const index_t* others, const T* const* in, T* const* out, T* sums) {                   \
    const Call<T> c{edges, features, centers, others, in, out};                                                      \
    by_features(c, threads, WIDTH, sums, [c](T* to, index_t f0, index_t f1) { NAME##_part(c, to, f0, f1); });           \
  }
#define OPERATION(NAME, WIDTH)        \
  OPERATION_OF(NAME, WIDTH, float, f32) \
  OPERATION_OF(NAME, WIDTH, double, f64)

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
OPERATION(bound_forward, 0)
OPERATION(bound_backward, 0)
OPERATION(bound_second, 0)
