// A trained M3GNet on the CPU: energies of all atoms and the gradient along every edge.
//
// Pairs carry features. The pair p = (k → i) of models/m3gnet.py is kept at the edge of row i that leads to k, so that
// what atom i hears is a sum over its own row. Angles are sums over the pairs that an atom begins, (N, W) numbers made of
// products of a function of the distance and a harmonic polynomial; a pair reads those of its first atom and takes its
// own term away. What the way back adds to first atoms, which are neighbours, goes into an array for each part of the
// atoms. Parts depend on the structure alone, so that sums do not depend on the number of threads.
//
// Rows of some atoms go through the gated networks together, so that their weights are read once for all their edges.
// With room enough the factors of the way back are kept for every edge; else they are made once more, from the features
// of the edges before each block. The last block goes forward and back at once and keeps nothing.
//
// Names as in models/m3gnet.py. K functions of the distance fill Q numbers, W harmonics as many as fill registers.
#include "panels.h"
#include "readout.h"
#include "spline.h"

#include <algorithm>
#include <deque>

namespace {

// Atoms and edges that make a tile, edges that make a part, and how many parts there are at most
constexpr index_t TILE = 16, TILE_EDGES = 64, PART = 500, PARTS = 16;

template <typename T>
struct Block {  // weights in panels, (in, out); those with a trailing t are the transposes, for the backward pass
  const T *pq, *pqt, *pqb;                      // (F, 8 H): what both atoms add to the first layers, first atom first
  const T *s, *st, *sb;                         // A and α, for every harmonic: (F, W)
  const T *g, *gt;                              // G and H: (Q, 2 F)
  const T *e1, *e1t, *e2v, *e2vt, *e2vb, *e2g, *e2gt, *e2gb, *e3v, *e3vt, *e3vb, *e3g, *e3gt, *e3gb;  // φ_e
  const T *v1, *v1t, *v2v, *v2vt, *v2vb, *v2g, *v2gt, *v2gb, *v3v, *v3vt, *v3vb, *v3g, *v3gt, *v3gb;  // φ_v
  const T *er, *vr;                             // R_e and R_v, rows: (radial, F)
};

template <typename T>
struct Network {  // the other side is M3GNetWeights in models/m3gnet.py
  index_t features, hidden, blocks, nodes, radial, angular, harmonics, monomials;
  index_t room;                                 // numbers that may be kept; see Work
  double cutoff, bend, near;
  const T *table;                               // (rows, Q): the K = angular functions; the first are β
  const T *embedding, *w, *wb;                  // (elements, F), (radial, F), (F)
  const T *coefficients;                        // of the monomials in the harmonics, (monomials, W)
  const index_t *owner, *below, *axis;          // function of a harmonic; a monomial is `below` times a coordinate
  const T *v0, *v0t, *v0b, *v1, *v1t, *v1b, *v2, *v2t, *v2b, *v3;
  const T *g0, *g0t, *g0b, *g1, *g1t, *g1b, *g2, *g2t, *g2b, *g3;
  double v3b, g3b;
  const Block<T>* block;
};

template <typename T>
INLINE index_t whole(index_t count) {
  constexpr index_t L = Lanes<T>::count;
  return (count + L - 1) / L * L;
}

struct Sizes {
  index_t F, H, Q, W;
  index_t kept() const { return 8 * H + 6 * F + Q; }  // numbers that an edge keeps of a block
  index_t passed() const { return 4 * H + W; }        // that it adds to its first atom
};

template <typename T>
INLINE Sizes sizes(const Network<T>& net) {
  return {net.features, net.hidden, whole<T>(net.angular), whole<T>(net.harmonics)};
}

template <typename T>
struct Gated {  // a gated network
  const T *w1, *w1t, *w2v, *w2vt, *b2v, *w2g, *w2gt, *b2g, *w3v, *w3vt, *b3v, *w3g, *w3gt, *b3g, *r;
  index_t at;   // of its first layer in `pq`
};

template <typename T>
INLINE Gated<T> of_pairs(const Block<T>& b) {
  return {b.e1, b.e1t, b.e2v, b.e2vt, b.e2vb, b.e2g, b.e2gt, b.e2gb, b.e3v, b.e3vt, b.e3vb, b.e3g, b.e3gt, b.e3gb, b.er, 0};
}
template <typename T>
INLINE Gated<T> of_atoms(const Block<T>& b, index_t H) {
  return {b.v1, b.v1t, b.v2v, b.v2vt, b.v2vb, b.v2g, b.v2gt, b.v2gb, b.v3v, b.v3vt, b.v3vb, b.v3g, b.v3gt, b.v3gb, b.vr, 2 * H};
}

// --- memory ---------------------------------------------------------------------------------------------------------

template <typename T>
struct State {  // of one block
  T *pq, *s, *sums;  // (N, 8 H); σ(A v + α) and the sums over pairs, (N, W) each
  T *e, *kept;       // features of pairs after it, (E, F), and factors; neither of the last block
};

template <typename T>
struct Factors {  // of a gated network on the edges of a tile, for the way back
  T *first, *second, *last, *product;  // slopes (n, 2 H) twice; of value and gate (n, 2 F); value times gate (n, F)
};

template <typename T>
struct Kept {
  Factors<T> pairs, atoms;
  T* t;  // (n, Q) of those that form angles
  Kept(T* at, index_t n, Sizes z) {
    for (Factors<T>* f : {&pairs, &atoms}) {
      f->first = at, f->second = f->first + 2 * n * z.H, f->last = f->second + 2 * n * z.H;
      f->product = f->last + 2 * n * z.F, at = f->product + n * z.F;
    }
    t = at;
  }
};

template <typename T>
struct Work {
  Graph graph;
  bool keep;  // factors of the way back, where there is room
  index_t parts;
  std::vector<State<T>> blocks;
  T *v, *gv, *gq, *gs;          // (N, F) twice; gradient by the second half of pq (N, 4 H), and by s (N, W)
  T *passed, *heard;            // (parts, N, 4 H + W), what pairs add to first atoms, and its sum (N, 4 H + W)
  T *ge, *slopes, *turns;       // gradient by features of edges (E, F), by length (E) and direction (E, 3)
  double *energies, *gradient;  // (N), (E, 3)
};

template <typename T>
void lay_out(const Network<T>& net, const Graph& graph, bool keep, Arena<T>& arena, Work<T>& w) {
  const Sizes z = sizes(net);
  const index_t N = graph.atoms, E = graph.edges;
  w.graph = graph, w.keep = keep;
  w.parts = std::clamp((E + 8 * N) / PART, index_t(1), PARTS);
  w.blocks.assign(net.blocks, State<T>{});
  w.v = arena.take(N * z.F), w.gv = arena.take(N * z.F);
  w.gq = arena.take(4 * N * z.H), w.gs = arena.take(N * z.W);
  w.passed = arena.take(w.parts * N * z.passed()), w.heard = arena.take(N * z.passed());
  w.ge = arena.take(E * z.F), w.slopes = arena.take(E), w.turns = arena.take(3 * E);
  for (index_t k = 0; k < net.blocks; ++k) {
    State<T>& s = w.blocks[k];
    s.pq = arena.take(8 * N * z.H), s.s = arena.take(N * z.W), s.sums = arena.take(N * z.W);
    if (k + 1 == net.blocks) continue;
    s.e = keep && k ? w.blocks[0].e : arena.take(E * z.F);
    if (keep) s.kept = arena.take(E * z.kept());
  }
}

template <typename T>
index_t lay_out(const Network<T>& net, const Graph& graph, T* buffer, Work<T>& w) {
  Arena<T> count{nullptr}, arena{buffer};
  lay_out(net, graph, true, count, w);
  lay_out(net, graph, count.used <= net.room, arena, w);
  return arena.used;
}

// What a thread needs for the tile at hand: n atoms from i on, and their edges
template <typename T>
struct Scratch {
  Sizes z;
  index_t most_monomials, capacity = -1, i = 0, n = 0, edges = 0;
  std::vector<T> space;
  std::vector<Place<T>> places;
  std::vector<std::int32_t> near;        // those that form angles
  index_t begin[TILE + 1], close[TILE + 1];  // places of atom j are begin[j] … begin[j + 1] − 1; close of `near`
  T *values, *slopes;                    // functions of the distance (edges, Q), and by the distance
  T *e, *kept, *x, *y, *last;            // (edges, F), (edges, kept), (edges, 2 H) twice, (edges, 2 F)
  T *angles, *gt;                        // (edges, 2 F), (edges, Q)
  T *own, *rest;                         // (TILE, 8 H), and room for the readout
  T *radial, *slope, *h, *dh;            // of one edge: (W) thrice, (3, W)
  T *powers, *dpowers;                   // monomials, (3, monomials)

