// A trained TensorNet on the CPU: energies of all atoms and the gradient along every edge, in the steps of
// asecalc_layers.h.
//
// Filters see nothing but the distance, so they are read from tables (spline.h). What a pass needs of an edge is made
// where it is used; an edge keeps one number, its slope. Directions enter once, in the embedding. As in painn.cpp the
// edges that end in atom a are the edges of row a turned round, so every sum is owned by one atom.
//
// TILE atoms go through a step together. Their edges are taken register by register of the channels, so that a sum stays
// in registers, and the part of the table for these channels in the first caches.
//
// Names as in models/tensornet.py. With few atoms all that the way back needs is kept; with many, to save memory, X_0, M
// and little else, from which the rest is made once more.
#include "asecalc_layers.h"
#include "readout.h"
#include "spline.h"
#include "tensors.h"

#include <algorithm>

namespace {

constexpr index_t TILE = 16, GROUP = 4;

template <typename T>
struct Block {  // weights in panels, (in, out); those with a trailing t are the transposes, for the backward pass
  const T* table;                                // (F / L, rows, 3, L)
  const T *y0, *y0t, *y1, *y1t, *y2, *y2t;       // mixes of X for the messages
  const T *d0, *d0t, *d1, *d1t, *d2, *d2t;       // mixes of the product
};

template <typename T>
struct Network {  // the other side is TensorNetWeights in models/tensornet_native.py
  index_t features, blocks, nodes, own, symmetric;
  index_t room;                                  // numbers that may be kept; see Work
  double cutoff, bend;
  const T *table, *of_neighbor, *of_center;      // as that of a block; (elements, F) twice
  const T *s0, *s0t, *s0b, *s1, *s1t, *s1b;      // scales, the norm before them taken in
  const T *m0, *m0t, *m1, *m1t, *m2, *m2t;       // mixes of the embedding
  const T *h, *ht, *hb;                          // from 3 F to F, the norm before it taken in
  const T *v0, *v0t, *v0b, *v1, *v1t, *v1b, *v2, *v2t, *v2b, *v3;
  const T *g0, *g0t, *g0b, *g1, *g1t, *g1b, *g2, *g2t, *g2b, *g3;
  double v3b, g3b;
  const Block<T>* block;
};

// --- memory ---------------------------------------------------------------------------------------------------------

template <typename T>
struct State {  // of one block: its X, Y and M, in whose place the gradient by M comes, and D
  T *x, *y, *m, *d;
};

// What a tile of the embedding makes on its way to X: (n, 9 F) twice, (n, F), (n, 2 F), (n, 3 F), (n)
template <typename T>
struct Embedding {
  T *u, *v, *normed, *h1, *h2, *inverse;
  INLINE Embedding at(index_t i, index_t F) const {
    return {u + 9 * i * F, v + 9 * i * F, normed + i * F, h1 + 2 * i * F, h2 + 3 * i * F, inverse + i};
  }
};

template <typename T>
struct Work {
  Graph graph;
  bool keep;  // all that the way back needs, where there is room
  std::vector<State<T>> blocks;
  Embedding<T> embedding;
  T *g, *gy, *slopes;           // gradient by X, (N, 9 F); by Y, where kept; by the length of edges, (E)
  double *energies, *gradient;  // (N), (E, 3)
};

template <typename T>
Embedding<T> take_embedding(Arena<T>& arena, index_t n, index_t F) {
  Embedding<T> e;
  e.u = arena.take(9 * n * F), e.v = arena.take(9 * n * F), e.normed = arena.take(n * F);
  e.h1 = arena.take(2 * n * F), e.h2 = arena.take(3 * n * F), e.inverse = arena.take(n);
  return e;
}

// Y and M are exchanged, so they have rows for ghosts
template <typename T>
void lay_out(const Network<T>& net, const Graph& graph, bool keep, Arena<T>& arena, Work<T>& w) {
  const index_t F = net.features, own = 9 * graph.atoms * F, all = 9 * (graph.atoms + graph.ghosts) * F;
  w.graph = graph, w.keep = keep;
  w.blocks.resize(net.blocks);
  w.slopes = arena.take(graph.edges);
  w.g = arena.take(own);
  w.gy = keep ? arena.take(own) : nullptr;
  if (keep) w.embedding = take_embedding(arena, graph.atoms, F);
  T* y = keep ? nullptr : arena.take(all);
  for (State<T>& s : w.blocks) {
    // The last X makes room for the gradient by what comes after it.
    s.x = keep || &s != &w.blocks.back() ? arena.take(own) : w.g;
    s.y = keep ? arena.take(all) : y;
    s.m = arena.take(all);
    s.d = keep ? arena.take(own) : nullptr;
  }
}

template <typename T>
index_t lay_out(const Network<T>& net, const Graph& graph, T* buffer, Work<T>& w) {
  Arena<T> count{nullptr}, arena{buffer};
  lay_out(net, graph, true, count, w);
  lay_out(net, graph, count.used <= net.room, arena, w);
  return arena.used;
}

// What a thread needs for the tile at hand
template <typename T>
struct Scratch {
  std::vector<T> space;
  T *x, *y, *m, *d, *p, *q, *rest;  // (TILE, 9 F) each, the last (TILE, 14 F)
  Embedding<T> embedding;
  std::vector<Place<T>> places;
  std::vector<T> sums, lines;  // (places, 4 L), (places, 5)
  index_t begin[TILE + 1];     // places of atom j are begin[j] … begin[j + 1] − 1

