// Message passing of SchNet and PaiNN on the CPU: forward, first and second derivative.
//
// Plain C interface on data pointers, called through ctypes: the build needs no torch and the library outlives torch
// releases. Edges are sorted by centre, so the sums over neighbours of an atom are kept in a row that stays in cache.
// Every operation is linear in each argument; the second derivative is therefore the derivative of the first along
// a direction, written h… below, and one edge loop yields all of it.
#include "asecalc_kernels.h"

namespace {

// SchNet: y_i = Σ_e w_e x_j
template <typename T>
INLINE void schnet_forward(index_t E, index_t F, const index_t* ci, const index_t* nj,
                                                          const T* w, const T* x, T* y) {
  for (index_t e = 0; e < E; ++e) {
    const T *we = w + e * F, *xj = x + nj[e] * F;
    T* yi = y + ci[e] * F;
#pragma omp simd
    for (index_t f = 0; f < F; ++f) yi[f] += we[f] * xj[f];
  }
}

template <typename T>
INLINE void schnet_backward(index_t E, index_t F, const index_t* ci, const index_t* nj,
                                                           const T* w, const T* x, const T* gy, T* gw, T* gx) {
  for (index_t e = 0; e < E; ++e) {
    const T *we = w + e * F, *xj = x + nj[e] * F, *gi = gy + ci[e] * F;
    T *gwe = gw + e * F, *gxj = gx + nj[e] * F;
#pragma omp simd
    for (index_t f = 0; f < F; ++f) {
      gwe[f] = xj[f] * gi[f];
      gxj[f] += we[f] * gi[f];
    }
  }
}

template <typename T>
INLINE void schnet_second(index_t E, index_t F, const index_t* ci, const index_t* nj,
                                                         const T* w, const T* x, const T* gy, const T* hw, const T* hx,
                                                         T* dgy, T* dw, T* dx) {
  for (index_t e = 0; e < E; ++e) {
    const index_t i = ci[e] * F, j = nj[e] * F, k = e * F;
#pragma omp simd
    for (index_t f = 0; f < F; ++f) {
      dgy[i + f] += hw[k + f] * x[j + f] + w[k + f] * hx[j + f];
      dw[k + f] = hx[j + f] * gy[i + f];
      dx[j + f] += hw[k + f] * gy[i + f];
    }
  }
}

// PaiNN: q_i = Σ_e w1 x1_j;  μ_i = Σ_e w2 x2_j u_e + w3 x3_j μ_j.  Rows of w and x hold the parts 1, 2 (and 3) in turn;
// rows of vectors hold the x, y and z components. Without MU the third part and μ are absent (they are zero).
template <typename T, bool MU>
INLINE void painn_forward(index_t E, index_t F, const index_t* ci, const index_t* nj,
                                                         const T* w, const T* u, const T* x, const T* mu, T* q, T* m) {
  constexpr index_t P = MU ? 3 : 2;
  for (index_t e = 0; e < E; ++e) {
    const T *w1 = w + e * P * F, *w2 = w1 + F, *w3 = w1 + 2 * F;
    const T *x1 = x + nj[e] * P * F, *x2 = x1 + F, *x3 = x1 + 2 * F;
    const T *mx = MU ? mu + nj[e] * 3 * F : nullptr, *my = MU ? mx + F : nullptr, *mz = MU ? my + F : nullptr;
    T *qi = q + ci[e] * F, *ox = m + ci[e] * 3 * F, *oy = ox + F, *oz = oy + F;
    const T ux = u[3 * e], uy = u[3 * e + 1], uz = u[3 * e + 2];
#pragma omp simd
    for (index_t f = 0; f < F; ++f) {
      const T a = w2[f] * x2[f];
      const T b = MU ? w3[f] * x3[f] : T(0);
      qi[f] += w1[f] * x1[f];
      ox[f] += a * ux + (MU ? b * mx[f] : T(0));
      oy[f] += a * uy + (MU ? b * my[f] : T(0));
      oz[f] += a * uz + (MU ? b * mz[f] : T(0));
    }
  }
}

template <typename T, bool MU>
INLINE void painn_backward(index_t E, index_t F, const index_t* ci, const index_t* nj,
                                                          const T* w, const T* u, const T* x, const T* mu, const T* gq,
                                                          const T* gm, T* gw, T* gu, T* gx, T* gmu) {
  constexpr index_t P = MU ? 3 : 2;
  for (index_t e = 0; e < E; ++e) {
    const T *w1 = w + e * P * F, *w2 = w1 + F, *w3 = w1 + 2 * F;
    const T *x1 = x + nj[e] * P * F, *x2 = x1 + F, *x3 = x1 + 2 * F;
    const T *mx = MU ? mu + nj[e] * 3 * F : nullptr, *my = MU ? mx + F : nullptr, *mz = MU ? my + F : nullptr;
    const T *gi = gq + ci[e] * F, *ax = gm + ci[e] * 3 * F, *ay = ax + F, *az = ay + F;
    T *gw1 = gw + e * P * F, *gw2 = gw1 + F, *gw3 = gw1 + 2 * F;
    T *gx1 = gx + nj[e] * P * F, *gx2 = gx1 + F, *gx3 = gx1 + 2 * F;
    T *bx = MU ? gmu + nj[e] * 3 * F : nullptr, *by = MU ? bx + F : nullptr, *bz = MU ? by + F : nullptr;
    const T ux = u[3 * e], uy = u[3 * e + 1], uz = u[3 * e + 2];
    T sx = 0, sy = 0, sz = 0;
#pragma omp simd reduction(+ : sx, sy, sz)
    for (index_t f = 0; f < F; ++f) {
      const T ug = ux * ax[f] + uy * ay[f] + uz * az[f];
      const T a = w2[f] * x2[f];
      gw1[f] = x1[f] * gi[f];
      gx1[f] += w1[f] * gi[f];
      gw2[f] = x2[f] * ug;
      gx2[f] += w2[f] * ug;
      sx += a * ax[f];
      sy += a * ay[f];
      sz += a * az[f];
      if (MU) {
        const T mg = mx[f] * ax[f] + my[f] * ay[f] + mz[f] * az[f];
        const T b = w3[f] * x3[f];
        gw3[f] = x3[f] * mg;
        gx3[f] += w3[f] * mg;
        bx[f] += b * ax[f];
        by[f] += b * ay[f];
        bz[f] += b * az[f];
      }
    }
    gu[3 * e] = sx;
    gu[3 * e + 1] = sy;
    gu[3 * e + 2] = sz;
  }
}

template <typename T, bool MU>
INLINE void painn_second(index_t E, index_t F, const index_t* ci, const index_t* nj,
                                                        const T* w, const T* u, const T* x, const T* mu, const T* gq,
                                                        const T* gm, const T* hw, const T* hu, const T* hx,
                                                        const T* hmu, T* dgq, T* dgm, T* dw, T* du, T* dx, T* dmu) {
  constexpr index_t P = MU ? 3 : 2;
  for (index_t e = 0; e < E; ++e) {
    const index_t k = e * P * F, j = nj[e] * P * F, i = ci[e] * F;
    const T *w1 = w + k, *w2 = w1 + F, *w3 = w2 + F, *hw1 = hw + k, *hw2 = hw1 + F, *hw3 = hw2 + F;
    const T *x1 = x + j, *x2 = x1 + F, *x3 = x2 + F, *hx1 = hx + j, *hx2 = hx1 + F, *hx3 = hx2 + F;
    const T *mx = MU ? mu + nj[e] * 3 * F : nullptr, *my = MU ? mx + F : nullptr, *mz = MU ? my + F : nullptr;
    const T *nx = MU ? hmu + nj[e] * 3 * F : nullptr, *ny = MU ? nx + F : nullptr, *nz = MU ? ny + F : nullptr;
    const T *gi = gq + i, *ax = gm + 3 * i, *ay = ax + F, *az = ay + F;
    T *oq = dgq + i, *ox = dgm + 3 * i, *oy = ox + F, *oz = oy + F;
    T *dw1 = dw + k, *dw2 = dw1 + F, *dw3 = dw2 + F, *dx1 = dx + j, *dx2 = dx1 + F, *dx3 = dx2 + F;
    T *bx = MU ? dmu + nj[e] * 3 * F : nullptr, *by = MU ? bx + F : nullptr, *bz = MU ? by + F : nullptr;
    const T ux = u[3 * e], uy = u[3 * e + 1], uz = u[3 * e + 2];
    const T vx = hu[3 * e], vy = hu[3 * e + 1], vz = hu[3 * e + 2];
    T sx = 0, sy = 0, sz = 0;
#pragma omp simd reduction(+ : sx, sy, sz)
    for (index_t f = 0; f < F; ++f) {
      const T ug = ux * ax[f] + uy * ay[f] + uz * az[f];
      const T vg = vx * ax[f] + vy * ay[f] + vz * az[f];
      const T a = w2[f] * x2[f];
      const T ha = hw2[f] * x2[f] + w2[f] * hx2[f];
      oq[f] += hw1[f] * x1[f] + w1[f] * hx1[f];
      dw1[f] = hx1[f] * gi[f];
      dx1[f] += hw1[f] * gi[f];
      dw2[f] = hx2[f] * ug + x2[f] * vg;
      dx2[f] += hw2[f] * ug + w2[f] * vg;
      sx += ha * ax[f];
      sy += ha * ay[f];
      sz += ha * az[f];
      T px = ha * ux + a * vx, py = ha * uy + a * vy, pz = ha * uz + a * vz;
      if (MU) {
        const T mg = mx[f] * ax[f] + my[f] * ay[f] + mz[f] * az[f];
        const T ng = nx[f] * ax[f] + ny[f] * ay[f] + nz[f] * az[f];
        const T b = w3[f] * x3[f];
        const T hb = hw3[f] * x3[f] + w3[f] * hx3[f];
        dw3[f] = hx3[f] * mg + x3[f] * ng;
        dx3[f] += hw3[f] * mg + w3[f] * ng;
        bx[f] += hb * ax[f];
        by[f] += hb * ay[f];
        bz[f] += hb * az[f];
        px += hb * mx[f] + b * nx[f];
        py += hb * my[f] + b * ny[f];
        pz += hb * mz[f] + b * nz[f];
      }
      ox[f] += px;
      oy[f] += py;
      oz[f] += pz;
    }
    du[3 * e] = sx;
    du[3 * e + 1] = sy;
    du[3 * e + 2] = sz;
  }
}

}  // namespace

