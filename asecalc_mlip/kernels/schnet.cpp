// A trained SchNet on the CPU in one call: energies of all atoms and the gradient along every edge.
//
// The filter network sees nothing but the distance, so its filters are read from a table: at each node values and slopes,
// between them cubic Hermite polynomials, whose derivatives give the forces. The table is made by models/schnet.py,
// fine enough for float32. As in painn.cpp, the edges that end in atom a are the edges of row a turned round.
//
// Names as in models/schnet.py. Per block: x = W q, y_i = Σ_j w(d_ij) x_j, q += B2 ssp(B1 y).
#include "lanes.h"

namespace {

constexpr index_t TILE = 32;  // atoms that pass through the atom-wise networks together

template <typename T>
struct Block {  // weights as (in, out); those with a trailing t are the transposes, for the backward pass
  const T* table;  // (nodes, 2, F): values, and slopes times the step
  const T *w, *wt;
  const T *b1, *b1t, *b1b, *b2, *b2t, *b2b;
};

template <typename T>
struct Network {  // the other side is SchNetWeights in models/schnet.py
  index_t features, blocks, nodes, hidden;
  double cutoff;
  const T *embedding, *r1, *r1t, *r1b, *r2;
  double r2b;
  const Block<T>* block;
};

template <typename T>
struct State {
  T *x, *h;  // (N, F)
};

template <typename T>
struct Work {
  index_t atoms, edges;
  const index_t *rows, *neighbors, *numbers;
  const double* vectors;
  index_t* node;  // (E)
  T* weights;     // (E, 8): Hermite weights of value and slope at both nodes, and their derivatives
  T *q, *gq, *gy, *gd;
  double *energies, *gradient;
};

template <typename T>
INLINE void prepare(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  const double step = net.cutoff / double(net.nodes - 1);
  for (index_t i = first; i < last; ++i) {
    for (index_t e = w.rows[i]; e < w.rows[i + 1]; ++e) {
      const double* v = w.vectors + 3 * e;
      const double place = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) / step;
      index_t node = index_t(place);
      if (node > net.nodes - 2) node = net.nodes - 2;
      const double t = place - double(node), s = 1.0 - t, in = place < double(net.nodes - 1) ? 1.0 : 0.0;
      const double c[8] = {(1 + 2 * t) * s * s, t * s * s,           t * t * (3 - 2 * t), -t * t * s,
                           -6 * t * s / step,   s * (1 - 3 * t) / step, 6 * t * s / step, t * (3 * t - 2) / step};
      w.node[e] = node;
      for (int k = 0; k < 8; ++k) w.weights[8 * e + k] = T(in * c[k]);
      w.gd[e] = 0;
    }
    const T* row = net.embedding + w.numbers[i] * net.features;
    for (index_t f = 0; f < net.features; ++f) w.q[i * net.features + f] = row[f];
  }
}

template <typename T>
INLINE void project(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t first,
                    index_t last) {
  const index_t F = net.features;
  product(last - first, F, F, w.q + first * F, F, b.w, F, s.x + first * F, F);
}

template <typename T>
INLINE Vec<T> filter(const T* row, index_t F, const T* c) {
  return c[0] * load(row) + c[1] * load(row + F) + c[2] * load(row + 2 * F) + c[3] * load(row + 3 * F);
}

template <typename T>
INLINE void convolve(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t first,
                     index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> y(TILE * F), out(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      for (index_t f = 0; f < F; f += L) {
        Vec<T> total = {};
        for (index_t e = w.rows[i + j]; e < w.rows[i + j + 1]; ++e)
          total += filter(b.table + 2 * F * w.node[e] + f, F, w.weights + 8 * e) * load(s.x + w.neighbors[e] * F + f);
        store(y.data() + j * F + f, total);
      }
    }
    product(n, F, F, y.data(), F, b.b1, F, s.h + i * F, F, b.b1b);
    for (index_t k = 0; k < n * F; k += L) store(y.data() + k, softplus<T>(load(s.h + i * F + k)) - T(M_LN2));
    product(n, F, F, y.data(), F, b.b2, F, out.data(), F, b.b2b);
    for (index_t k = 0; k < n * F; k += L) store(w.q + i * F + k, load(w.q + i * F + k) + load(out.data() + k));
  }
}

// gy from gq
template <typename T>
INLINE void update_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t first,
                        index_t last) {
  const index_t F = net.features;
  std::vector<T> g(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    product(n, F, F, w.gq + i * F, F, b.b2t, F, g.data(), F);
    for (index_t k = 0; k < n * F; k += Lanes<T>::count)
      store(g.data() + k, load(g.data() + k) * sigmoid<T>(load(s.h + i * F + k)));
    product(n, F, F, g.data(), F, b.b1t, F, w.gy + i * F, F);
  }
}