  explicit Scratch(index_t F) {
    Arena<T> count{nullptr};
    lay_out(count, F);
    space.resize(count.used + 16);
    // On a cache line, as vectors are.
    const auto address = reinterpret_cast<std::uintptr_t>(space.data());
    Arena<T> arena{reinterpret_cast<T*>((address + 63) / 64 * 64)};
    lay_out(arena, F);
  }
  void lay_out(Arena<T>& arena, index_t F) {
    for (T** part : {&x, &y, &m, &d, &p, &q}) *part = arena.take(9 * TILE * F);
    rest = arena.take(14 * TILE * F);
    embedding = take_embedding(arena, TILE, F);
  }
};

template <typename T>
INLINE void place(const Network<T>& net, const Graph& graph, Scratch<T>& s, index_t i, index_t n) {
  const Spline spline{net.cutoff, net.bend, net.nodes};
  s.places.clear();
  s.begin[0] = 0;
  for (index_t j = 0; j < n; ++j) {
    find_places(spline, graph.vectors, graph.neighbors, graph.rows[i + j], graph.rows[i + j + 1], s.places);
    s.begin[j + 1] = index_t(s.places.size());
  }
}

template <typename T>
INLINE index_t table_size(const Network<T>& net) {
  return (net.nodes + TERMS - 2) * 3 * Lanes<T>::count;
}

// --- norms ----------------------------------------------------------------------------------------------------------

// x̂ = (x − mean)/σ of a row, in place; returns 1/σ
template <typename T>
INLINE T normalise(T* x, index_t width) {
  constexpr index_t L = Lanes<T>::count;
  Vec<T> total = {}, squares = {};
  for (index_t f = 0; f < width; f += L) total += load(x + f);
  const T mean = sum<T>(total) / T(width);
  for (index_t f = 0; f < width; f += L) {
    const Vec<T> c = load(x + f) - mean;
    squares += c * c;
    store(x + f, c);
  }
  const T inverse = T(1) / std::sqrt(sum<T>(squares) / T(width) + T(1e-5));
  for (index_t f = 0; f < width; f += L) store(x + f, load(x + f) * inverse);
  return inverse;
}

// Gradient by x from that by x̂, in place
template <typename T>
INLINE void normalise_back(T* g, const T* normed, T inverse, index_t width) {
  constexpr index_t L = Lanes<T>::count;
  Vec<T> total = {}, along = {};
  for (index_t f = 0; f < width; f += L) {
    total += load(g + f);
    along += load(g + f) * load(normed + f);
  }
  const T mean = sum<T>(total) / T(width), part = sum<T>(along) / T(width);
  for (index_t f = 0; f < width; f += L) store(g + f, inverse * (load(g + f) - mean - part * load(normed + f)));
}

// --- embedding ------------------------------------------------------------------------------------------------------

// U of a tile from its edges
template <typename T>
INLINE void embed_edges(const Network<T>& net, const Graph& graph, Scratch<T>& s, index_t i, index_t n, T* u) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  s.lines.resize(5 * s.places.size());
  for (index_t e = 0; e < s.begin[n]; ++e) {  // the five numbers of ûûᵀ − 1/3
    const T *v = s.places[e].u, third = T(1.0 / 3.0);
    const T line[5] = {v[0] * v[0] - third, v[1] * v[1] - third, v[0] * v[1], v[0] * v[2], v[1] * v[2]};
    std::copy(line, line + 5, s.lines.data() + 5 * e);
  }
  for (index_t c = 0; c < F / L; ++c) {
    const T* table = net.table + c * table_size(net);
    for (index_t j = 0; j < n; ++j) {
      const Vec<T> own = load(net.of_center + graph.numbers[i + j] * F + c * L);
      Vec<T> total[9] = {};
      for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
        const Place<T>& p = s.places[e];
        const T* line = s.lines.data() + 5 * e;
        Vec<T> t[3];
        spline_values(table + p.row * 3 * L, p.value, t);
        const Vec<T> z = load(net.of_neighbor + graph.numbers[p.neighbor] * F + c * L) + own;
        const Vec<T> skew = t[1] * z, rest = t[2] * z;
        total[0] += t[0] * z;
        for (int k = 0; k < 3; ++k) total[1 + k] -= skew * p.u[k];  // directions point to the atom
        for (int k = 0; k < 5; ++k) total[4 + k] += rest * line[k];
      }
      store9(u + (9 * j) * F + 9 * c * L, total);
    }
  }
}

