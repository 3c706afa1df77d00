// Functions of the distance from tables: quintic B-splines with equal steps in x = (c + r_c) r / (r_c (c + r)), which is 0
// at r = 0 and 1 at the cutoff r_c. The bend c makes the steps short where atoms are close and functions steep.
//
// A spline has one number per node and function where a Hermite polynomial of the same degree has three, so that tables
// stay in the caches; its derivative gives the forces. The other side is `spline_tables` of models/tabulated.py.
#pragma once
#include "lanes.h"

namespace {

constexpr int TERMS = 6;  // numbers of the table that make a value

struct Spline {
  double cutoff, bend;
  index_t nodes;
  index_t rows() const { return nodes + TERMS - 2; }  // of the table
};

// An edge within the cutoff: its first row in the table, and the weights of six rows for the value and its derivative
template <typename T>
struct Place {
  T value[TERMS], slope[TERMS];
  std::int32_t row, neighbor;
  index_t edge;
  T u[3], over;  // direction, and one over the length
};

// Weights at t between two nodes times 120, and their derivatives by t
template <typename V>
INLINE void spline_weights(V t, V* value, V* slope) {
  const V s = 1.0 - t, t2 = t * t, s2 = s * s;
  value[0] = s2 * s2 * s, value[5] = t2 * t2 * t;
  value[1] = 26.0 + t * (-50.0 + t * (20.0 + t * (20.0 + t * (-20.0 + 5.0 * t))));
  value[2] = 66.0 + t2 * (-60.0 + t2 * (30.0 - 10.0 * t));
  value[3] = 26.0 + t * (50.0 + t * (20.0 + t * (-20.0 + t * (-20.0 + 10.0 * t))));
  value[4] = 1.0 + t * (5.0 + t * (10.0 + t * (10.0 + t * (5.0 - 5.0 * t))));
  slope[0] = -5.0 * s2 * s2, slope[5] = 5.0 * t2 * t2;
  slope[1] = -50.0 + t * (40.0 + t * (60.0 + t * (-80.0 + 25.0 * t)));
  slope[2] = t * (-120.0 + t2 * (120.0 - 50.0 * t));
  slope[3] = 50.0 + t * (40.0 + t * (-60.0 + t * (-80.0 + 50.0 * t)));
  slope[4] = 5.0 + t * (20.0 + t * (30.0 + t * (20.0 - 25.0 * t)));
}

// Places of the edges first … last − 1 that are within the cutoff, appended; a register of edges at a time
template <typename T>
INLINE void find_places(const Spline& spline, const double* vectors, const index_t* neighbors, index_t first,
                        index_t last, std::vector<Place<T>>& places) {
  using V = Vec<double>;
  constexpr int B = Lanes<double>::count;
  const double most = double(spline.nodes - 1);
  const double scale = most * (spline.cutoff + spline.bend) / spline.cutoff, bend = spline.bend;
  std::size_t count = places.size();
  places.resize(count + std::size_t(last - first));
  for (index_t e = first; e < last; e += B) {
    const int n = last - e < B ? int(last - e) : B;
    double x[B], y[B], z[B], length[B];
    for (int k = 0; k < B; ++k) {
      const double* v = vectors + 3 * (k < n ? e + k : e);
      x[k] = v[0], y[k] = v[1], z[k] = v[2];
    }
    for (int k = 0; k < B; ++k) length[k] = std::sqrt(x[k] * x[k] + y[k] * y[k] + z[k] * z[k]);
    const V d = load(length), over = 1.0 / (d + bend), at = scale * d * over, end = fill<double>(most - 1.0);
    const V within = at < most - 1.0 ? at : end;  // also where it is no number
    const auto node = __builtin_convertvector(within, Lanes<double>::bits);
    V value[TERMS], slope[TERMS];
    spline_weights<V>(at - __builtin_convertvector(node, V), value, slope);
    const V part = fill<double>(1.0 / 120.0), stretch = (scale * bend / 120.0) * over * over, turned = 1.0 / d;
    // Rows of eight, to be read in columns: weights, their slopes, the direction, one over the length
    typedef T row_t __attribute__((vector_size(B * sizeof(T))));
    alignas(64) T rows[2 * TERMS + 4][B];
    const auto put = [&](int r, V numbers) {
      const row_t row = __builtin_convertvector(numbers, row_t);
      std::memcpy(rows[r], &row, sizeof row);
    };
    for (int m = 0; m < TERMS; ++m) put(m, value[m] * part), put(TERMS + m, slope[m] * stretch);
    put(2 * TERMS, load(x) * turned), put(2 * TERMS + 1, load(y) * turned), put(2 * TERMS + 2, load(z) * turned);
    put(2 * TERMS + 3, turned);
    for (int k = 0; k < n; ++k) {
      Place<T>& p = places[count];
      for (int m = 0; m < TERMS; ++m) p.value[m] = rows[m][k], p.slope[m] = rows[TERMS + m][k];
      for (int a = 0; a < 3; ++a) p.u[a] = rows[2 * TERMS + a][k];
      p.over = rows[2 * TERMS + 3][k];
      p.row = std::int32_t(node[k]), p.neighbor = std::int32_t(neighbors[e + k]), p.edge = e + k;
      count += !(length[k] >= spline.cutoff);
    }
  }
  places.resize(count);
}

// Three functions side by side, from the row of a place on; rows of a table are (3, L) for the L channels of a register
template <typename T>
INLINE void spline_values(const T* row, const T* c, Vec<T> w[3]) {
  constexpr int L = Lanes<T>::count;
  for (int k = 0; k < 3; ++k) w[k] = c[0] * load(row + k * L);
  for (int n = 1; n < TERMS; ++n)
    for (int k = 0; k < 3; ++k) w[k] += c[n] * load(row + (3 * n + k) * L);
}
template <typename T>
INLINE void spline_values_and_slopes(const T* row, const Place<T>& p, Vec<T> w[3], Vec<T> s[3]) {
  constexpr int L = Lanes<T>::count;
  for (int n = 0; n < TERMS; ++n)
    for (int k = 0; k < 3; ++k) {
      const Vec<T> number = load(row + (3 * n + k) * L);
      w[k] = n ? w[k] + p.value[n] * number : p.value[n] * number;
      s[k] = n ? s[k] + p.slope[n] * number : p.slope[n] * number;
    }
}

}  // namespace
