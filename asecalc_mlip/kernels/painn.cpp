// A trained PaiNN on the CPU, step by step or in one call: energies of all atoms and the gradient along every edge.
//
// What a pass needs of an edge is made where it is used, so an edge keeps nothing but its gradient. Filters see nothing
// but the distance. In float32 they are read from tables, whose error is below the rounding; in float64 they are sums of
// radial functions. Rows of edges are contiguous (sorted by centre) and hold both directions of every pair. That makes
// the backward pass a gather too: the edges that end in atom a are the edges of row a, turned round. So every sum is
// owned by one atom, threads need no locks, and the result does not depend on their number.
//
// Names as in models/painn.py. Per block: x = A2 silu(A1 q), convolution, then mixing (V, U) = C μ,
// (a, c, b) = M2 silu(M1 (q, |V|)), q += a + c ⟨V, U⟩, μ += b U. Before the first block q, so x, depends on the element
// alone and μ is zero; after the last one nobody reads μ, so it has no b.
#include "asecalc_layers.h"
#include "spline.h"

#include <type_traits>

namespace {

constexpr index_t TILE = 32;  // atoms that pass through the atom-wise networks together

template <typename T>
struct Block {  // weights as (in, out); those with a trailing t are the transposes, for the backward pass, b is a bias
  const T *filters;  // (F / L, nodes + 4, P, L) of splines, (F / L, K, P, L) without; L numbers fill a register
  const T *a1, *a1t, *a1b, *a2, *a2t, *a2b;  // not of the first block
  const T *c, *ct;
  const T *m1, *m1t, *m1b, *m2, *m2t, *m2b;
};

template <typename T>
struct Network {  // the other side is PaiNNWeights in models/painn.py
  index_t features, blocks, radial, basis, nodes;  // F, number of blocks, K = n_rbf + 1, 0 Gaussian or 1 Bessel
  index_t hidden;                                  // width of the readout, padded to whole registers
  double cutoff, bend;
  const T *embedding, *first, *r1, *r1t, *r1b, *r2;  // first: x of the first block by element, (elements, 2 F)
  double r2b;
  const Block<T>* block;
};

// Whether filters are sums of radial functions
template <typename T> constexpr bool EXACT = std::is_same<T, double>::value;

template <typename T>
struct State {       // what the backward pass needs of one block
  T *x, *mu, *h;     // (N + ghosts, 3 F) twice, (N, F); not of the first block
  T *vu, *h2, *o;    // (N, 3, 2 F), (N, F), (N, 2 F) of c and b
};

template <typename T>
struct Work {
  T *q[2], *gm;  // (N + ghosts, F) twice, features on the way up and gradients on the way down; (N + ghosts, 3 F)
  std::vector<State<T>> states;
  double *energies, *gradient;  // (N), (E, 3)
  bool derivative;
};

// --- edges ----------------------------------------------------------------------------------------------------------

template <typename T>
struct Row {  // the edges of an atom that are shorter than the cutoff
  std::vector<Place<T>> places;
  std::vector<T> values, slopes;  // in float64, K for each
  std::vector<T> sums;            // 4 registers for each: what becomes their gradient
  index_t count() const { return index_t(places.size()); }
};

template <typename T>
INLINE void radial_edge(const Network<T>& net, double d, T* values, T* slopes) {
  constexpr index_t L = Lanes<T>::count;
  const index_t R = net.radial - 1;
  const double pi = 3.14159265358979323846, angle = pi * d / net.cutoff;
  const double sine = std::sin(angle), cosine = std::cos(angle);
  const T envelope = T(0.5 * (cosine + 1.0)), bend = T(-0.5 * pi / net.cutoff * sine);
  if (net.basis == 0) {
    const T step = T(net.cutoff / double(R - 1)), width = T(-1) / (step * step), distance = T(d);
    for (index_t k0 = 0; k0 < R; k0 += L) {
      Vec<T> offset;
      for (index_t l = 0; l < L; ++l) offset[l] = distance - T(k0 + l) * step;
      Vec<T> argument = T(0.5) * width * offset * offset;
      argument = argument < T(-46) ? fill<T>(T(-46)) : argument;
      const Vec<T> value = exponential<T>(argument), slope = width * offset * value;
      for (index_t l = 0; l < L && k0 + l < R; ++l) {
        values[k0 + l] = value[l] * envelope;
        slopes[k0 + l] = slope[l] * envelope + value[l] * bend;
      }
    }
  } else {
    // sin and cos of kθ by their addition theorem, where 20 steps lose nothing that matters.
    double s = sine, c = cosine;
    for (index_t k = 0; k < R; ++k) {
      const double value = s / d, slope = (double(k + 1) * pi / net.cutoff * c - value) / d;
      values[k] = T(value) * envelope;
      slopes[k] = T(slope) * envelope + T(value) * bend;
      const double next = s * cosine + c * sine;
      c = c * cosine - s * sine;
      s = next;
    }
  }
  values[R] = envelope;
  slopes[R] = bend;
}

template <typename T>
INLINE void look_up(const Network<T>& net, const Graph& graph, index_t i, Row<T>& row) {
  row.places.clear();
  find_places({net.cutoff, net.bend, net.nodes}, graph.vectors, graph.neighbors, graph.rows[i], graph.rows[i + 1],
              row.places);
  if constexpr (EXACT<T>) {
    const index_t K = net.radial;
    row.values.resize(K * row.count()), row.slopes.resize(K * row.count());
    for (index_t e = 0; e < row.count(); ++e)
      radial_edge(net, 1.0 / row.places[e].over, row.values.data() + e * K, row.slopes.data() + e * K);
  }
}

// w_p = Σ_k c_k row_k, and s with the slopes, of B edges and C registers of features
template <typename T, int P, int B, int C, bool SLOPES>
INLINE void filters(const Network<T>& net, const T* numbers, index_t stride, const Row<T>& row, index_t e,
                    Vec<T> (&w)[B][C][P], Vec<T> (&s)[B][C][P]) {
  constexpr index_t L = Lanes<T>::count;
  for (int b = 0; b < B; ++b)
    for (int c = 0; c < C; ++c)
      for (int p = 0; p < P; ++p) w[b][c][p] = s[b][c][p] = Vec<T>{};
  if constexpr (EXACT<T>) {
    const index_t K = net.radial;
    const T *values = row.values.data() + e * K, *slopes = row.slopes.data() + e * K;
    for (index_t k = 0; k < K; ++k)
      for (int c = 0; c < C; ++c)
        for (int p = 0; p < P; ++p) {
          const Vec<T> number = load(numbers + c * stride + (k * P + p) * L);
          for (int b = 0; b < B; ++b) {
            w[b][c][p] += values[b * K + k] * number;
            if (SLOPES) s[b][c][p] += slopes[b * K + k] * number;
          }
        }
  } else {
    for (int b = 0; b < B; ++b) {
      const Place<T>& place = row.places[e + b];
      const T* begin = numbers + place.row * P * L;
#pragma GCC unroll 6
      for (int k = 0; k < TERMS; ++k)
        for (int c = 0; c < C; ++c)
          for (int p = 0; p < P; ++p) {
            const Vec<T> number = load(begin + c * stride + (k * P + p) * L);
            w[b][c][p] += place.value[k] * number;
            if (SLOPES) s[b][c][p] += place.slope[k] * number;
          }
    }
  }
}

// From one register of features of a block's filters to the next
template <typename T>
INLINE index_t stride_of(const Network<T>& net, index_t parts) {
  return (EXACT<T> ? net.radial : Spline{net.cutoff, net.bend, net.nodes}.rows()) * parts * Lanes<T>::count;
}

// --- convolution ----------------------------------------------------------------------------------------------------

template <typename T, bool MU, int B, int C>
INLINE void convolve_edges(const Network<T>& net, const Graph& graph, const T* numbers, const State<T>& s,
                           const Row<T>& row, index_t e, index_t f, Vec<T> (&sum)[C][4]) {
  constexpr index_t P = MU ? 3 : 2, L = Lanes<T>::count;
  const index_t F = net.features;
  Vec<T> w[B][C][P], none[B][C][P];
  filters<T, P, B, C, false>(net, numbers, stride_of(net, P), row, e, w, none);
  for (int b = 0; b < B; ++b) {
    const index_t j = row.places[e + b].neighbor;
    const T *x = MU ? s.x + 3 * j * F : net.first + 2 * graph.numbers[j] * F, *u = row.places[e + b].u;
    for (int c = 0; c < C; ++c) {
      const index_t at = f + c * L;
      const Vec<T> t = w[b][c][1] * load(x + F + at);
      sum[c][0] += w[b][c][0] * load(x + at);
      for (int a = 0; a < 3; ++a) sum[c][a + 1] += t * u[a];
      if constexpr (MU) {
        const T* mu = s.mu + 3 * j * F + at;
        const Vec<T> r = w[b][c][2] * load(x + 2 * F + at);
        for (int a = 0; a < 3; ++a) sum[c][a + 1] += r * load(mu + a * F);
      }
    }
  }
}

template <typename T, bool MU, int C>
INLINE void convolve_features(const Network<T>& net, const Graph& graph, const T* weights, const State<T>& s, index_t i,
                              const Row<T>& row, index_t f, T* q, T* m) {
  constexpr index_t P = MU ? 3 : 2, L = Lanes<T>::count;
  constexpr int B = EXACT<T> ? 4 : 1;  // a row of weights serves as many edges
  const index_t F = net.features;
  const T* numbers = weights + f / L * stride_of(net, P);
  Vec<T> sum[C][4] = {};
  for (int c = 0; c < C; ++c) {
    sum[c][0] = load((MU ? q : net.embedding + graph.numbers[i] * F) + f + c * L);
    if (MU)
      for (int a = 0; a < 3; ++a) sum[c][a + 1] = load(s.mu + (3 * i + a) * F + f + c * L);
  }
  index_t e = 0;
  for (; e + B <= row.count(); e += B) convolve_edges<T, MU, B, C>(net, graph, numbers, s, row, e, f, sum);
  if constexpr (B > 1)
    for (; e < row.count(); ++e) convolve_edges<T, MU, 1, C>(net, graph, numbers, s, row, e, f, sum);
  for (int c = 0; c < C; ++c) {
    store(q + f + c * L, sum[c][0]);
    for (int a = 0; a < 3; ++a) store(m + a * F + f + c * L, sum[c][a + 1]);
  }
}

// q += Σ …, and m = μ + Σ … of one atom
template <typename T, bool MU>
INLINE void convolve(const Network<T>& net, const Graph& graph, const T* weights, const State<T>& s, index_t i,
                     Row<T>& row, T* q, T* m) {
  constexpr index_t L = Lanes<T>::count;
  look_up(net, graph, i, row);
  index_t f = 0;
  if constexpr (!EXACT<T>)
    for (; f + 2 * L <= net.features; f += 2 * L) convolve_features<T, MU, 2>(net, graph, weights, s, i, row, f, q, m);
  for (; f < net.features; f += L) convolve_features<T, MU, 1>(net, graph, weights, s, i, row, f, q, m);
}

template <typename T, int B>
INLINE void convolve_back_edges(const Network<T>& net, const T* numbers, Row<T>& row, index_t e, index_t f, const T* gq,
                                const T* gm, const Vec<T> (&x)[3], const Vec<T> (&mu)[3], Vec<T> (&gx)[3],
                                Vec<T> (&gmu)[3]) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  Vec<T> w[B][1][3], s[B][1][3];
  filters<T, 3, B, 1, true>(net, numbers, stride_of(net, 3), row, e, w, s);
  for (int b = 0; b < B; ++b) {
    const index_t i = row.places[e + b].neighbor;  // the centre of the edge turned round
    const T *u = row.places[e + b].u, *g = gm + 3 * i * F + f;
    T* sums = row.sums.data() + 4 * L * (e + b);
    const Vec<T> q = load(gq + i * F + f), ax = load(g), ay = load(g + F), az = load(g + 2 * F);
    const Vec<T> ug = -(u[0] * ax + u[1] * ay + u[2] * az), mg = mu[0] * ax + mu[1] * ay + mu[2] * az;
    const Vec<T>(&wb)[3] = w[b][0], (&sb)[3] = s[b][0];
    const Vec<T> t = wb[1] * x[1], r = wb[2] * x[2];
    gx[0] += wb[0] * q, gx[1] += wb[1] * ug, gx[2] += wb[2] * mg;
    gmu[0] += r * ax, gmu[1] += r * ay, gmu[2] += r * az;
    const Vec<T> slope = sb[0] * (x[0] * q) + sb[1] * (x[1] * ug) + sb[2] * (x[2] * mg);
    store(sums, load(sums) + slope);
    store(sums + L, load(sums + L) - t * ax);
    store(sums + 2 * L, load(sums + 2 * L) - t * ay);
    store(sums + 3 * L, load(sums + 3 * L) - t * az);
  }
}