template <typename T>
INLINE void embed(const Network<T>& net, const Graph& graph, Scratch<T>& s, index_t i, index_t n,
                  const Embedding<T>& e, T* x) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  embed_edges(net, graph, s, i, n, e.u);
  for (index_t j = 0; j < n; ++j) {
    for (index_t c = 0; c < F / L; ++c) {
      Vec<T> u[9], metric_u[9];
      load9(e.u + 9 * (j * F + c * L), u);
      metric<T>(u, metric_u);
      store(e.normed + j * F + c * L, inner<T>(metric_u, u));
    }
    e.inverse[j] = normalise(e.normed + j * F, F);
  }
  dense(n, F, 2 * F, e.normed, net.s0, e.h1, net.s0b);
  activate(e.h1, s.rest, 2 * n * F);
  dense(n, 2 * F, 3 * F, s.rest, net.s1, e.h2, net.s1b);
  mix(n, F, e.u, net.m0, net.m1, net.m2, e.v);
  for (index_t j = 0; j < n; ++j)
    for (index_t c = 0; c < F / L; ++c) {
      const T* h = e.h2 + 3 * j * F + c * L;
      const Vec<T> q[3] = {silu<T>(load(h)), silu<T>(load(h + F)), silu<T>(load(h + 2 * F))};
      Vec<T> v[9];
      load9(e.v + 9 * (j * F + c * L), v);
      for (int k = 0; k < 9; ++k) v[k] *= q[part_of(k)];
      store9(x + 9 * (j * F + c * L), v);
    }
}

// Gradient of the edges of a tile from that of its U
template <typename T>
INLINE void embed_edges_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t i, index_t n, const T* g) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  s.sums.assign(4 * L * s.places.size(), T(0));
  for (index_t c = 0; c < F / L; ++c) {
    const T* table = net.table + c * table_size(net);
    for (index_t j = 0; j < n; ++j) {
      const Vec<T> own = load(net.of_center + w.graph.numbers[i + j] * F + c * L);
      Vec<T> a[9];
      load9(g + 9 * (j * F + c * L), a);
      const Vec<T> last = a[4] + a[5];
      for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
        const Place<T>& p = s.places[e];
        T* sums = s.sums.data() + 4 * L * e;
        Vec<T> t[3], d[3];
        spline_values_and_slopes(table + p.row * 3 * L, p, t, d);
        const Vec<T> z = load(net.of_neighbor + w.graph.numbers[p.neighbor] * F + c * L) + own;
        const T x = -p.u[0], y = -p.u[1], r = -p.u[2];
        const Vec<T> su[3] = {a[4] * x + a[6] * y + a[7] * r, a[6] * x + a[5] * y + a[8] * r,
                              a[7] * x + a[8] * y - last * r};
        const Vec<T> au = a[1] * x + a[2] * y + a[3] * r, uu = su[0] * x + su[1] * y + su[2] * r;
        const Vec<T> skew = t[1] * z, rest = t[2] * z;
        store(sums, load(sums) + z * (T(3) * d[0] * a[0] + T(2) * d[1] * au + d[2] * uu));
        for (int k = 0; k < 3; ++k) store(sums + (1 + k) * L, load(sums + (1 + k) * L) + skew * a[1 + k] + rest * su[k]);
      }
    }
  }
  for (index_t e = w.graph.rows[i]; e < w.graph.rows[i + n]; ++e)
    for (int k = 0; k < 3; ++k) w.gradient[3 * e + k] = 0;
  for (index_t e = 0; e < s.begin[n]; ++e) {
    const Place<T>& p = s.places[e];
    const T* sums = s.sums.data() + 4 * L * e;
    const double slope = double(w.slopes[p.edge]) + double(sum<T>(load(sums)));
    double turn[3], along = 0;
    for (int k = 0; k < 3; ++k) turn[k] = 2.0 * double(sum<T>(load(sums + (1 + k) * L))), along += turn[k] * double(p.u[k]);
    for (int k = 0; k < 3; ++k)
      w.gradient[3 * p.edge + k] = slope * double(p.u[k]) - (turn[k] - along * double(p.u[k])) * double(p.over);
  }
}

