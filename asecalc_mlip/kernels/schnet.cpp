// A trained SchNet on the CPU, step by step or in one call: energies of all atoms and the gradient along every edge.
//
// The filter network sees nothing but the distance, so its filters are read from splines, whose derivatives give the
// forces. The table is made by models/schnet.py, fine enough for float32. As in painn.cpp, the edges that end in atom a
// are the edges of row a turned round, an edge keeps nothing but its gradient, and before the first block features depend
// on the element alone.
//
// Names as in models/schnet.py. Per block: x = W q, y_i = Σ_j w(d_ij) x_j, q += B2 ssp(B1 y).
#include "asecalc_layers.h"
#include "spline.h"

namespace {

constexpr index_t TILE = 32;  // atoms that pass through the atom-wise networks together

template <typename T>
struct Block {  // weights as (in, out); those with a trailing t are the transposes, for the backward pass
  const T* table;  // (F / L, nodes + 4, L); L numbers fill a register
  const T *w, *wt; // not of the first block
  const T *b1, *b1t, *b1b, *b2, *b2t, *b2b;
};

template <typename T>
struct Network {  // the other side is SchNetWeights in models/schnet.py
  index_t features, blocks, nodes, hidden;
  double cutoff, bend;
  const T *embedding, *first, *r1, *r1t, *r1b, *r2;  // first: x of the first block by element, (elements, F)
  double r2b;
  const Block<T>* block;
};

template <typename T>
INLINE Spline spline(const Network<T>& net) {
  return {net.cutoff, net.bend, net.nodes};
}

template <typename T>
struct State {
  T *x, *h;  // (N + ghosts, F), not of the first block; (N, F)
};

template <typename T>
struct Work {
  T *q, *gy;  // (N, F), features on the way up and gradients on the way down; (N + ghosts, F), of the last block
  std::vector<State<T>> states;
  double *energies, *gradient;  // (N), (E, 3)
  bool derivative;
};

// w(d) of an edge for the features of a register, or its slope
template <typename T>
INLINE Vec<T> filter(const T* row, const T* c) {
  Vec<T> w = c[0] * load(row);
  for (int k = 1; k < TERMS; ++k) w += c[k] * load(row + k * Lanes<T>::count);
  return w;
}

template <typename T>
INLINE void look_up(const Network<T>& net, const Graph& graph, index_t i, std::vector<Place<T>>& row) {
  row.clear();
  find_places(spline(net), graph.vectors, graph.neighbors, graph.rows[i], graph.rows[i + 1], row);
}

// x = W q of block k for the n atoms from i on
template <typename T>
INLINE void project(const Network<T>& net, const Work<T>& w, index_t k, index_t i, index_t n) {
  const index_t F = net.features;
  product(n, F, F, w.q + i * F, F, net.block[k].w, F, w.states[k].x + i * F, F);
}

// gy from gq
template <typename T>
INLINE void update_back(const Network<T>& net, const Work<T>& w, index_t k, T* gy, index_t i, index_t n, T* scratch) {
  const index_t F = net.features;
  const Block<T>& b = net.block[k];
  product(n, F, F, w.q + i * F, F, b.b2t, F, scratch, F);
  for (index_t f = 0; f < n * F; f += Lanes<T>::count)
    store(scratch + f, load(scratch + f) * sigmoid<T>(load(w.states[k].h + i * F + f)));
  product(n, F, F, scratch, F, b.b1t, F, gy + i * F, F);
}

// Energy of each atom, and the start of the backward pass: gq takes the place of q
template <typename T>
INLINE void read_out(const Network<T>& net, const Work<T>& w, index_t i, index_t n, T* scratch) {
  const index_t F = net.features, H = net.hidden;
  product(n, H, F, w.q + i * F, F, net.r1, H, scratch, H, net.r1b);
  for (index_t j = 0; j < n; ++j)
    w.energies[i + j] = net.r2b + double(silu_row(scratch + j * H, net.r2, H / Lanes<T>::count));
  product(n, F, H, scratch, H, net.r1t, F, w.q + i * F, F);
}

// Block k for the atoms of a range, up to what the next one gathers
template <typename T>
INLINE void forward(const Network<T>& net, const Graph& graph, const Work<T>& w, index_t k, index_t first,
                    index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, H = net.hidden, stride = spline(net).rows() * L;
  const Block<T>& b = net.block[k];
  const State<T>& s = w.states[k];
  std::vector<Place<T>> row;
  std::vector<T> y(TILE * (F > H ? F : H)), out(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      look_up(net, graph, i + j, row);
      for (index_t f = 0; f < F; f += L) {
        const T *table = b.table + f / L * stride, *x = (k ? s.x : net.first) + f;
        Vec<T> total = {};
        for (const Place<T>& p : row)
          total += filter(table + p.row * L, p.value) * load(x + (k ? p.neighbor : graph.numbers[p.neighbor]) * F);
        store(y.data() + j * F + f, total);
        if (k == 0) store(w.q + (i + j) * F + f, load(net.embedding + graph.numbers[i + j] * F + f));
      }
    }
    product(n, F, F, y.data(), F, b.b1, F, s.h + i * F, F, b.b1b);
    for (index_t f = 0; f < n * F; f += L) store(y.data() + f, softplus<T>(load(s.h + i * F + f)) - T(M_LN2));
    product(n, F, F, y.data(), F, b.b2, F, out.data(), F, b.b2b);
    for (index_t f = 0; f < n * F; f += L) store(w.q + i * F + f, load(w.q + i * F + f) + load(out.data() + f));
    if (k + 1 < net.blocks) {
      project(net, w, k + 1, i, n);
      continue;
    }
    read_out(net, w, i, n, y.data());
    if (w.derivative) update_back(net, w, k, w.gy, i, n, y.data());
  }
}