// Gradient of the edges of a row from their sums: by the distance and by the direction
template <typename T, bool ADD>
INLINE void edge_gradient(const Row<T>& row, double* gradient) {
  constexpr index_t L = Lanes<T>::count;
  for (index_t e = 0; e < row.count(); ++e) {
    const Place<T>& place = row.places[e];
    const T *sums = row.sums.data() + 4 * L * e, *u = place.u;
    double g[4];
    for (int k = 0; k < 4; ++k) g[k] = double(sum<T>(load(sums + k * L)));
    const double along = g[1] * u[0] + g[2] * u[1] + g[3] * u[2], radial = g[0] - along * place.over;
    double* out = gradient + 3 * place.edge;
    for (int a = 0; a < 3; ++a) {
      const double value = radial * u[a] + g[a + 1] * place.over;
      out[a] = ADD ? out[a] + value : value;
    }
  }
}

template <typename T>
INLINE void finish_row(const Graph& graph, const Row<T>& row, bool add, index_t i, double* gradient) {
  if (add) return edge_gradient<T, true>(row, gradient);
  if (row.count() < graph.rows[i + 1] - graph.rows[i])
    for (index_t k = 3 * graph.rows[i]; k < 3 * graph.rows[i + 1]; ++k) gradient[k] = 0.0;
  edge_gradient<T, false>(row, gradient);
}