// From g, the gradient by X
template <typename T>
INLINE void embed_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t i, index_t n,
                       const Embedding<T>& e, const T* g) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  T *gq = s.rest, *gh = gq + 3 * TILE * F, *gn = gh + 2 * TILE * F;
  for (index_t j = 0; j < n; ++j)
    for (index_t c = 0; c < F / L; ++c) {
      const T* h = e.h2 + 3 * j * F + c * L;
      Vec<T> v[9], x[9], j9[9], by[3], q[3];
      load9(e.v + 9 * (j * F + c * L), v);
      load9(g + 9 * (j * F + c * L), x);
      metric<T>(v, j9);
      inner_parts<T>(j9, x, by);
      for (int k = 0; k < 3; ++k) {
        q[k] = silu<T>(load(h + k * F));
        store(gq + (3 * j + k) * F + c * L, by[k] * silu_slope<T>(load(h + k * F)));
      }
      for (int k = 0; k < 9; ++k) x[k] *= q[part_of(k)];
      store9(s.p + 9 * (j * F + c * L), x);
    }
  dense(n, 3 * F, 2 * F, gq, net.s1t, gh);
  activate_back(e.h1, gh, 2 * n * F);
  dense(n, 2 * F, F, gh, net.s0t, gn);
  mix(n, F, s.p, net.m0t, net.m1t, net.m2t, s.q);
  for (index_t j = 0; j < n; ++j) {
    normalise_back(gn + j * F, e.normed + j * F, e.inverse[j], F);
    for (index_t c = 0; c < F / L; ++c) {
      Vec<T> u[9], d[9];
      load9(e.u + 9 * (j * F + c * L), u);
      load9(s.q + 9 * (j * F + c * L), d);
      const Vec<T> twice = T(2) * load(gn + j * F + c * L);
      for (int k = 0; k < 9; ++k) d[k] += twice * u[k];
      store9(s.q + 9 * (j * F + c * L), d);
    }
  }
  embed_edges_back(net, w, s, i, n, s.q);
}

// --- blocks, forward ------------------------------------------------------------------------------------------------

// Y of a tile from its X
template <typename T>
INLINE void project(const Network<T>& net, const Block<T>& b, Scratch<T>& s, index_t n, const T* x, T* y) {
  constexpr index_t L = Lanes<T>::count;
  for (index_t f = 0; f < 9 * n * net.features; f += 9 * L) {
    Vec<T> bounded[9];
    load9(x + f, bounded);
    bound<T>(bounded);
    store9(s.p + f, bounded);
  }
  mix(n, net.features, s.p, b.y0, b.y1, b.y2, y);
}

// M of a tile from the Y of all; y is that of the tile
template <typename T>
INLINE void gather(const Network<T>& net, const Block<T>& b, const Scratch<T>& s, index_t n, const T* all, const T* y,
                   T* m) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  for (index_t j0 = 0; j0 < n; j0 += GROUP)
    for (index_t c = 0; c < F / L; ++c) {
      const T *table = b.table + c * table_size(net), *senders = all + 9 * c * L;
      for (index_t j = j0; j < std::min(n, j0 + GROUP); ++j) {
        Vec<T> total[9] = {};
        if (net.own) {
          Vec<T> t[3], sums[3] = {};
          for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
            spline_values(table + s.places[e].row * 3 * L, s.places[e].value, t);
            for (int k = 0; k < 3; ++k) sums[k] += t[k];
          }
          load9(y + 9 * (j * F + c * L), total);
          for (int k = 0; k < 9; ++k) total[k] *= sums[part_of(k)];
        } else {
          for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
            const Place<T>& p = s.places[e];
            Vec<T> t[3];
            spline_values(table + p.row * 3 * L, p.value, t);
            const T* from = senders + 9 * p.neighbor * F;
            for (int k = 0; k < 9; ++k) total[k] += t[part_of(k)] * load(from + k * L);
          }
        }
        store9(m + 9 * (j * F + c * L), total);
      }
    }
}

// P = Y M + M Y, or 2 Y M
template <typename T>
INLINE void multiplied(bool symmetric, const Vec<T> y[9], const Vec<T> m[9], Vec<T> n[9]) {
  Vec<T> a[9], b[9], p[9] = {};
  to_matrix<T>(y, a);
  to_matrix<T>(m, b);
  multiply<T, false, false>(a, b, p);
  if (symmetric) multiply<T, false, false>(b, a, p);
  else for (int k = 0; k < 9; ++k) p[k] *= T(2);
  from_matrix<T>(p, n);
}