  Scratch(Sizes z, index_t monomials) : z(z), most_monomials(monomials) {}
  void reserve(index_t count) {
    edges = count;
    if (edges <= capacity) return;
    capacity = std::max(edges, 2 * TILE_EDGES);
    Arena<T> counted{nullptr};
    lay_out(counted);
    space.assign(counted.used + 16, T(0));  // numbers that only fill registers stay zero
    const auto address = reinterpret_cast<std::uintptr_t>(space.data());  // on a cache line, as vectors are
    Arena<T> arena{reinterpret_cast<T*>((address + 63) / 64 * 64)};
    lay_out(arena);
  }
  void lay_out(Arena<T>& a) {
    const index_t M = capacity;
    values = a.take(M * z.Q), slopes = a.take(M * z.Q), e = a.take(M * z.F), kept = a.take(M * z.kept());
    x = a.take(2 * M * z.H), y = a.take(2 * M * z.H), last = a.take(2 * M * z.F);
    angles = a.take(2 * M * z.F), gt = a.take(M * z.Q);
    own = a.take(8 * TILE * z.H), rest = a.take(TILE * 5 * (z.F + z.H));
    radial = a.take(z.W), slope = a.take(z.W), h = a.take(z.W), dh = a.take(3 * z.W);
    powers = a.take(most_monomials), dpowers = a.take(3 * most_monomials);
  }
};

// --- functions of the distance, and angles -----------------------------------------------------------------------------

// Places of the edges of a tile, and the functions of their distances
template <typename T>
INLINE void place(const Network<T>& net, const Graph& graph, Scratch<T>& s) {
  constexpr index_t L = Lanes<T>::count;
  const Spline spline{net.cutoff, net.bend, net.nodes};
  const index_t Q = s.z.Q;
  s.places.clear(), s.near.clear();
  s.begin[0] = s.close[0] = 0;
  for (index_t j = 0; j < s.n; ++j) {
    find_places(spline, graph.vectors, graph.neighbors, graph.rows[s.i + j], graph.rows[s.i + j + 1], s.places);
    s.begin[j + 1] = index_t(s.places.size());
    for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
      const Place<T>& p = s.places[e];
      if (p.over * T(net.near) >= T(1)) s.near.push_back(std::int32_t(e));
      for (index_t q = 0; q < Q; q += L) {
        const T* row = net.table + p.row * Q + q;
        Vec<T> value = {}, slope = {};
        for (int m = 0; m < TERMS; ++m) {
          const Vec<T> number = load(row + m * Q);
          value += p.value[m] * number, slope += p.slope[m] * number;
        }
        store(s.values + e * Q + q, value), store(s.slopes + e * Q + q, slope);
      }
    }
    s.close[j + 1] = index_t(s.near.size());
  }
}