// What becomes the gradient of an edge: ∂E/∂d, to (E, 3)
template <typename T>
INLINE void pass_on(const Place<T>& p, Vec<T> slope, bool add, double* gradient) {
  const double along = double(sum<T>(slope));
  double* out = gradient + 3 * p.edge;
  for (int a = 0; a < 3; ++a) out[a] = (add ? out[a] : 0.0) + along * double(p.u[a]);
}

// The edges of row i by the slopes of the filters. Above the first block gy of the neighbours, of the edges turned
// round, with x of the atom, whose gx is found too; in the first, whose x are constants, gy of the atom.
template <typename T, bool FIRST>
INLINE void row_back(const Network<T>& net, const Graph& graph, const Work<T>& w, index_t k, const T* gy, index_t i,
                     std::vector<Place<T>>& row, std::vector<T>& slopes, T* gx) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, stride = spline(net).rows() * L;
  look_up(net, graph, i, row);
  slopes.assign(L * row.size(), T(0));
  for (index_t f = 0; f < F; f += L) {
    const T* table = net.block[k].table + f / L * stride;
    const Vec<T> own = load((FIRST ? gy : w.states[k].x) + i * F + f);
    Vec<T> total = {};
    T* slope = slopes.data();
    for (const Place<T>& p : row) {
      const T* other = FIRST ? net.first + graph.numbers[p.neighbor] * F : gy + p.neighbor * F;
      const Vec<T> along = load(other + f);
      store(slope, load(slope) + filter(table + p.row * L, p.slope) * own * along);
      if (!FIRST) total += filter(table + p.row * L, p.value) * along;
      slope += L;
    }
    if (!FIRST) store(gx + f, total);
  }
  const bool add = k + 1 < net.blocks;
  if (!add && index_t(row.size()) < graph.rows[i + 1] - graph.rows[i])
    for (index_t e = 3 * graph.rows[i]; e < 3 * graph.rows[i + 1]; ++e) w.gradient[e] = 0.0;
  for (std::size_t e = 0; e < row.size(); ++e) pass_on(row[e], load(slopes.data() + L * e), add, w.gradient);
}

// Where the gradients lie that the edges of block k gather. Those of the block below take the place of its x.
template <typename T>
T* passed(const Work<T>& w, index_t k) {
  return k + 1 == index_t(w.states.size()) ? w.gy : w.states[k + 1].x;
}

template <typename T>
INLINE void backward(const Network<T>& net, const Graph& graph, const Work<T>& w, index_t k, index_t first,
                     index_t last) {
  const index_t F = net.features;
  std::vector<Place<T>> row;
  std::vector<T> slopes, gx(TILE * F);
  const T* gy = passed(w, k);
  if (k == 0) {
    for (index_t i = first; i < last; ++i) row_back<T, true>(net, graph, w, k, gy, i, row, slopes, nullptr);
    return;
  }
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j)
      row_back<T, false>(net, graph, w, k, gy, i + j, row, slopes, gx.data() + j * F);
    product(n, F, F, gx.data(), F, net.block[k].wt, F, w.q + i * F, F, nullptr, true);
    update_back(net, w, k - 1, w.states[k].x, i, n, gx.data());
  }
}

DISPATCH void step_of(const Network<float>& net, const Graph& graph, const Work<float>& w, index_t s, index_t first,
                      index_t last) {
  if (s < net.blocks) forward<float>(net, graph, w, s, first, last);
  else backward<float>(net, graph, w, 2 * net.blocks - 1 - s, first, last);
}

template <typename T>
void lay_out(Arena<T>& arena, Work<T>& w, const Network<T>& net, const Graph& graph) {
  const index_t F = net.features, N = graph.atoms, all = N + graph.ghosts;
  w.states.assign(net.blocks, State<T>{});
  w.q = arena.take(N * F);
  w.gy = arena.take(all * F);
  for (index_t k = 0; k < net.blocks; ++k) {
    w.states[k].h = arena.take(N * F);
    if (k) w.states[k].x = arena.take(all * F);
  }
}

index_t workspace(const Network<float>& net, const Graph& graph) {
  Arena<float> arena{nullptr};
  Work<float> w{};
  lay_out(arena, w, net, graph);
  return arena.used;
}

template <typename T>
index_t steps(const Network<T>& net, bool derivative) {
  return (derivative ? 2 : 1) * net.blocks;
}

template <typename T>
index_t exchanged(const Network<T>& net) {
  return net.blocks > 1 ? net.features : 0;
}

template <typename T>
void step(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient, index_t s,
          Exchange& after) {
  Work<T> w{};
  // A domain without edges may have no array for their gradient, and takes part in all exchanges.
  w.energies = energies, w.gradient = gradient, w.derivative = gradient || graph.edges == 0;
  Arena<T> arena{buffer};
  lay_out(arena, w, net, graph);
  share(graph.rows, graph.atoms, graph.threads,
        [&](index_t first, index_t last) { step_of(net, graph, w, s, first, last); });
  // The block that gathers next, on the way up or down; the first one reads no features of others.
  const index_t up = s + 1, down = 2 * net.blocks - 2 - s;
  if (up >= net.blocks && (!w.derivative || down <= 0)) return;
  after.direction = FORWARD, after.pieces = 1, after.width[0] = net.features;
  after.rows[0] = up < net.blocks ? w.states[up].x : passed(w, down);
}

ASECALC_RUN_STEPS

}  // namespace

ASECALC_KERNEL(schnet)
ASECALC_EVALUATE(schnet, float, f32)
ASECALC_LAYERS(schnet)
ASECALC_STEP(schnet, float, f32)
