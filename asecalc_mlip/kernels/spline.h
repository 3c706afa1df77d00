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

// Weights at t between two nodes, and their derivatives by t
INLINE void spline_weights(double t, double* value, double* slope) {
  const double s = 1 - t, t2 = t * t, t3 = t2 * t, s2 = s * s, s3 = s2 * s;
  value[0] = s3 * s2, value[5] = t3 * t2;
  value[1] = 26 + t * (-50 + t * (20 + t * (20 + t * (-20 + 5 * t))));
  value[2] = 66 + t2 * (-60 + t2 * (30 - 10 * t));
  value[3] = 26 + t * (50 + t * (20 + t * (-20 + t * (-20 + 10 * t))));
  value[4] = 1 + t * (5 + t * (10 + t * (10 + t * (5 - 5 * t))));
  slope[0] = -5 * s2 * s2, slope[5] = 5 * t2 * t2;
  slope[1] = -50 + t * (40 + t * (60 + t * (-80 + 25 * t)));
  slope[2] = t * (-120 + t2 * (120 - 50 * t));
  slope[3] = 50 + t * (40 + t * (-60 + t * (-80 + 50 * t)));
  slope[4] = 5 + t * (20 + t * (30 + t * (20 - 25 * t)));
}

// Places of the edges first … last − 1 that are within the cutoff, appended; eight at a time, so that they are vectorised
template <typename T>
INLINE void find_places(const Spline& spline, const double* vectors, const index_t* neighbors, index_t first,
                        index_t last, std::vector<Place<T>>& places) {
  constexpr int B = 8;
  const double most = double(spline.nodes - 1);
  const double scale = most * (spline.cutoff + spline.bend) / spline.cutoff;
  for (index_t e = first; e < last; e += B) {
    const int n = last - e < B ? int(last - e) : B;
    double d[B], value[TERMS][B], slope[TERMS][B];
    std::int32_t node[B];
    for (int k = 0; k < B; ++k) {
      const double* v = vectors + 3 * (k < n ? e + k : e);
      d[k] = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    }
#pragma omp simd
    for (int k = 0; k < B; ++k) {
      d[k] = std::sqrt(d[k]);
      const double over = 1 / (d[k] + spline.bend), x = scale * d[k] * over;
      const double within = x < most - 1 ? x : most - 1;
      node[k] = std::int32_t(within);
      double by[TERMS], along[TERMS];
      spline_weights(x - double(node[k]), by, along);
      const double stretch = scale * spline.bend * over * over / 120.0;
      for (int m = 0; m < TERMS; ++m) value[m][k] = by[m] / 120.0, slope[m][k] = along[m] * stretch;
    }
    for (int k = 0; k < n; ++k) {
      if (d[k] >= spline.cutoff) continue;
      places.emplace_back();
      Place<T>& p = places.back();
      for (int m = 0; m < TERMS; ++m) p.value[m] = T(value[m][k]), p.slope[m] = T(slope[m][k]);
      p.row = node[k], p.neighbor = std::int32_t(neighbors[e + k]), p.edge = e + k;
      for (int a = 0; a < 3; ++a) p.u[a] = T(vectors[3 * (e + k) + a] / d[k]);
      p.over = T(1 / d[k]);
    }
  }
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