// Of an edge: c R and its slope for each harmonic, harmonics of its direction times a sign, and their gradient
template <typename T>
struct Angle {
  T c, slope;
};
template <typename T>
INLINE Angle<T> angle(const Network<T>& net, Scratch<T>& s, index_t e, T sign, bool derivative) {
  constexpr index_t L = Lanes<T>::count;
  const index_t W = s.z.W, most = net.monomials;
  const Place<T>& p = s.places[e];
  const T x = T(1) / (p.over * T(net.near)), u[3] = {sign * p.u[0], sign * p.u[1], sign * p.u[2]};
  const T c = T(1) + x * x * x * (T(-10) + x * (T(15) - T(6) * x));
  const T slope = x * x * (T(-30) + x * (T(60) - T(30) * x)) / T(net.near);
  const T *values = s.values + e * s.z.Q, *slopes = s.slopes + e * s.z.Q;
  for (index_t k = 0; k < net.harmonics; ++k) s.radial[k] = c * values[net.owner[k]];
  if (derivative)
    for (index_t k = 0; k < net.harmonics; ++k) s.slope[k] = c * slopes[net.owner[k]] + slope * values[net.owner[k]];
  s.powers[0] = T(1);
  for (index_t k = 1; k < most; ++k) s.powers[k] = s.powers[net.below[k]] * u[net.axis[k]];
  if (derivative) {
    for (int a = 0; a < 3; ++a) s.dpowers[a * most] = T(0);
    for (index_t k = 1; k < most; ++k)
      for (int a = 0; a < 3; ++a)
        s.dpowers[a * most + k] = s.dpowers[a * most + net.below[k]] * u[net.axis[k]] +
                                  (net.axis[k] == a ? s.powers[net.below[k]] : T(0));
  }
  for (index_t j = 0; j < W; j += L) {
    Vec<T> h = {}, d[3] = {};
    for (index_t k = 0; k < most; ++k) {
      const Vec<T> row = load(net.coefficients + k * W + j);
      h += s.powers[k] * row;
      if (derivative)
        for (int a = 0; a < 3; ++a) d[a] += s.dpowers[a * most + k] * row;
    }
    store(s.h + j, h);
    if (derivative)
      for (int a = 0; a < 3; ++a) store(s.dh + a * W + j, d[a]);
  }
  return {c, slope};
}

// Adds to the gradient of an edge: by its length, and by its direction from that by the one turned round
template <typename T>
INLINE void turn(const Work<T>& w, index_t edge, Vec<T> slope, const Vec<T> along[3]) {
  w.slopes[edge] += sum<T>(slope);
  for (int a = 0; a < 3; ++a) w.turns[3 * edge + a] -= sum<T>(along[a]);
}

// Sums over the pairs that the atoms of a tile begin
template <typename T>
INLINE void hear(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k) {
  constexpr index_t L = Lanes<T>::count;
  const index_t W = s.z.W;
  for (index_t j = 0; j < s.n; ++j) {
    T* sums = w.blocks[k].sums + (s.i + j) * W;
    std::fill(sums, sums + W, T(0));
    for (index_t q = s.close[j]; q < s.close[j + 1]; ++q) {
      const index_t e = s.near[q];
      angle(net, s, e, T(1), false);
      const T* amounts = w.blocks[k].s + s.places[e].neighbor * W;
      for (index_t f = 0; f < W; f += L)
        store(sums + f, load(sums + f) + load(s.radial + f) * load(amounts + f) * load(s.h + f));
    }
  }
}