template <typename T>
INLINE void clear_sums(Row<T>& row) {
  row.sums.assign(4 * Lanes<T>::count * row.count(), T(0));
}

// gx (3, F) of one atom and its gμ, which takes the place of μ, from those that neighbours pass back
template <typename T>
INLINE void convolve_back(const Network<T>& net, const Graph& graph, const T* weights, const State<T>& s, index_t i,
                          Row<T>& row, const T* gq, const T* gm, T* out) {
  constexpr index_t L = Lanes<T>::count;
  constexpr int B = EXACT<T> ? 2 : 1;
  const index_t F = net.features;
  look_up(net, graph, i, row);
  clear_sums(row);
  for (index_t f = 0; f < F; f += L) {
    const T *numbers = weights + f / L * stride_of(net, 3), *own = s.x + 3 * i * F + f;
    T* place = s.mu + 3 * i * F + f;
    const Vec<T> x[3] = {load(own), load(own + F), load(own + 2 * F)};
    const Vec<T> mu[3] = {load(place), load(place + F), load(place + 2 * F)};
    Vec<T> gx[3] = {}, gmu[3];
    for (int a = 0; a < 3; ++a) gmu[a] = load(gm + (3 * i + a) * F + f);
    index_t e = 0;
    for (; e + B <= row.count(); e += B)
      convolve_back_edges<T, B>(net, numbers, row, e, f, gq, gm, x, mu, gx, gmu);
    if constexpr (B > 1)
      for (; e < row.count(); ++e) convolve_back_edges<T, 1>(net, numbers, row, e, f, gq, gm, x, mu, gx, gmu);
    for (int a = 0; a < 3; ++a) store(out + a * F + f, gx[a]), store(place + a * F, gmu[a]);
  }
}

