// The cohesion of atoms in one call: energies of all atoms and the gradient along every edge. Names as in
// models/cohesion.py. Of an atom only the number of its neighbours counts and the energy of its pairs, so one visit to each
// is enough: both sums first, then its edges with the slopes.
#include "asecalc_layers.h"
#include "lanes.h"

namespace {

template <typename T>
struct Network {  // the other side is CohesionWeights in models/cohesion.py
  index_t elements, knots;         // 0 knots: no pair energies
  double cutoff, tail, one, first; // Å, the share of it in which a count falls, the count of an atom of a dimer, Å
  const T *species, *energies, *full, *pairs;  // by atomic number; pairs (elements, elements, knots, 2)
};

// 6s⁵ − 15s⁴ + 10s³ within 0 … 1, and its derivative in s
INLINE void smooth_step(double s, double& value, double& slope) {
  if (s >= 1.0) value = 1.0, slope = 0.0;
  else if (s <= 0.0) value = slope = 0.0;
  else value = s * s * s * (10.0 + s * (6.0 * s - 15.0)), slope = 30.0 * s * s * (1.0 - s) * (1.0 - s);
}

// φ and its derivative in r: cubic between knots, straight inside the first, zero beyond the last
template <typename T>
INLINE void pair_of(const Network<T>& net, const T* table, double r, double& value, double& slope) {
  const double step = (net.cutoff - net.first) / double(net.knots - 1), place = (r - net.first) / step;
  const double left = std::fmin(std::fmax(std::floor(place), 0.0), double(net.knots - 2));
  const T* k = table + 2 * index_t(left);
  const double y0 = k[0], s0 = step * k[1], y1 = k[2], s1 = step * k[3];
  const double t = place - left, u = std::fmin(std::fmax(t, 0.0), 1.0);
  const double c2 = 3 * (y1 - y0) - 2 * s0 - s1, c3 = 2 * (y0 - y1) + s0 + s1;
  value = y0 + u * (s0 + u * (c2 + u * c3)) + s0 * std::fmin(t, 0.0);
  slope = (t > 1.0 ? 0.0 : s0 + u * (2 * c2 + 3 * u * c3)) / step;
}

template <typename T>
void visit(const Network<T>& net, const Graph& graph, double* energies, double* gradient, index_t first, index_t last) {
  const double width = net.tail * net.cutoff;
  std::vector<double> slopes;  // of the count and of the energy of the pairs, for each edge, divided by its length
  for (index_t i = first; i < last; ++i) {
    const index_t begin = graph.rows[i], end = graph.rows[i + 1], z = graph.numbers[i], a = index_t(net.species[z]);
    double count = 0.0, bonds = 0.0;
    slopes.resize(2 * (end - begin));
    for (index_t e = begin; e < end; ++e) {
      const double* v = graph.vectors + 3 * e;
      const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      double value, slope;
      smooth_step((net.cutoff - r) / width, value, slope);
      count += value;
      slopes[2 * (e - begin)] = -slope / (width * r);
      value = slope = 0.0;
      const index_t b = index_t(net.species[graph.numbers[graph.neighbors[e]]]);
      if (net.knots && a < net.elements && b < net.elements)
        pair_of(net, net.pairs + 2 * net.knots * (a * net.elements + b), r, value, slope);
      bonds += 0.5 * value;
      slopes[2 * (e - begin) + 1] = 0.5 * slope / r;
    }
    double on, slope;
    const double room = net.full[z] - net.one;
    smooth_step((count - net.one) / room, on, slope);
    energies[i] = on * net.energies[z] + (1.0 - on) * bonds;
    if (!gradient) continue;
    const double by_count = (net.energies[z] - bonds) * slope / room;
    for (index_t e = begin; e < end; ++e) {
      const double along = by_count * slopes[2 * (e - begin)] + (1.0 - on) * slopes[2 * (e - begin) + 1];
      for (int x = 0; x < 3; ++x) gradient[3 * e + x] = along * graph.vectors[3 * e + x];
    }
  }
}

// One step, after which nothing is exchanged: an atom sees nothing of others but where they are.
template <typename T>
index_t steps(const Network<T>&, bool) {
  return 1;
}

template <typename T>
index_t exchanged(const Network<T>&) {
  return 0;
}

template <typename T>
void step(const Network<T>& net, const Graph& graph, T*, double* energies, double* gradient, index_t, Exchange&) {
  share(graph.rows, graph.atoms, graph.threads,
        [&](index_t first, index_t last) { visit(net, graph, energies, gradient, first, last); });
}

index_t workspace(const Network<float>&, const Graph&) { return 0; }

ASECALC_RUN_STEPS

}  // namespace

ASECALC_KERNEL(cohesion)
ASECALC_EVALUATE(cohesion, float, f32)
ASECALC_EVALUATE(cohesion, double, f64)
ASECALC_LAYERS(cohesion)
ASECALC_STEP(cohesion, float, f32)
ASECALC_STEP(cohesion, double, f64)