// From the gradient by the sums of neighbours, to that by s of the atoms of a tile and by their edges
template <typename T>
INLINE void hear_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k) {
  constexpr index_t L = Lanes<T>::count;
  const index_t W = s.z.W;
  for (index_t j = 0; j < s.n; ++j) {
    T* gs = w.gs + (s.i + j) * W;
    const T* amounts = w.blocks[k].s + (s.i + j) * W;
    for (index_t q = s.close[j]; q < s.close[j + 1]; ++q) {
      const index_t e = s.near[q];
      angle(net, s, e, T(-1), true);
      const T* g = w.heard + s.places[e].neighbor * s.z.passed() + 4 * s.z.H;
      Vec<T> slope = {}, along[3] = {};
      for (index_t f = 0; f < W; f += L) {
        const Vec<T> by = load(g + f), h = load(s.h + f), radial = load(s.radial + f);
        const Vec<T> weighed = by * load(amounts + f), by_h = weighed * radial;
        store(gs + f, load(gs + f) + by * radial * h);
        slope += weighed * h * load(s.slope + f);
        for (int a = 0; a < 3; ++a) along[a] += by_h * load(s.dh + a * W + f);
      }
      turn(w, w.graph.rows[s.i] + e, slope, along);
    }
  }
}

// T of the pairs of a tile
template <typename T>
INLINE void count_angles(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, T* t) {
  constexpr index_t L = Lanes<T>::count;
  const index_t W = s.z.W, Q = s.z.Q;
  const State<T>& state = w.blocks[k];
  for (index_t j = 0; j < s.n; ++j)
    for (index_t q = s.close[j]; q < s.close[j + 1]; ++q) {
      const index_t e = s.near[q];
      const T c = angle(net, s, e, T(-1), false).c, *own = state.s + (s.i + j) * W;
      const T* all = state.sums + s.places[e].neighbor * W;
      for (index_t f = 0; f < W; f += L) {
        const Vec<T> h = load(s.h + f);
        store(s.slope + f, c * h * (load(all + f) - load(s.radial + f) * load(own + f) * h));
      }
      std::fill(t + q * Q, t + (q + 1) * Q, T(0));
      for (index_t m = 0; m < net.harmonics; ++m) t[q * Q + net.owner[m]] += s.slope[m];
    }
}

// From gt to the gradient by the sums of first atoms, by s and by edges
template <typename T>
INLINE void count_angles_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, T* passed) {
  constexpr index_t L = Lanes<T>::count;
  const index_t W = s.z.W, Q = s.z.Q;
  const State<T>& state = w.blocks[k];
  T* gx = s.kept;  // free by now
  std::fill(gx, gx + W, T(0));
  for (index_t j = 0; j < s.n; ++j) {
    const T* own = state.s + (s.i + j) * W;
    T* gs = w.gs + (s.i + j) * W;
    std::fill(gs, gs + W, T(0));
    for (index_t q = s.close[j]; q < s.close[j + 1]; ++q) {
      const index_t e = s.near[q], first = s.places[e].neighbor;
      const Angle<T> c = angle(net, s, e, T(-1), true);
      for (index_t m = 0; m < net.harmonics; ++m) gx[m] = s.gt[q * Q + net.owner[m]];
      const T* all = state.sums + first * W;
      T* g = passed + first * s.z.passed() + 4 * s.z.H;
      Vec<T> slope = {}, along[3] = {};
      for (index_t f = 0; f < W; f += L) {
        const Vec<T> h = load(s.h + f), by = load(gx + f), mine = load(own + f), by_h = by * h;
        const Vec<T> term = load(s.radial + f) * mine * h, others = load(all + f) - term;
        store(g + f, load(g + f) + c.c * by_h);
        store(gs + f, load(gs + f) - c.c * by_h * h * load(s.radial + f));
        slope += by_h * (c.slope * others - c.c * load(s.slope + f) * mine * h);
        const Vec<T> turned = c.c * by * (others - term);
        for (int a = 0; a < 3; ++a) along[a] += turned * load(s.dh + a * W + f);
      }
      turn(w, w.graph.rows[s.i] + e, slope, along);
    }
  }
}

// --- gated networks ---------------------------------------------------------------------------------------------------

// A layer of value and one of gate, side by side in rows
template <typename T>
INLINE void two_layers(index_t rows, index_t inputs, index_t outputs, const T* in, const T* value, const T* gate, T* out,
                       const T* value_bias, const T* gate_bias) {
  constexpr index_t L = Lanes<T>::count;
  panel_layer<T, 1>(rows, inputs, outputs, {in, 2 * inputs, L}, value, {out, 2 * outputs, L}, value_bias, false);
  panel_layer<T, 1>(rows, inputs, outputs, {in + inputs, 2 * inputs, L}, gate, {out + outputs, 2 * outputs, L}, gate_bias,
                    false);
}
DISPATCH void both(index_t rows, index_t inputs, index_t outputs, const float* in, const float* value, const float* gate,
                   float* out, const float* value_bias = nullptr, const float* gate_bias = nullptr) {
  two_layers(rows, inputs, outputs, in, value, gate, out, value_bias, gate_bias);
}
DISPATCH void both(index_t rows, index_t inputs, index_t outputs, const double* in, const double* value,
                   const double* gate, double* out, const double* value_bias = nullptr,
                   const double* gate_bias = nullptr) {
  two_layers(rows, inputs, outputs, in, value, gate, out, value_bias, gate_bias);
}