// The edges of the first block, whose senders' features are constants, are differentiated where they end.
template <typename T>
INLINE void first_back(const Network<T>& net, const Graph& graph, index_t i, Row<T>& row, const T* gq, const T* gm) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  look_up(net, graph, i, row);
  clear_sums(row);
  for (index_t f = 0; f < F; f += L) {
    const T *numbers = net.block[0].filters + f / L * stride_of(net, 2), *g = gm + 3 * i * F + f;
    const Vec<T> q = load(gq + i * F + f), ax = load(g), ay = load(g + F), az = load(g + 2 * F);
    for (index_t e = 0; e < row.count(); ++e) {
      const T *x = net.first + 2 * graph.numbers[row.places[e].neighbor] * F + f, *u = row.places[e].u;
      T* sums = row.sums.data() + 4 * L * e;
      Vec<T> w[1][1][2], s[1][1][2];
      filters<T, 2, 1, 1, true>(net, numbers, stride_of(net, 2), row, e, w, s);
      const Vec<T> x1 = load(x), x2 = load(x + F), t = w[0][0][1] * x2;
      const Vec<T> slope = s[0][0][0] * (x1 * q) + s[0][0][1] * (x2 * (u[0] * ax + u[1] * ay + u[2] * az));
      store(sums, load(sums) + slope);
      store(sums + L, load(sums + L) + t * ax);
      store(sums + 2 * L, load(sums + 2 * L) + t * ay);
      store(sums + 3 * L, load(sums + 3 * L) + t * az);
    }
  }
}

