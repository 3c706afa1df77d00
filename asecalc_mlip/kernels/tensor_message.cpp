// TensorNet's messages with a filter for each edge: forward, first and second derivative, as operations.h says.
//
// A tensor of an atom is nine rows of F numbers, one of the part I, three of A, five of S; filters have a row a part.
#include "operations.h"

namespace {

constexpr index_t ROWS = 9, PARTS = 3;
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

}  // namespace

OPERATION(tensor_forward, 0)
OPERATION(tensor_backward, 0)
OPERATION(tensor_second, 0)
OPERATION(spread_forward, 0)
OPERATION(spread_backward, ROWS)
OPERATION(spread_second, ROWS)