// D of a tile from its Y and M
template <typename T>
INLINE void combine(const Network<T>& net, const Block<T>& b, Scratch<T>& s, index_t n, const T* y, const T* m, T* d) {
  constexpr index_t L = Lanes<T>::count;
  for (index_t f = 0; f < 9 * n * net.features; f += 9 * L) {
    Vec<T> a[9], c[9], p[9];
    load9(y + f, a);
    load9(m + f, c);
    multiplied<T>(net.symmetric, a, c, p);
    bound<T>(p);
    store9(s.p + f, p);
  }
  mix(n, net.features, s.p, b.d0, b.d1, b.d2, d);
}

// The next X of a tile, which may lie where x is
template <typename T>
INLINE void update(const Network<T>& net, index_t n, const T* x, const T* d, T* next) {
  constexpr index_t L = Lanes<T>::count;
  for (index_t f = 0; f < 9 * n * net.features; f += 9 * L) {
    Vec<T> a[9], c[9], full[9], square[9] = {}, cc[9];
    load9(x + f, a);
    load9(d + f, c);
    bound<T>(a);
    to_matrix<T>(c, full);
    multiply<T, false, false>(full, full, square);
    from_matrix<T>(square, cc);
    for (int k = 0; k < 9; ++k) a[k] += c[k] + cc[k];
    store9(next + f, a);
  }
}

// --- blocks, backward -----------------------------------------------------------------------------------------------

// gm, which may lie where m is, and the part of gy that does not come from neighbours, from g, the gradient by the next
// X. That stays: it is also that by the bounded X.
template <typename T>
INLINE void update_back(const Network<T>& net, const Block<T>& b, Scratch<T>& s, index_t n, const T* g, const T* y,
                        const T* m, const T* d, T* gy, T* gm) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  for (index_t f = 0; f < 9 * n * F; f += 9 * L) {
    Vec<T> a[9], c[9], gfull[9], dfull[9], found[9];
    load9(g + f, a);
    load9(d + f, c);
    to_matrix<T>(a, gfull);
    to_matrix<T>(c, dfull);
    for (int k = 0; k < 9; ++k) found[k] = gfull[k];
    multiply<T, false, true>(gfull, dfull, found);
    multiply<T, true, false>(dfull, gfull, found);
    from_matrix<T>(found, a);
    store9(s.p + f, a);
  }
  mix(n, F, s.p, b.d0t, b.d1t, b.d2t, s.q);
  for (index_t f = 0; f < 9 * n * F; f += 9 * L) {
    Vec<T> a[9], c[9], p[9], gp[9], gfull[9], yfull[9], mfull[9], by_y[9] = {}, by_m[9] = {};
    load9(y + f, a);
    load9(m + f, c);
    load9(s.q + f, gp);
    multiplied<T>(net.symmetric, a, c, p);
    bound_back<T>(p, gp);
    to_matrix<T>(gp, gfull);
    to_matrix<T>(a, yfull);
    to_matrix<T>(c, mfull);
    multiply<T, false, true>(gfull, mfull, by_y);
    multiply<T, true, false>(yfull, gfull, by_m);
    if (net.symmetric) {
      multiply<T, true, false>(mfull, gfull, by_y);
      multiply<T, false, true>(gfull, yfull, by_m);
    } else {
      for (int k = 0; k < 9; ++k) by_y[k] *= T(2), by_m[k] *= T(2);
    }
    from_matrix<T>(by_y, a);
    from_matrix<T>(by_m, c);
    store9(gy + f, a);
    store9(gm + f, c);
  }
}

// Adds to gy of a tile what comes from the gm of those that hear it, and to the slopes of its edges
template <typename T>
INLINE void gather_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, Scratch<T>& s, index_t n,
                        const T* all, const T* y, const T* gm, T* gy) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  s.sums.assign(L * s.places.size(), T(0));
  for (index_t j0 = 0; j0 < n; j0 += GROUP)
    for (index_t c = 0; c < F / L; ++c) {
      const T *table = b.table + c * table_size(net), *hearers = all + 9 * c * L;
      for (index_t j = j0; j < std::min(n, j0 + GROUP); ++j) {
        Vec<T> own[9], by[9], total[9];
        load9(y + 9 * (j * F + c * L), own);
        metric<T>(own, by);
        load9(gy + 9 * (j * F + c * L), total);
        if (net.own) {
          Vec<T> g[9], parts[3], sums[3] = {};
          load9(gm + 9 * (j * F + c * L), g);
          inner_parts<T>(by, g, parts);
          for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
            Vec<T> t[3], d[3];
            spline_values_and_slopes(table + s.places[e].row * 3 * L, s.places[e], t, d);
            T* slope = s.sums.data() + L * e;
            store(slope, load(slope) + d[0] * parts[0] + d[1] * parts[1] + d[2] * parts[2]);
            for (int k = 0; k < 3; ++k) sums[k] += t[k];
          }
          for (int k = 0; k < 9; ++k) total[k] += sums[part_of(k)] * g[k];
        } else {
          for (index_t e = s.begin[j]; e < s.begin[j + 1]; ++e) {
            const Place<T>& p = s.places[e];
            Vec<T> t[3], d[3], g[9], parts[3];
            spline_values_and_slopes(table + p.row * 3 * L, p, t, d);
            load9(hearers + 9 * p.neighbor * F, g);
            inner_parts<T>(by, g, parts);
            for (int k = 0; k < 9; ++k) total[k] += t[part_of(k)] * g[k];
            T* slope = s.sums.data() + L * e;
            store(slope, load(slope) + d[0] * parts[0] + d[1] * parts[1] + d[2] * parts[2]);
          }
        }
        store9(gy + 9 * (j * F + c * L), total);
      }
    }
  for (index_t e = 0; e < s.begin[n]; ++e) w.slopes[s.places[e].edge] += sum<T>(load(s.sums.data() + L * e));
}