// silu and its slope
template <typename T>
INLINE void activate_and_slope(const T* h, T* out, T* slope, index_t count) {
  for (index_t k = 0; k < count; k += Lanes<T>::count) {
    const Vec<T> x = load(h + k), open = sigmoid<T>(x), value = x * open;
    store(out + k, value);
    store(slope + k, open + value * (T(1) - open));
  }
}

template <typename T>
INLINE void multiply_by(const T* factors, T* g, index_t count) {
  for (index_t k = 0; k < count; k += Lanes<T>::count) store(g + k, load(g + k) * load(factors + k));
}

// Value times gate of every edge of a tile, from features of edges
template <typename T>
INLINE void gated(const Work<T>& w, Scratch<T>& s, const Gated<T>& net, index_t k, const T* e, Factors<T> f) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = s.z.F, H = s.z.H, M = s.begin[s.n];
  for (index_t j = 0; j < s.n; ++j) {
    const T* second = w.blocks[k].pq + 8 * (s.i + j) * H + 4 * H + net.at;
    for (index_t m = s.begin[j]; m < s.begin[j + 1]; ++m) {
      const T* first = w.blocks[k].pq + 8 * s.places[m].neighbor * H + net.at;
      for (index_t c = 0; c < 2 * H; c += L) store(s.y + 2 * m * H + c, load(first + c) + load(second + c));
    }
  }
  dense(M, F, 2 * H, e, net.w1, s.y, nullptr, true);
  activate_and_slope(s.y, s.x, f.first, 2 * M * H);
  both(M, H, H, s.x, net.w2v, net.w2g, s.y, net.b2v, net.b2g);
  activate_and_slope(s.y, s.x, f.second, 2 * M * H);
  both(M, H, F, s.x, net.w3v, net.w3g, s.last, net.b3v, net.b3g);
  for (index_t m = 0; m < M; ++m)
    for (index_t c = 0; c < F; c += L) {
      const T* h = s.last + 2 * m * F + c;
      T* factors = f.last + 2 * m * F + c;
      const Vec<T> x = load(h), open = sigmoid<T>(x), on = sigmoid<T>(load(h + F)), product = x * open * on;
      store(factors, on * (open + x * open * (T(1) - open)));
      store(factors + F, product * (T(1) - on));
      store(f.product + m * F + c, product);
    }
}

// Rows of R times functions of the distance
template <typename T>
INLINE Vec<T> radial(const Network<T>& net, const T* functions, const T* rows) {
  Vec<T> total = functions[0] * load(rows);
  for (index_t n = 1; n < net.radial; ++n) total += functions[n] * load(rows + n * net.features);
  return total;
}

// From gradients by value · gate · R β, (edges, F) or those of the atoms (n, F), to those by features of edges, added to
// ge, by the first layer, added to what is passed and to gq unless that is null, and by the distance
template <typename T>
INLINE void gated_back(const Network<T>& all, const Work<T>& w, const Scratch<T>& s, const Gated<T>& net, Factors<T> f,
                       const T* g, bool of_atoms, T* ge, T* passed) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = s.z.F, H = s.z.H, Q = s.z.Q, M = s.begin[s.n];
  for (index_t j = 0; j < s.n; ++j)
    for (index_t m = s.begin[j]; m < s.begin[j + 1]; ++m) {
      const T *by = g + (of_atoms ? j : m) * F, *factors = f.last + 2 * m * F;
      for (index_t c = 0; c < 2 * H; c += L) __builtin_prefetch(f.second + 2 * m * H + c);
      Vec<T> slope = {};
      for (index_t c = 0; c < F; c += L) {
        const Vec<T> back = load(by + c), inner = back * radial(all, s.values + m * Q, net.r + c);
        slope += back * load(f.product + m * F + c) * radial(all, s.slopes + m * Q, net.r + c);
        store(s.last + 2 * m * F + c, inner * load(factors + c));
        store(s.last + 2 * m * F + F + c, inner * load(factors + F + c));
      }
      w.slopes[w.graph.rows[s.i] + m] += sum<T>(slope);
    }
  both(M, F, H, s.last, net.w3vt, net.w3gt, s.x);
  for (index_t c = 0; c < 2 * M * H; c += L) __builtin_prefetch(f.first + c);
  multiply_by(f.second, s.x, 2 * M * H);
  both(M, H, H, s.x, net.w2vt, net.w2gt, s.y);
  multiply_by(f.first, s.y, 2 * M * H);
  dense(M, 2 * H, F, s.y, net.w1t, ge, nullptr, true);
  if (!passed) return;
  for (index_t j = 0; j < s.n; ++j) {
    T* own = w.gq + 4 * (s.i + j) * H + net.at;
    std::fill(own, own + 2 * H, T(0));
    for (index_t m = s.begin[j]; m < s.begin[j + 1]; ++m) {
      T* first = passed + s.places[m].neighbor * s.z.passed() + net.at;
      for (index_t c = 0; c < 2 * H; c += L) {
        const Vec<T> part = load(s.y + 2 * m * H + c);
        store(own + c, load(own + c) + part), store(first + c, load(first + c) + part);
      }
    }
  }
}

