// Functions of the distance read from tables: values, slopes and curvatures at even distances, each times a power of
// the step, and between them quintic Hermite polynomials. Their own derivative gives the forces. The tables are made by
// models/tabulated.py.
#pragma once
#include "lanes.h"

namespace {

constexpr index_t TERMS = 6;  // numbers that a table holds at the two ends of an interval

// Weights of these numbers for the value at t of the way, and for its derivative by the distance
template <typename T>
INLINE void hermite(double t, double step, T* weights, T* slopes) {
  double value[TERMS], slope[TERMS];
  const double q = t * t, c = q * t, per_step = 1.0 / step;
  value[0] = 1 + c * (-10 + t * (15 - 6 * t)), value[3] = c * (10 - t * (15 - 6 * t));
  value[1] = t + c * (-6 + t * (8 - 3 * t)), value[4] = c * (-4 + t * (7 - 3 * t));
  value[2] = 0.5 * q + c * (-1.5 + t * (1.5 - 0.5 * t)), value[5] = c * (0.5 - t * (1 - 0.5 * t));
  slope[0] = q * (-30 + t * (60 - 30 * t)) * per_step, slope[3] = -slope[0];
  slope[1] = (1 + q * (-18 + t * (32 - 15 * t))) * per_step, slope[4] = q * (-12 + t * (28 - 15 * t)) * per_step;
  slope[2] = (t + q * (-4.5 + t * (6 - 2.5 * t))) * per_step, slope[5] = q * (1.5 - t * (4 - 2.5 * t)) * per_step;
  for (index_t k = 0; k < TERMS; ++k) weights[k] = T(value[k]), slopes[k] = T(slope[k]);
}

}  // namespace