// g, the gradient by the bounded X, plus what comes through Y; then through the bound
template <typename T>
INLINE void project_back(const Network<T>& net, const Block<T>& b, index_t n, const T* x, const T* gy, T* g) {
  constexpr index_t L = Lanes<T>::count;
  mix(n, net.features, gy, b.y0t, b.y1t, b.y2t, g, true);
  for (index_t f = 0; f < 9 * n * net.features; f += 9 * L) {
    Vec<T> a[9], c[9];
    load9(x + f, a);
    load9(g + f, c);
    bound_back<T>(a, c);
    store9(g + f, c);
  }
}

// --- readout --------------------------------------------------------------------------------------------------------

// Energies from the X in g, and in their place the gradient by them
template <typename T>
INLINE void read_out(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t i, index_t n, T* g) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  T *invariants = s.rest, *gi = invariants + 3 * TILE * F, *h = gi + 3 * TILE * F, *at = h + TILE * F;
  const auto next = [&]() { T* piece = at; at += TILE * F; return piece; };
  T* shared = next();
  Stack<T> value{{F, F, F, F}, net.v0, net.v0t, net.v0b, net.v1, net.v1t, net.v1b, net.v2, net.v2t, net.v2b, net.v3,
                 next(), next(), next(), shared};
  Stack<T> gate{{F, F, F, F}, net.g0, net.g0t, net.g0b, net.g1, net.g1t, net.g1b, net.g2, net.g2t, net.g2b, net.g3,
                next(), next(), next(), shared};
  T inverse[TILE];
  for (index_t j = 0; j < n; ++j) {
    for (index_t c = 0; c < F / L; ++c) {
      Vec<T> x[9], j9[9], by[3];
      load9(g + 9 * (j * F + c * L), x);
      metric<T>(x, j9);
      inner_parts<T>(j9, x, by);
      for (int k = 0; k < 3; ++k) store(invariants + (3 * j + k) * F + c * L, by[k]);
    }
    inverse[j] = normalise(invariants + 3 * j * F, 3 * F);
  }
  dense(n, 3 * F, F, invariants, net.h, h, net.hb);
  gated_readout(value, gate, T(net.v3b), T(net.g3b), n, h, w.energies + i, w.gradient ? h : nullptr);
  if (!w.gradient) return;
  dense(n, F, 3 * F, h, net.ht, gi);
  for (index_t j = 0; j < n; ++j) {
    normalise_back(gi + 3 * j * F, invariants + 3 * j * F, inverse[j], 3 * F);
    for (index_t c = 0; c < F / L; ++c) {
      Vec<T> x[9];
      load9(g + 9 * (j * F + c * L), x);
      for (int k = 0; k < 9; ++k) x[k] *= T(2) * load(gi + (3 * j + part_of(k)) * F + c * L);
      store9(g + 9 * (j * F + c * L), x);
    }
  }
}

// --- steps ----------------------------------------------------------------------------------------------------------