// Slopes of the edges, and gq += Wᵀ Σ w gy
template <typename T>
INLINE void convolve_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, bool first_block,
                          index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> gx(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t k = 0; k < n * F; ++k) gx[k] = 0;
    for (index_t j = 0; j < n; ++j) {
      T* g = gx.data() + j * F;
      const T* x = s.x + (i + j) * F;
      for (index_t e = w.rows[i + j]; e < w.rows[i + j + 1]; ++e) {
        const T *row = b.table + 2 * F * w.node[e], *c = w.weights + 8 * e, *gy = w.gy + w.neighbors[e] * F;
        Vec<T> slope = {};
        for (index_t f = 0; f < F; f += L) {
          const Vec<T> along = load(gy + f);
          slope += filter(row + f, F, c + 4) * load(x + f) * along;
          store(g + f, load(g + f) + filter(row + f, F, c) * along);
        }
        w.gd[e] += sum<T>(slope);
      }
    }
    if (!first_block) product(n, F, F, gx.data(), F, b.wt, F, w.gq + i * F, F, nullptr, true);
  }
}

template <typename T>
INLINE void read_out(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, H = net.hidden;
  std::vector<T> h(TILE * H);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    product(n, H, F, w.q + i * F, F, net.r1, H, h.data(), H, net.r1b);
    for (index_t j = 0; j < n; ++j)
      w.energies[i + j] = net.r2b + double(silu_row(h.data() + j * H, net.r2, H / L));
    product(n, F, H, h.data(), H, net.r1t, F, w.gq + i * F, F);
  }
}

template <typename T>
INLINE void edge_gradient(const Work<T>& w, index_t first, index_t last) {
  for (index_t e = w.rows[first]; e < w.rows[last]; ++e) {
    const double* v = w.vectors + 3 * e;
    const double pull = double(w.gd[e]) / std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    for (int a = 0; a < 3; ++a) w.gradient[3 * e + a] = pull * v[a];
  }
}

enum Phase { PREPARE, PROJECT, CONVOLVE, READ_OUT, UPDATE_BACK, CONVOLVE_BACK, GRADIENT };

template <typename T>
INLINE void run_phase(const Network<T>& net, const Work<T>& w, const State<T>* states, Phase phase, index_t k,
                      index_t first, index_t last) {
  const Block<T>& block = net.block[k];
  const State<T>& s = states[k];
  switch (phase) {
    case PREPARE: prepare(net, w, first, last); break;
    case PROJECT: project(net, w, block, s, first, last); break;
    case CONVOLVE: convolve(net, w, block, s, first, last); break;
    case READ_OUT: read_out(net, w, first, last); break;
    case UPDATE_BACK: update_back(net, w, block, s, first, last); break;
    case CONVOLVE_BACK: convolve_back(net, w, block, s, k == 0, first, last); break;
    case GRADIENT: edge_gradient(w, first, last); break;
  }
}

DISPATCH void phase_of(const Network<float>& net, const Work<float>& w, const State<float>* s, Phase p, index_t k,
                       index_t first, index_t last) {
  run_phase<float>(net, w, s, p, k, first, last);
}
template <typename T>
void lay_out(Arena<T>& arena, Work<T>& w, std::vector<State<T>>& states, index_t F, index_t N, index_t E) {
  w.weights = arena.take(8 * E);
  w.gd = arena.take(E);
  w.q = arena.take(N * F);
  w.gq = arena.take(N * F);
  w.gy = arena.take(N * F);
  for (State<T>& s : states) {
    s.x = arena.take(N * F);
    s.h = arena.take(N * F);
  }
}

index_t workspace(const Network<float>& net, const Graph& graph) {
  Arena<float> arena{nullptr};
  Work<float> w{};
  std::vector<State<float>> states(net.blocks);
  lay_out(arena, w, states, net.features, graph.atoms, graph.edges);
  return arena.used;
}

template <typename T>
void evaluate(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient) {
  const index_t blocks = net.blocks;
  std::vector<index_t> node(graph.edges);
  Work<T> w{};
  w.atoms = graph.atoms, w.edges = graph.edges, w.node = node.data();
  w.rows = graph.rows, w.neighbors = graph.neighbors, w.numbers = graph.numbers, w.vectors = graph.vectors;
  w.energies = energies, w.gradient = gradient;
  std::vector<State<T>> states(blocks);
  Arena<T> arena{buffer};
  lay_out(arena, w, states, net.features, graph.atoms, graph.edges);
  const auto run = [&](Phase phase, index_t k) {
    share(graph.rows, graph.atoms, graph.threads,
          [&, phase, k](index_t a, index_t b) { phase_of(net, w, states.data(), phase, k, a, b); });
  };
  run(PREPARE, 0);
  for (index_t k = 0; k < blocks; ++k) {
    run(PROJECT, k);
    run(CONVOLVE, k);
  }
  run(READ_OUT, 0);
  if (!gradient) return;
  for (index_t k = blocks - 1; k >= 0; --k) {
    run(UPDATE_BACK, k);
    run(CONVOLVE_BACK, k);
  }
  run(GRADIENT, 0);
}

}  // namespace

ASECALC_KERNEL(schnet)
ASECALC_EVALUATE(schnet, float, f32)