#define EXPORT(T, S)                                                                                                  \
  extern "C" DISPATCH void schnet_forward_##S(index_t E, index_t F, const index_t* ci, const index_t* nj, const T* w, \
                                              const T* x, T* y) {                                                     \
    schnet_forward<T>(E, F, ci, nj, w, x, y);                                                                         \
  }                                                                                                                   \
  extern "C" DISPATCH void schnet_backward_##S(index_t E, index_t F, const index_t* ci, const index_t* nj,            \
                                               const T* w, const T* x, const T* gy, T* gw, T* gx) {                   \
    schnet_backward<T>(E, F, ci, nj, w, x, gy, gw, gx);                                                               \
  }                                                                                                                   \
  extern "C" DISPATCH void schnet_second_##S(index_t E, index_t F, const index_t* ci, const index_t* nj, const T* w,  \
                                             const T* x, const T* gy, const T* hw, const T* hx, T* dgy, T* dw,        \
                                             T* dx) {                                                                 \
    schnet_second<T>(E, F, ci, nj, w, x, gy, hw, hx, dgy, dw, dx);                                                    \
  }                                                                                                                   \
  extern "C" DISPATCH void painn_forward_##S(index_t E, index_t F, const index_t* ci, const index_t* nj, const T* w,  \
                                             const T* u, const T* x, const T* mu, T* q, T* m) {                       \
    if (mu) painn_forward<T, true>(E, F, ci, nj, w, u, x, mu, q, m);                                                  \
    else painn_forward<T, false>(E, F, ci, nj, w, u, x, mu, q, m);                                                    \
  }                                                                                                                   \
  extern "C" DISPATCH void painn_backward_##S(index_t E, index_t F, const index_t* ci, const index_t* nj, const T* w, \
                                              const T* u, const T* x, const T* mu, const T* gq, const T* gm, T* gw,   \
                                              T* gu, T* gx, T* gmu) {                                                 \
    if (mu) painn_backward<T, true>(E, F, ci, nj, w, u, x, mu, gq, gm, gw, gu, gx, gmu);                              \
    else painn_backward<T, false>(E, F, ci, nj, w, u, x, mu, gq, gm, gw, gu, gx, gmu);                                \
  }                                                                                                                   \
  extern "C" DISPATCH void painn_second_##S(index_t E, index_t F, const index_t* ci, const index_t* nj, const T* w,   \
                                            const T* u, const T* x, const T* mu, const T* gq, const T* gm,            \
                                            const T* hw, const T* hu, const T* hx, const T* hmu, T* dgq, T* dgm,      \
                                            T* dw, T* du, T* dx, T* dmu) {                                            \
    if (mu) painn_second<T, true>(E, F, ci, nj, w, u, x, mu, gq, gm, hw, hu, hx, hmu, dgq, dgm, dw, du, dx, dmu);     \
    else painn_second<T, false>(E, F, ci, nj, w, u, x, mu, gq, gm, hw, hu, hx, hmu, dgq, dgm, dw, du, dx, dmu);       \
  }

EXPORT(float, f32)
EXPORT(double, f64)

ASECALC_EXPORT index_t asecalc_abi() { return ASECALC_ABI; }

// setuptools builds this as a Python extension; it is opened through ctypes and never imported.
ASECALC_EXPORT void* PyInit__native() { return nullptr; }