// --- blocks -----------------------------------------------------------------------------------------------------------

// What a block needs of the features of a tile's atoms
template <typename T>
INLINE void describe(const Network<T>& net, const Work<T>& w, const Scratch<T>& s, index_t k) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = s.z.F, H = s.z.H, W = s.z.W;
  const Block<T>& b = net.block[k];
  const T* v = w.v + s.i * F;
  T* amounts = w.blocks[k].s + s.i * W;
  dense(s.n, F, 8 * H, v, b.pq, w.blocks[k].pq + 8 * s.i * H, b.pqb);
  dense(s.n, F, W, v, b.s, amounts, b.sb);
  for (index_t f = 0; f < s.n * W; f += L) store(amounts + f, sigmoid<T>(load(amounts + f)));
}

// Features of the edges of a tile before the first block
template <typename T>
INLINE void embed_edges(const Network<T>& net, const Scratch<T>& s, T* e) {
  const index_t F = s.z.F;
  for (index_t m = 0; m < s.begin[s.n]; ++m)
    for (index_t c = 0; c < F; c += Lanes<T>::count)
      store(e + m * F + c, silu<T>(radial(net, s.values + m * s.z.Q, net.w + c) + load(net.wb + c)));
}

template <typename T>
INLINE void embed_edges_back(const Network<T>& net, const Work<T>& w, const Scratch<T>& s, const T* ge) {
  const index_t F = s.z.F, Q = s.z.Q;
  for (index_t m = 0; m < s.begin[s.n]; ++m) {
    Vec<T> slope = {};
    for (index_t c = 0; c < F; c += Lanes<T>::count) {
      const Vec<T> h = radial(net, s.values + m * Q, net.w + c) + load(net.wb + c);
      slope += load(ge + m * F + c) * silu_slope<T>(h) * radial(net, s.slopes + m * Q, net.w + c);
    }
    w.slopes[w.graph.rows[s.i] + m] += sum<T>(slope);
  }
}

// Features of edges, in place, and both gated networks of a block
template <typename T>
INLINE void pairs(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, T* e, const Kept<T>& kept) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = s.z.F, close = s.close[s.n];
  const Block<T>& b = net.block[k];
  count_angles(net, w, s, k, kept.t);
  dense(close, s.z.Q, 2 * F, kept.t, b.g, s.angles);
  for (index_t q = 0; q < close; ++q)
    for (index_t c = 0; c < F; c += L) {
      const T* h = s.angles + 2 * q * F + c;
      T* at = e + s.near[q] * F + c;
      store(at, load(at) + silu<T>(load(h)) * sigmoid<T>(load(h + F)));
    }
  gated(w, s, of_pairs(b), k, e, kept.pairs);
  for (index_t m = 0; m < s.begin[s.n]; ++m)
    for (index_t c = 0; c < F; c += L) {
      T* at = e + m * F + c;
      store(at, load(at) + load(kept.pairs.product + m * F + c) * radial(net, s.values + m * s.z.Q, b.er + c));
    }
  gated(w, s, of_atoms(b, s.z.H), k, e, kept.atoms);
}

// Features of atoms after a block
template <typename T>
INLINE void gather(const Network<T>& net, const Work<T>& w, const Scratch<T>& s, index_t k, const Kept<T>& kept) {
  const index_t F = s.z.F;
  const T* rows = net.block[k].vr;
  for (index_t j = 0; j < s.n; ++j)
    for (index_t c = 0; c < F; c += Lanes<T>::count) {
      T* v = w.v + (s.i + j) * F + c;
      Vec<T> total = load(v);
      for (index_t m = s.begin[j]; m < s.begin[j + 1]; ++m)
        total += load(kept.atoms.product + m * F + c) * radial(net, s.values + m * s.z.Q, rows + c);
      store(v, total);
    }
}

// From gv and ge after a block to ge before it, and to what it passes to atoms
template <typename T>
INLINE void pairs_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, index_t part, Kept<T> kept) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = s.z.F, close = s.close[s.n];
  const Block<T>& b = net.block[k];
  T *ge = w.ge + w.graph.rows[s.i] * F, *passed = w.passed + part * w.graph.atoms * s.z.passed();
  // Before the first block atoms are what their elements make them.
  T* to_atoms = k ? passed : nullptr;
  gated_back<T>(net, w, s, of_atoms(b, s.z.H), kept.atoms, w.gv + s.i * F, true, ge, to_atoms);
  gated_back<T>(net, w, s, of_pairs(b), kept.pairs, ge, false, ge, to_atoms);
  dense(close, s.z.Q, 2 * F, kept.t, b.g, s.angles);
  for (index_t q = 0; q < close; ++q)
    for (index_t c = 0; c < F; c += L) {
      T *value = s.angles + 2 * q * F + c, *gate = value + F;
      const Vec<T> x = load(value), open = sigmoid<T>(x), on = sigmoid<T>(load(gate)), g = load(ge + s.near[q] * F + c);
      store(value, g * on * (open + x * open * (T(1) - open)));
      store(gate, g * x * open * on * (T(1) - on));
    }
  dense(close, 2 * F, s.z.Q, s.angles, b.gt, s.gt);
  count_angles_back(net, w, s, k, passed);
  if (k == 0) embed_edges_back(net, w, s, ge);
}

