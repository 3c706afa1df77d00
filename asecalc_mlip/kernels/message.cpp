// Message passing of SchNet and PaiNN in training: forward, first and second derivative, as operations.h says.
#include "operations.h"

namespace {

// --- SchNet: y_i = Σ_e w_e x_j; inputs w (E, F), x (N, F) ------------------------------------------------------------

template <typename T>
INLINE void schnet_forward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  over_centers(c, ROW(first, end) {
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V y = zero;
      for (index_t e = first; e < end; ++e) y += get<V>(c.in[0] + e * F + f) * get<V>(c.in[1] + c.others[e] * F + f);
      add(c.out[0] + c.centers[first] * F + f, y);
    });
  });
}

// in: w, x, gy; out: gw, gx
template <typename T>
INLINE void schnet_backward(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t j = c.others[e] * F + f;
      const V g = get<V>(c.in[2] + c.centers[e] * F + f);
      put(c.out[0] + e * F + f, V(get<V>(c.in[1] + j) * g));
      add(c.out[1] + j, V(get<V>(c.in[0] + e * F + f) * g));
    });
}

// in: w, x, gy, hw, hx; out: dgy, dw, dx
template <typename T>
INLINE void schnet_second(const Call<T>& c, T*, index_t f0, index_t f1) {
  const index_t F = c.features;
  for (index_t e = 0; e < c.edges; ++e)
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t i = c.centers[e] * F + f, j = c.others[e] * F + f, k = e * F + f;
      const V g = get<V>(c.in[2] + i), hw = get<V>(c.in[3] + k), hx = get<V>(c.in[4] + j);
      add(c.out[0] + i, V(hw * get<V>(c.in[1] + j) + get<V>(c.in[0] + k) * hx));
      put(c.out[1] + k, V(hx * g));
      add(c.out[2] + j, V(hw * g));
    });
}

// --- PaiNN: q_i = Σ_e w1 x1_j; μ_i = Σ_e w2 x2_j u_e + w3 x3_j μ_j ------------------------------------------------------
// Inputs w (E, 3F), u (E, 3), x (N, 3F), μ (N, 3, F). Without MU the third parts and μ are absent: they are zero.

template <bool MU, typename T>
INLINE void pass_forward(const Call<T>& c, index_t f0, index_t f1) {
  constexpr index_t P = MU ? 3 : 2;
  const index_t F = c.features;
  over_centers(c, ROW(first, end) {
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      V q = zero, m[3] = {zero, zero, zero};
      for (index_t e = first; e < end; ++e) {
        const index_t j = c.others[e];
        const T *w = c.in[0] + e * P * F + f, *u = c.in[1] + 3 * e, *x = c.in[2] + j * P * F + f;
        q += get<V>(w) * get<V>(x);
        const V a = get<V>(w + F) * get<V>(x + F);
        for (int d = 0; d < 3; ++d) m[d] += u[d] * a;
        if (MU) {
          const V b = get<V>(w + 2 * F) * get<V>(x + 2 * F);
          for (int d = 0; d < 3; ++d) m[d] += b * get<V>(c.in[3] + (3 * j + d) * F + f);
        }
      }
      add(c.out[0] + c.centers[first] * F + f, q);
      for (int d = 0; d < 3; ++d) add(c.out[1] + (3 * c.centers[first] + d) * F + f, m[d]);
    });
  });
}

// in: w, u, x, (μ,) gq, gm; out: gw, gx, (gμ,) and the sums over features gu (E, 3)
template <bool MU, typename T>
INLINE void pass_backward(const Call<T>& c, T* to, index_t f0, index_t f1) {
  constexpr index_t P = MU ? 3 : 2;
  const index_t F = c.features;
  const T *gq = c.in[P + 1], *gm = c.in[P + 2];
  for (index_t e = 0; e < c.edges; ++e) {
    const index_t i = c.centers[e], j = c.others[e];
    const T* u = c.in[1] + 3 * e;
    Sums<T, 3> sums;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const T *w = c.in[0] + e * P * F + f, *x = c.in[2] + j * P * F + f;
      T *gw = c.out[0] + e * P * F + f, *gx = c.out[1] + j * P * F + f;
      const V gi = get<V>(gq + i * F + f), a = get<V>(w + F) * get<V>(x + F);
      V g[3], along = zero;
      for (int d = 0; d < 3; ++d) {
        g[d] = get<V>(gm + (3 * i + d) * F + f);
        along += u[d] * g[d];
        sums.add(d, V(a * g[d]));
      }
      put(gw, V(get<V>(x) * gi));
      add(gx, V(get<V>(w) * gi));
      put(gw + F, V(get<V>(x + F) * along));
      add(gx + F, V(get<V>(w + F) * along));
      if (MU) {
        const V b = get<V>(w + 2 * F) * get<V>(x + 2 * F);
        V mg = zero;
        for (int d = 0; d < 3; ++d) {
          mg += get<V>(c.in[3] + (3 * j + d) * F + f) * g[d];
          add(c.out[P - 1] + (3 * j + d) * F + f, V(b * g[d]));
        }
        put(gw + 2 * F, V(get<V>(x + 2 * F) * mg));
        add(gx + 2 * F, V(get<V>(w + 2 * F) * mg));
      }
    });
    sums.write(to + 3 * e);
  }
}