// --- atom-wise networks, for the n atoms from i on ------------------------------------------------------------------

template <typename T>
struct Tile {  // what lives no longer than the atoms of a tile
  std::vector<T> m, a, b, c;
  Tile(index_t F, index_t hidden)
      : m(TILE * 6 * F), a(TILE * 3 * F), b(TILE * (F > hidden ? F : hidden)), c(TILE * 2 * F) {}
};

// x = A2 silu(A1 q)
template <typename T>
INLINE void messages(const Network<T>& net, const Block<T>& b, const State<T>& s, const T* q, index_t i, index_t n,
                     Tile<T>& tile) {
  const index_t F = net.features;
  T *h = s.h + i * F, *activated = tile.b.data();
  product(n, F, F, q + i * F, F, b.a1, F, h, F, b.a1b);
  for (index_t k = 0; k < n * F; k += Lanes<T>::count) store(activated + k, silu<T>(load(h + k)));
  product(n, 3 * F, F, activated, F, b.a2, 3 * F, s.x + 3 * i * F, 3 * F, b.a2b);
}

// gq += A1ᵀ (silu'(h) · A2ᵀ gx), where gx is in the tile
template <typename T>
INLINE void messages_back(const Network<T>& net, const Block<T>& b, const State<T>& s, T* gq, index_t i, index_t n,
                          Tile<T>& tile) {
  const index_t F = net.features;
  T* g = tile.b.data();
  product(n, F, 3 * F, tile.m.data(), 3 * F, b.a2t, F, g, F);
  for (index_t k = 0; k < n * F; k += Lanes<T>::count) store(g + k, load(g + k) * silu_slope<T>(load(s.h + i * F + k)));
  product(n, F, F, g, F, b.a1t, F, gq + i * F, F, nullptr, true);
}

template <typename T>
INLINE Vec<T> length(Vec<T> x, Vec<T> y, Vec<T> z) {
  Vec<T> norm = x * x + y * y + z * z + T(1e-8);
  for (index_t l = 0; l < Lanes<T>::count; ++l) norm[l] = std::sqrt(norm[l]);
  return norm;
}