// gv before a block: what came through the block is added
template <typename T>
INLINE void describe_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k) {
  constexpr index_t L = Lanes<T>::count;
  const index_t H = s.z.H, W = s.z.W, F = s.z.F;
  T *gv = w.gv + s.i * F, *gs = w.gs + s.i * W;
  const T* amounts = w.blocks[k].s + s.i * W;
  for (index_t j = 0; j < s.n; ++j) {
    const T *first = w.heard + (s.i + j) * s.z.passed(), *second = w.gq + 4 * (s.i + j) * H;
    std::copy(first, first + 4 * H, s.own + 8 * j * H);
    std::copy(second, second + 4 * H, s.own + 8 * j * H + 4 * H);
  }
  for (index_t f = 0; f < s.n * W; f += L) {
    const Vec<T> a = load(amounts + f);
    store(gs + f, load(gs + f) * a * (T(1) - a));
  }
  dense(s.n, 8 * H, F, s.own, net.block[k].pqt, gv, nullptr, true);
  dense(s.n, W, F, gs, net.block[k].st, gv, nullptr, true);
}

template <typename T>
INLINE void read_out(const Network<T>& net, const Work<T>& w, Scratch<T>& s) {
  const index_t F = s.z.F, H = s.z.H;
  T* at = s.rest;
  const auto next = [&](index_t width) { T* piece = at; at += TILE * width; return piece; };
  const index_t most = std::max(F, H);
  T* shared = next(most);
  Stack<T> value{{F, F, H, H}, net.v0, net.v0t, net.v0b, net.v1, net.v1t, net.v1b, net.v2, net.v2t, net.v2b, net.v3,
                 next(F), next(H), next(most), shared};
  Stack<T> gate{{F, F, H, H}, net.g0, net.g0t, net.g0b, net.g1, net.g1t, net.g1b, net.g2, net.g2t, net.g2b, net.g3,
                next(F), next(H), next(most), shared};
  gated_readout(value, gate, T(net.v3b), T(net.g3b), s.n, w.v + s.i * F, w.energies + s.i,
                w.gradient ? w.gv + s.i * F : nullptr);
}

// Gradient along the edges of a tile, once all blocks have added to it
template <typename T>
INLINE void finish(const Work<T>& w, const Scratch<T>& s) {
  const index_t start = w.graph.rows[s.i];
  std::fill(w.gradient + 3 * start, w.gradient + 3 * w.graph.rows[s.i + s.n], 0.0);
  for (index_t m = 0; m < s.begin[s.n]; ++m) {
    const Place<T>& p = s.places[m];
    double turned[3], along = 0;
    for (int a = 0; a < 3; ++a) turned[a] = double(w.turns[3 * (start + m) + a]), along += turned[a] * double(p.u[a]);
    const double slope = double(w.slopes[start + m]) - along * double(p.over);
    for (int a = 0; a < 3; ++a) w.gradient[3 * p.edge + a] = slope * double(p.u[a]) + turned[a] * double(p.over);
  }
}

// --- steps ------------------------------------------------------------------------------------------------------------

// A part of the way that all atoms must be through before any goes on
enum Phase { EMBED, HEAR, CONVOLVE, SUM, BACK };

template <typename T>
INLINE Kept<T> kept_of(const Work<T>& w, const Scratch<T>& s, index_t k) {
  const bool kept = w.keep && k + 1 < index_t(w.blocks.size());
  return {kept ? w.blocks[k].kept + w.graph.rows[s.i] * s.z.kept() : s.kept, s.edges, s.z};
}

// Features of edges before block k, in an array that it may write
template <typename T>
INLINE T* edges_for(const Network<T>& net, const Work<T>& w, const Scratch<T>& s, index_t k, bool again) {
  const index_t at = w.graph.rows[s.i] * s.z.F, count = s.begin[s.n] * s.z.F;
  T* e = again || k + 1 == net.blocks ? s.e : w.blocks[k].e + at;
  if (k == 0) embed_edges(net, s, e);
  else if (e != w.blocks[k - 1].e + at) std::copy(w.blocks[k - 1].e + at, w.blocks[k - 1].e + at + count, e);
  return e;
}

