// A trained EAM on the CPU in one call: energies of all atoms and the gradient along every edge.
//
// Names as in models/eam.py and models/zbl.py. Nothing passes between atoms but distances, so one visit to each atom
// is enough: its density first, then its edges with the slope of the embedding. The exponentials of an edge are the
// lanes of a register.
#include "asecalc_layers.h"
#include "lanes.h"

namespace {

constexpr index_t CONSTANTS = 8;  // of a pair of elements, see PAIR_CONSTANTS in models/zbl.py
constexpr double SCREENING[4][2] = {
    {0.18175, 3.19980}, {0.50986, 0.94229}, {0.28022, 0.40290}, {0.02817, 0.20162}};

template <typename T>
struct Network {  // the other side is EAMWeights in models/zbl.py
  index_t elements, exponentials;  // a whole number of registers, or 0: no density
  index_t core;                    // whether there is one
  double cutoff, tail;             // Å, and the share of it in which f_c falls
  const T *species, *pairs, *shares, *decays, *embedding;
};

template <typename T>
struct Work {
  const index_t *rows, *neighbors, *numbers;
  const double* vectors;
  double *energies, *gradient;
};

// 6s⁵ − 15s⁴ + 10s³ of s = (end − r)/width, and its derivative in r
INLINE void smooth_step(double r, double end, double width, double& value, double& slope) {
  const double s = (end - r) / width;
  if (s >= 1.0) value = 1.0, slope = 0.0;
  else if (s <= 0.0) value = slope = 0.0;
  else value = s * s * s * (10.0 + s * (6.0 * s - 15.0)), slope = -30.0 * s * s * (1.0 - s) * (1.0 - s) / width;
}

// Σ_k a_k exp(−β_k x), and its derivative in x
template <typename T>
INLINE void density_of(const T* shares, const T* decays, index_t count, T x, double& value, double& slope) {
  Vec<T> total = {}, fall = {};
  for (index_t k = 0; k < count; k += Lanes<T>::count) {
    const Vec<T> decay = load(decays + k), term = load(shares + k) * exponential<T>(-decay * x);
    total += term;
    fall -= decay * term;
  }
  value = double(sum<T>(total)), slope = double(sum<T>(fall));
}

template <typename T>
INLINE void visit(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  std::vector<double> slopes;  // of the pair energy and of the density, for each edge of an atom
  for (index_t i = first; i < last; ++i) {
    const index_t a = index_t(net.species[w.numbers[i]]), begin = w.rows[i], end = w.rows[i + 1];
    double energy = 0.0, rho = 0.0;
    // What has no parameters becomes NaN here as it does everywhere else; calculators refuse it by name.
    if (a < 0) energy = NAN;
    slopes.assign(2 * (end - begin), NAN);
    for (index_t e = begin; e < end; ++e) {
      const index_t b = index_t(net.species[w.numbers[w.neighbors[e]]]);
      if (a < 0 || b < 0) {
        energy = NAN;
        continue;
      }
      const double* v = w.vectors + 3 * e;
      const double r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      const index_t pair = a * net.elements + b;
      const T* c = net.pairs + CONSTANTS * pair;
      const double depth = c[0], stiffness = c[1], bond = c[2], radii = c[3];
      double f, df;
      smooth_step(r, net.cutoff, net.tail * net.cutoff, f, df);
      const double decayed = std::exp(-stiffness * (r - bond)), morse = depth * decayed * (decayed - 2.0);
      double pull = df * morse - f * 2.0 * stiffness * depth * decayed * (decayed - 1.0);
      energy += 0.5 * f * morse;
      if (net.core && r < c[4]) {
        const double x = r * c[7];
        double screening = 0.0, fall = 0.0, on, off;
        for (const auto& term : SCREENING) {
          const double part = term[0] * std::exp(-term[1] * x);
          screening += part, fall -= term[1] * part;
        }
        smooth_step(r, c[4], c[4] - c[5], on, off);
        const double bare = c[6] / r;
        energy += 0.5 * bare * screening * on;
        pull += bare * (fall * c[7] * on + screening * (off - on / r));
      }
      double density = 0.0, slope = 0.0;
      if (net.exponentials) {
        const index_t k = pair * net.exponentials;
        density_of(net.shares + k, net.decays + k, net.exponentials, T(r - radii), density, slope);
        rho += f * density;
      }
      // Divided by r, so that they turn vectors into gradients.
      slopes[2 * (e - begin)] = 0.5 * pull / r;
      slopes[2 * (e - begin) + 1] = (df * density + f * slope) / r;
    }
    double embedding = 0.0;
    if (net.exponentials && a >= 0) {
      const double scale = net.embedding[2 * a], rest = net.embedding[2 * a + 1];
      energy += scale * rho * (rho - 2.0 * rest);
      embedding = 2.0 * scale * (rho - rest);
    }
    w.energies[i] = energy;
    if (!w.gradient) continue;
    for (index_t e = begin; e < end; ++e) {
      const double along = slopes[2 * (e - begin)] + embedding * slopes[2 * (e - begin) + 1];
      for (int x = 0; x < 3; ++x) w.gradient[3 * e + x] = along * w.vectors[3 * e + x];
    }
  }
}

DISPATCH void visit_of(const Network<float>& net, const Work<float>& w, index_t first, index_t last) {
  visit<float>(net, w, first, last);
}
DISPATCH void visit_of(const Network<double>& net, const Work<double>& w, index_t first, index_t last) {
  visit<double>(net, w, first, last);
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
  const Work<T> w{graph.rows, graph.neighbors, graph.numbers, graph.vectors, energies, gradient};
  share(graph.rows, graph.atoms, graph.threads, [&](index_t first, index_t last) { visit_of(net, w, first, last); });
}

index_t workspace(const Network<float>&, const Graph&) { return 0; }

ASECALC_RUN_STEPS

}  // namespace

ASECALC_KERNEL(eam)
ASECALC_EVALUATE(eam, float, f32)
ASECALC_EVALUATE(eam, double, f64)
ASECALC_LAYERS(eam)
ASECALC_STEP(eam, float, f32)
ASECALC_STEP(eam, double, f64)