// q and μ after the mixing from q and, in the tile, m; without `next_mu` q alone
template <typename T>
INLINE void mix(const Network<T>& net, const Block<T>& b, const State<T>& s, T* q, T* next_mu, index_t i, index_t n,
                Tile<T>& tile) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, R = next_mu ? 3 : 2;
  T *context = tile.c.data(), *activated = tile.b.data(), *a = tile.a.data(), *h2 = s.h2 + i * F;
  product(3 * n, 2 * F, F, tile.m.data(), F, b.c, 2 * F, s.vu + 6 * i * F, 2 * F);
  for (index_t j = 0; j < n; ++j) {
    const T* v = s.vu + 6 * (i + j) * F;
    for (index_t f = 0; f < F; f += L) {
      store(context + 2 * j * F + f, load(q + (i + j) * F + f));
      store(context + (2 * j + 1) * F + f, length<T>(load(v + f), load(v + 2 * F + f), load(v + 4 * F + f)));
    }
  }
  product(n, F, 2 * F, context, 2 * F, b.m1, F, h2, F, b.m1b);
  for (index_t k = 0; k < n * F; k += L) store(activated + k, silu<T>(load(h2 + k)));
  product(n, F, F, activated, F, b.m2, R * F, a, F, b.m2b);
  product(n, (R - 1) * F, F, activated, F, b.m2 + F, R * F, s.o + 2 * i * F, 2 * F, b.m2b + F);
  for (index_t j = 0; j < n; ++j) {
    const T *v = s.vu + 6 * (i + j) * F, *o = s.o + 2 * (i + j) * F, *m = tile.m.data() + 3 * j * F;
    for (index_t f = 0; f < F; f += L) {
      Vec<T> dot = {};
      for (int k = 0; k < 3; ++k) dot += load(v + 2 * k * F + f) * load(v + (2 * k + 1) * F + f);
      T* own = q + (i + j) * F + f;
      store(own, load(own) + load(a + j * F + f) + load(o + f) * dot);
      if (next_mu)
        for (int k = 0; k < 3; ++k)
          store(next_mu + (3 * (i + j) + k) * F + f,
                load(m + k * F + f) + load(o + F + f) * load(v + (2 * k + 1) * F + f));
    }
  }
}

// gq and gm before the mixing from those after it; gm after the last block is zero
template <typename T>
INLINE void mix_back(const Network<T>& net, const Block<T>& b, const State<T>& s, bool last_block, T* q, T* m, index_t i,
                     index_t n, Tile<T>& tile) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, R = last_block ? 2 : 3;
  T *go = tile.a.data(), *gh = tile.b.data(), *gc = tile.c.data(), *gvu = tile.m.data();
  for (index_t j = 0; j < n; ++j) {
    const T *v = s.vu + 6 * (i + j) * F, *gq = q + (i + j) * F, *gm = m + 3 * (i + j) * F;
    for (index_t f = 0; f < F; f += L) {
      Vec<T> dot = {}, gb = {};
      for (int k = 0; k < 3; ++k) {
        const Vec<T> u = load(v + (2 * k + 1) * F + f);
        dot += load(v + 2 * k * F + f) * u;
        if (!last_block) gb += load(gm + k * F + f) * u;
      }
      store(go + R * j * F + f, load(gq + f));
      store(go + (R * j + 1) * F + f, load(gq + f) * dot);
      if (!last_block) store(go + (R * j + 2) * F + f, gb);
    }
  }
  product(n, F, R * F, go, R * F, b.m2t, F, gh, F);
  for (index_t k = 0; k < n * F; k += L) store(gh + k, load(gh + k) * silu_slope<T>(load(s.h2 + i * F + k)));
  product(n, 2 * F, F, gh, F, b.m1t, 2 * F, gc, 2 * F);
  for (index_t j = 0; j < n; ++j) {
    const T *v = s.vu + 6 * (i + j) * F, *o = s.o + 2 * (i + j) * F, *gm = m + 3 * (i + j) * F;
    T* gq = q + (i + j) * F;
    for (index_t f = 0; f < F; f += L) {
      const Vec<T> gdot = load(gq + f) * load(o + f);
      const Vec<T> norm = length<T>(load(v + f), load(v + 2 * F + f), load(v + 4 * F + f));
      const Vec<T> gnorm = load(gc + (2 * j + 1) * F + f) / norm;
      for (int k = 0; k < 3; ++k) {
        const Vec<T> va = load(v + 2 * k * F + f), ua = load(v + (2 * k + 1) * F + f);
        Vec<T> gu = gdot * va;
        if (!last_block) gu += load(o + F + f) * load(gm + k * F + f);
        store(gvu + (6 * j + 2 * k) * F + f, gnorm * va + gdot * ua);
        store(gvu + (6 * j + 2 * k + 1) * F + f, gu);
      }
      store(gq + f, load(gq + f) + load(gc + 2 * j * F + f));
    }
  }
  product(3 * n, F, 2 * F, gvu, 2 * F, b.ct, F, m + 3 * i * F, F, nullptr, !last_block);
}