template <typename T>
INLINE void convolve(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, index_t part) {
  const Kept<T> kept = kept_of(w, s, k);
  pairs(net, w, s, k, edges_for(net, w, s, k, false), kept);
  gather(net, w, s, k, kept);
  if (k + 1 < net.blocks) return describe(net, w, s, k + 1);
  read_out(net, w, s);
  if (!w.gradient) return;
  const index_t start = w.graph.rows[s.i];
  std::fill(w.ge + start * s.z.F, w.ge + (start + s.edges) * s.z.F, T(0));
  std::fill(w.slopes + start, w.slopes + start + s.edges, T(0));
  std::fill(w.turns + 3 * start, w.turns + 3 * (start + s.edges), T(0));
  pairs_back(net, w, s, k, part, kept);
}

template <typename T>
INLINE void go_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, index_t part) {
  hear_back(net, w, s, k);
  if (k == 0) return finish(w, s);
  describe_back(net, w, s, k);
  const Kept<T> kept = kept_of(w, s, k - 1);
  if (!w.keep) pairs(net, w, s, k - 1, edges_for(net, w, s, k - 1, true), kept);
  pairs_back(net, w, s, k - 1, part, kept);
}

template <typename T>
INLINE void run_tile(const Network<T>& net, const Work<T>& w, Scratch<T>& s, Phase phase, index_t k, index_t part) {
  const index_t F = s.z.F, size = s.z.passed(), N = w.graph.atoms;
  switch (phase) {
    case EMBED:
      for (index_t j = s.i; j < s.i + s.n; ++j) {
        const T* row = net.embedding + w.graph.numbers[j] * F;
        std::copy(row, row + F, w.v + j * F);
      }
      for (index_t p = 0; p < w.parts; ++p)
        std::fill(w.passed + (p * N + s.i) * size, w.passed + (p * N + s.i + s.n) * size, T(0));
      describe(net, w, s, 0);
      break;
    case HEAR: place(net, w.graph, s), hear(net, w, s, k); break;
    case CONVOLVE: place(net, w.graph, s), convolve(net, w, s, k, part); break;
    case SUM:
      std::fill(w.heard + s.i * size, w.heard + (s.i + s.n) * size, T(0));
      for (index_t p = 0; p < w.parts; ++p) {
        T *from = w.passed + (p * N + s.i) * size, *to = w.heard + s.i * size;
        for (index_t f = 0; f < s.n * size; ++f) to[f] += from[f], from[f] = T(0);
      }
      break;
    case BACK: place(net, w.graph, s), go_back(net, w, s, k, part); break;
  }
}

// One clone of each for a processor
#define FUNCTIONS(T)                                                                                                    \
  DISPATCH void run_tiles(const Network<T>& net, const Work<T>& w, Scratch<T>& s, Phase phase, index_t k, index_t part, \
                          index_t first, index_t last) {                                                               \
    for (s.i = first; s.i < last; s.i += s.n) {                                                                         \
      const index_t* rows = w.graph.rows + s.i;                                                                         \
      s.n = 1;                                                                                                          \
      while (s.i + s.n < last && s.n < TILE && rows[s.n] - rows[0] < TILE_EDGES) ++s.n;                                 \
      s.reserve(rows[s.n] - rows[0]);                                                                                   \
      run_tile(net, w, s, phase, k, part);                                                                              \
    }                                                                                                                   \
  }
FUNCTIONS(float)
FUNCTIONS(double)

// First atom of a part; those of about as many edges each
index_t start_of(const Graph& graph, index_t part, index_t parts) {
  const index_t all = graph.rows[graph.atoms] + 8 * graph.atoms;
  index_t first = 0, last = graph.atoms;
  while (first < last) {
    const index_t i = (first + last) / 2;
    if (graph.rows[i] + 8 * i < all * part / parts) first = i + 1;
    else last = i;
  }
  return part == parts ? graph.atoms : first;
}

index_t workspace(const Network<float>& net, const Graph& graph) {
  Work<float> w{};
  return lay_out<float>(net, graph, nullptr, w);
}

template <typename T>
void evaluate(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient) {
  Work<T> w{};
  lay_out(net, graph, buffer, w);
  w.energies = energies, w.gradient = gradient;
  const index_t threads = std::clamp(graph.threads, index_t(1), w.parts);
  std::deque<Scratch<T>> scratch;
  for (index_t t = 0; t < threads; ++t) scratch.emplace_back(sizes(net), net.monomials);
  const auto run = [&](Phase phase, index_t k) {
    const auto work = [&](index_t t) {
      for (index_t p = w.parts * t / threads; p < w.parts * (t + 1) / threads; ++p)
        run_tiles(net, w, scratch[t], phase, k, p, start_of(graph, p, w.parts), start_of(graph, p + 1, w.parts));
    };
    std::vector<std::thread> pool;
    for (index_t t = 1; t < threads; ++t) pool.emplace_back(work, t);
    work(0);
    for (auto& thread : pool) thread.join();
  };
  run(EMBED, 0);
  for (index_t k = 0; k < net.blocks; ++k) run(HEAR, k), run(CONVOLVE, k);
  if (!gradient) return;
  for (index_t k = net.blocks - 1; k >= 0; --k) run(SUM, k), run(BACK, k);
}

}  // namespace

ASECALC_KERNEL(m3gnet)
ASECALC_EVALUATE(m3gnet, float, f32)
ASECALC_EVALUATE(m3gnet, double, f64)