// One clone of each of these for a processor, wherever they are called from
#define FUNCTIONS(T)                                                                                                   \
  DISPATCH void place(const Network<T>& net, const Graph& graph, Scratch<T>& s, index_t i, index_t n) {                \
    place<T>(net, graph, s, i, n);                                                                                     \
  }                                                                                                                    \
  DISPATCH void embed(const Network<T>& net, const Graph& graph, Scratch<T>& s, index_t i, index_t n,                  \
                      const Embedding<T>& e, T* x) {                                                                   \
    embed<T>(net, graph, s, i, n, e, x);                                                                               \
  }                                                                                                                    \
  DISPATCH void embed_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t i, index_t n,               \
                           const Embedding<T>& e, const T* g) {                                                        \
    embed_back<T>(net, w, s, i, n, e, g);                                                                              \
  }                                                                                                                    \
  DISPATCH void project(const Network<T>& net, const Block<T>& b, Scratch<T>& s, index_t n, const T* x, T* y) {        \
    project<T>(net, b, s, n, x, y);                                                                                    \
  }                                                                                                                    \
  DISPATCH void gather(const Network<T>& net, const Block<T>& b, const Scratch<T>& s, index_t n, const T* all,         \
                       const T* y, T* m) {                                                                             \
    gather<T>(net, b, s, n, all, y, m);                                                                                \
  }                                                                                                                    \
  DISPATCH void combine(const Network<T>& net, const Block<T>& b, Scratch<T>& s, index_t n, const T* y, const T* m,    \
                        T* d) {                                                                                        \
    combine<T>(net, b, s, n, y, m, d);                                                                                 \
  }                                                                                                                    \
  DISPATCH void update(const Network<T>& net, index_t n, const T* x, const T* d, T* next) {                            \
    update<T>(net, n, x, d, next);                                                                                     \
  }                                                                                                                    \
  DISPATCH void update_back(const Network<T>& net, const Block<T>& b, Scratch<T>& s, index_t n, const T* g,            \
                            const T* y, const T* m, const T* d, T* gy, T* gm) {                                        \
    update_back<T>(net, b, s, n, g, y, m, d, gy, gm);                                                                  \
  }                                                                                                                    \
  DISPATCH void gather_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, Scratch<T>& s, index_t n,      \
                            const T* all, const T* y, const T* gm, T* gy) {                                            \
    gather_back<T>(net, w, b, s, n, all, y, gm, gy);                                                                   \
  }                                                                                                                    \
  DISPATCH void project_back(const Network<T>& net, const Block<T>& b, index_t n, const T* x, const T* gy, T* g) {     \
    project_back<T>(net, b, n, x, gy, g);                                                                              \
  }                                                                                                                    \
  DISPATCH void read_out(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t i, index_t n, T* g) {         \
    read_out<T>(net, w, s, i, n, g);                                                                                   \
  }
FUNCTIONS(float)
FUNCTIONS(double)

// A part of a step: what all atoms must be through before any goes on
enum Phase { EMBED, CONVOLVE, PROJECT, READ_OUT, BLOCK_BACK, EMBED_BACK };

template <typename T>
INLINE T* row(T* array, index_t i, index_t F) {
  return array + 9 * i * F;
}

// X of block k + 1 of a tile, or of the readout, from that of block k
template <typename T>
void convolve(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, index_t i, index_t n, T* m,
                     T* d, T* next) {
  const State<T>& state = w.blocks[k];
  const index_t F = net.features;
  gather(net, net.block[k], s, n, state.y, row(state.y, i, F), m);
  combine(net, net.block[k], s, n, row(state.y, i, F), m, d);
  update(net, n, row(state.x, i, F), d, next);
}

// Gradient by M of block k, in its place; that by Y is kept, or goes on to X at once
template <typename T>
void block_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, index_t i, index_t n,
                       const T* y, const T* m, const T* d) {
  const Block<T>& block = net.block[k];
  const index_t F = net.features;
  T *g = row(w.g, i, F), *gy = w.keep ? row(w.gy, i, F) : s.m;
  update_back(net, block, s, n, g, y, m, d, gy, row(w.blocks[k].m, i, F));
  if (!w.keep) mix(n, F, gy, block.y0t, block.y1t, block.y2t, g, true);
}

// From gm of block k, of all atoms, to g, the gradient by its X
template <typename T>
void listen_back(const Network<T>& net, const Work<T>& w, Scratch<T>& s, index_t k, index_t i, index_t n,
                        const T* x) {
  const index_t F = net.features;
  const State<T>& state = w.blocks[k];
  T* gy = w.keep ? row(w.gy, i, F) : s.m;
  if (!w.keep) std::fill(gy, gy + 9 * n * F, T(0));
  gather_back(net, w, net.block[k], s, n, state.m, row(state.y, i, F), row(state.m, i, F), gy);
  project_back(net, net.block[k], n, x, gy, row(w.g, i, F));
}