// Energy of each atom, and the start of the backward pass: gq takes the place of q
template <typename T>
INLINE void read_out(const Network<T>& net, T* q, double* energies, index_t i, index_t n, Tile<T>& tile) {
  const index_t F = net.features, H = net.hidden;
  T* h = tile.b.data();
  product(n, H, F, q + i * F, F, net.r1, H, h, H, net.r1b);
  for (index_t j = 0; j < n; ++j)
    energies[i + j] = net.r2b + double(silu_row(h + j * H, net.r2, H / Lanes<T>::count));
  product(n, F, H, h, H, net.r1t, F, q + i * F, F);
}

// --- steps ----------------------------------------------------------------------------------------------------------

// Block k for the atoms of a range, up to what the next one gathers
template <typename T>
INLINE void forward(const Network<T>& net, const Graph& graph, const Work<T>& w, index_t k, index_t first,
                    index_t last) {
  const index_t F = net.features;
  const bool final_block = k + 1 == net.blocks;
  const Block<T>& b = net.block[k];
  const State<T>& s = w.states[k];
  Tile<T> tile(F, net.hidden);
  Row<T> row;
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      T *q = w.q[0] + (i + j) * F, *m = tile.m.data() + 3 * j * F;
      if (k) convolve<T, true>(net, graph, b.filters, s, i + j, row, q, m);
      else convolve<T, false>(net, graph, b.filters, s, i + j, row, q, m);
    }
    mix(net, b, s, w.q[0], final_block ? nullptr : w.states[k + 1].mu, i, n, tile);
    if (!final_block) {
      messages(net, net.block[k + 1], w.states[k + 1], w.q[0], i, n, tile);
      continue;
    }
    read_out(net, w.q[0], w.energies, i, n, tile);
    if (w.derivative) mix_back(net, b, s, true, w.q[0], w.gm, i, n, tile);
  }
}

// Where the gradients lie that the edges of block k gather, and those that come of it
template <typename T>
struct Passed {
  T *gq, *gm, *next_gq, *next_gm;
  Passed(const Work<T>& w, index_t k) {
    const index_t blocks = index_t(w.states.size()), parity = (blocks - 1 - k) % 2;
    gq = w.q[parity], next_gq = w.q[1 - parity];
    gm = k + 1 == blocks ? w.gm : w.states[k + 1].mu, next_gm = w.states[k].mu;
  }
};