// in: w, u, x, (μ,) gq, gm, hw, hu, hx, (hμ); out: dgq, dgm, dw, dx, (dμ,) and the sums over features du (E, 3)
template <bool MU, typename T>
INLINE void pass_second(const Call<T>& c, T* to, index_t f0, index_t f1) {
  constexpr index_t P = MU ? 3 : 2;
  const index_t F = c.features;
  const T *gq = c.in[P + 1], *gm = c.in[P + 2];
  for (index_t e = 0; e < c.edges; ++e) {
    const index_t i = c.centers[e], j = c.others[e];
    const T *u = c.in[1] + 3 * e, *hu = c.in[P + 4] + 3 * e;
    Sums<T, 3> sums;
    over_features<T>(f0, f1, BLOCK(f) {
      using V = decltype(zero);
      const index_t k = e * P * F + f, l = j * P * F + f;
      const T *w = c.in[0] + k, *x = c.in[2] + l, *hw = c.in[P + 3] + k, *hx = c.in[P + 5] + l;
      T *dw = c.out[2] + k, *dx = c.out[3] + l;
      const V gi = get<V>(gq + i * F + f);
      const V a = get<V>(w + F) * get<V>(x + F);
      const V ha = get<V>(hw + F) * get<V>(x + F) + get<V>(w + F) * get<V>(hx + F);
      V g[3], p[3], along = zero, turned = zero;
      for (int d = 0; d < 3; ++d) {
        g[d] = get<V>(gm + (3 * i + d) * F + f);
        along += u[d] * g[d];
        turned += hu[d] * g[d];
        p[d] = u[d] * ha + hu[d] * a;
        sums.add(d, V(ha * g[d]));
      }
      add(c.out[0] + i * F + f, V(get<V>(hw) * get<V>(x) + get<V>(w) * get<V>(hx)));
      put(dw, V(get<V>(hx) * gi));
      add(dx, V(get<V>(hw) * gi));
      put(dw + F, V(get<V>(hx + F) * along + get<V>(x + F) * turned));
      add(dx + F, V(get<V>(hw + F) * along + get<V>(w + F) * turned));
      if (MU) {
        const V w3 = get<V>(w + 2 * F), x3 = get<V>(x + 2 * F), hw3 = get<V>(hw + 2 * F), hx3 = get<V>(hx + 2 * F);
        const V b = w3 * x3, hb = hw3 * x3 + w3 * hx3;
        V mg = zero, hg = zero;
        for (int d = 0; d < 3; ++d) {
          const index_t at = (3 * j + d) * F + f;
          const V m = get<V>(c.in[3] + at), h = get<V>(c.in[9] + at);
          mg += m * g[d];
          hg += h * g[d];
          p[d] += hb * m + b * h;
          add(c.out[4] + at, V(hb * g[d]));
        }
        put(dw + 2 * F, V(hx3 * mg + x3 * hg));
        add(dx + 2 * F, V(hw3 * mg + w3 * hg));
      }
      for (int d = 0; d < 3; ++d) add(c.out[1] + (3 * i + d) * F + f, p[d]);
    });
    sums.write(to + 3 * e);
  }
}

#define PASSING(NAME, MU)                                                                                              \
  template <typename T> INLINE void NAME##_forward(const Call<T>& c, T*, index_t f0, index_t f1) {                     \
    pass_forward<MU>(c, f0, f1);                                                                                       \
  }                                                                                                                    \
  template <typename T> INLINE void NAME##_backward(const Call<T>& c, T* sums, index_t f0, index_t f1) {               \
    pass_backward<MU>(c, sums, f0, f1);                                                                                \
  }                                                                                                                    \
  template <typename T> INLINE void NAME##_second(const Call<T>& c, T* sums, index_t f0, index_t f1) {                 \
    pass_second<MU>(c, sums, f0, f1);                                                                                  \
  }
PASSING(painn, true)
PASSING(painn_first, false)

}  // namespace

OPERATION(schnet_forward, 0)
OPERATION(schnet_backward, 0)
OPERATION(schnet_second, 0)
OPERATION(painn_forward, 0)
OPERATION(painn_backward, 3)
OPERATION(painn_second, 3)
OPERATION(painn_first_forward, 0)
OPERATION(painn_first_backward, 3)
OPERATION(painn_first_second, 3)

ASECALC_EXPORT index_t asecalc_abi() { return ASECALC_ABI; }

// setuptools builds this as a Python extension; it is opened through ctypes and never imported.
ASECALC_EXPORT void* PyInit__native() { return nullptr; }