template <typename T>
void run_tile(const Network<T>& net, const Work<T>& w, Scratch<T>& s, Phase phase, index_t k, index_t i,
                     index_t n) {
  const index_t F = net.features;
  const State<T>& state = w.blocks[k];
  T *x = row(state.x, i, F), *y = row(state.y, i, F), *m = row(state.m, i, F);
  T* d = w.keep ? row(state.d, i, F) : s.d;
  const Embedding<T> e = w.keep ? w.embedding.at(i, F) : s.embedding;
  if (phase != PROJECT) place(net, w.graph, s, i, n);
  switch (phase) {
    case EMBED:
      embed(net, w.graph, s, i, n, e, x);
      project(net, net.block[0], s, n, x, y);
      break;
    case CONVOLVE: {
      const State<T>& next = w.blocks[k + 1];
      convolve(net, w, s, k, i, n, m, d, row(next.x, i, F));
      if (w.keep) project(net, net.block[k + 1], s, n, row(next.x, i, F), row(next.y, i, F));
      break;
    }
    case PROJECT: project(net, net.block[k], s, n, x, y); break;
    case READ_OUT:
      convolve(net, w, s, k, i, n, w.keep ? m : s.x, d, row(w.g, i, F));
      read_out(net, w, s, i, n, row(w.g, i, F));
      if (w.gradient) block_back(net, w, s, k, i, n, y, w.keep ? m : s.x, d);
      break;
    case BLOCK_BACK: {  // of block k + 1, and to the gm of block k
      if (w.keep) {
        listen_back(net, w, s, k + 1, i, n, row(w.blocks[k + 1].x, i, F));
        block_back(net, w, s, k, i, n, y, m, d);
        break;
      }
      project(net, net.block[k], s, n, x, s.y);
      combine(net, net.block[k], s, n, s.y, m, d);
      update(net, n, x, d, s.x);
      listen_back(net, w, s, k + 1, i, n, s.x);
      std::copy(s.y, s.y + 9 * n * F, y);
      block_back(net, w, s, k, i, n, y, m, d);
      break;
    }
    case EMBED_BACK:
      if (!w.keep) embed(net, w.graph, s, i, n, e, s.x);
      listen_back(net, w, s, 0, i, n, w.keep ? x : s.x);
      embed_back(net, w, s, i, n, e, row(w.g, i, F));
      break;
  }
}

template <typename T>
void run_phase(const Network<T>& net, const Work<T>& w, Phase phase, index_t k, index_t first, index_t last) {
  if (phase == EMBED)
    for (index_t e = w.graph.rows[first]; e < w.graph.rows[last]; ++e) w.slopes[e] = 0;
  Scratch<T> s(net.features);
  for (index_t i = first; i < last; i += TILE) run_tile(net, w, s, phase, k, i, std::min(TILE, last - i));
}

index_t workspace(const Network<float>& net, const Graph& graph) {
  Work<float> w{};
  return lay_out<float>(net, graph, nullptr, w);
}

template <typename T>
index_t steps(const Network<T>& net, bool derivative) {
  return derivative ? 2 * net.blocks + 1 : net.blocks + 1;
}

template <typename T>
index_t exchanged(const Network<T>& net) {
  return net.own ? 0 : 9 * net.features;
}

// EMBED, PROJECT 0 → Y_0; CONVOLVE k, PROJECT k + 1 → Y_k+1 …; CONVOLVE, READ_OUT, and back to the last M → gm; then block
// by block to the M before → gm; at last through block 0 and the embedding
template <typename T>
void step(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient, index_t s,
          Exchange& after) {
  Work<T> w{};
  lay_out(net, graph, buffer, w);
  w.energies = energies, w.gradient = gradient;
  const index_t last = net.blocks;
  const auto run = [&](Phase phase, index_t k) {
    share(graph.rows, graph.atoms, graph.threads, [&, phase, k](index_t a, index_t b) { run_phase(net, w, phase, k, a, b); });
  };
  const auto exchange = [&](T* rows) {
    if (net.own) return;
    after.direction = FORWARD, after.pieces = 1, after.width[0] = 9 * net.features, after.rows[0] = rows;
  };
  if (s == 0) {
    run(EMBED, 0);
    exchange(w.blocks[0].y);
  } else if (s < last) {
    run(CONVOLVE, s - 1);
    if (!w.keep) run(PROJECT, s);  // into the Y that others still read
    exchange(w.blocks[s].y);
  } else if (s == last) {
    run(READ_OUT, last - 1);
    exchange(w.blocks[last - 1].m);  // a domain without edges has no gradient, and takes part
  } else if (s < 2 * last) {
    run(BLOCK_BACK, 2 * last - s - 1);
    exchange(w.blocks[2 * last - s - 1].m);
  } else {
    run(EMBED_BACK, 0);
  }
}

ASECALC_RUN_STEPS

}  // namespace

ASECALC_KERNEL(tensornet)
ASECALC_EVALUATE(tensornet, float, f32)
ASECALC_EVALUATE(tensornet, double, f64)
ASECALC_LAYERS(tensornet)
ASECALC_STEP(tensornet, float, f32)
ASECALC_STEP(tensornet, double, f64)