template <typename T>
INLINE void backward(const Network<T>& net, const Graph& graph, const Work<T>& w, index_t k, index_t first,
                     index_t last) {
  const index_t F = net.features;
  const State<T>& s = w.states[k];
  const Passed<T> g(w, k);
  const bool add = k + 1 < net.blocks;
  Row<T> row;
  if (k == 0) {
    for (index_t i = first; i < last; ++i) {
      first_back(net, graph, i, row, g.gq, g.gm);
      finish_row(graph, row, add, i, w.gradient);
    }
    return;
  }
  Tile<T> tile(F, net.hidden);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = i; j < i + n; ++j) {
      convolve_back(net, graph, net.block[k].filters, s, j, row, g.gq, g.gm, tile.m.data() + 3 * (j - i) * F);
      finish_row(graph, row, add, j, w.gradient);
    }
    std::memcpy(g.next_gq + i * F, g.gq + i * F, n * F * sizeof(T));
    messages_back(net, net.block[k], s, g.next_gq, i, n, tile);
    mix_back(net, net.block[k - 1], w.states[k - 1], false, g.next_gq, g.next_gm, i, n, tile);
  }
}

template <typename T>
INLINE void run_step(const Network<T>& net, const Graph& graph, const Work<T>& w, index_t s, index_t first,
                     index_t last) {
  if (s < net.blocks) forward(net, graph, w, s, first, last);
  else backward(net, graph, w, 2 * net.blocks - 1 - s, first, last);
}

DISPATCH void step_of(const Network<float>& net, const Graph& graph, const Work<float>& w, index_t s, index_t first,
                      index_t last) {
  run_step<float>(net, graph, w, s, first, last);
}
DISPATCH void step_of(const Network<double>& net, const Graph& graph, const Work<double>& w, index_t s, index_t first,
                      index_t last) {
  run_step<double>(net, graph, w, s, first, last);
}

template <typename T>
void lay_out(Arena<T>& arena, Work<T>& w, const Network<T>& net, const Graph& graph) {
  const index_t F = net.features, N = graph.atoms, all = N + graph.ghosts;
  w.states.assign(net.blocks, State<T>{});
  for (T*& q : w.q) q = arena.take(all * F);
  w.gm = arena.take(3 * all * F);
  for (index_t k = 0; k < net.blocks; ++k) {
    State<T>& s = w.states[k];
    s.vu = arena.take(6 * N * F);
    s.h2 = arena.take(N * F);
    s.o = arena.take(2 * N * F);
    if (k == 0) continue;
    s.x = arena.take(3 * all * F);
    s.mu = arena.take(3 * all * F);
    s.h = arena.take(N * F);
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
  return net.blocks > 1 ? 6 * net.features : 0;
}

template <typename T>
void say(Exchange& after, T* one, index_t width, T* other, index_t other_width) {
  after.direction = FORWARD, after.pieces = 2;
  after.rows[0] = one, after.width[0] = width;
  after.rows[1] = other, after.width[1] = other_width;
}

template <typename T>
void step(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient, index_t s,
          Exchange& after) {
  const index_t F = net.features;
  Work<T> w{};
  // A domain without edges may have no array for their gradient, and takes part in all exchanges.
  w.energies = energies, w.gradient = gradient, w.derivative = gradient || graph.edges == 0;
  Arena<T> arena{buffer};
  lay_out(arena, w, net, graph);
  share(graph.rows, graph.atoms, graph.threads,
        [&](index_t first, index_t last) { step_of(net, graph, w, s, first, last); });
  // The block that gathers next, on the way up or down; the first one reads no features of others.
  const index_t up = s + 1, down = 2 * net.blocks - 2 - s;
  if (up < net.blocks) {
    say(after, w.states[up].x, 3 * F, w.states[up].mu, 3 * F);
  } else if (w.derivative && down > 0) {
    const Passed<T> g(w, down);
    say(after, g.gq, F, g.gm, 3 * F);
  }
}

ASECALC_RUN_STEPS

}  // namespace

ASECALC_KERNEL(painn)
ASECALC_EVALUATE(painn, float, f32)
ASECALC_EVALUATE(painn, double, f64)
ASECALC_LAYERS(painn)
ASECALC_STEP(painn, float, f32)
ASECALC_STEP(painn, double, f64)
