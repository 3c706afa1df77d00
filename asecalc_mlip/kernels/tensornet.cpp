// A trained TensorNet on the CPU in one call: energies of all atoms and the gradient along every edge.
//
// Filters see nothing but the distance, so they are read from tables of values, slopes and curvatures, whose quintic
// Hermite polynomials between nodes give the forces too. What a pass needs of an edge is made where it is used; an edge
// keeps one number, its slope. Directions enter once, in the embedding. As in painn.cpp the edges that end in atom a are
// the edges of row a turned round, so every sum is owned by one atom.
//
// Names as in models/tensornet.py. A 3 × 3 matrix is nine numbers, one of I, three of A, five of S (xx, yy, xy, xz, yz),
// and each part lies in an array of its own: (N, F), (N, 3, F), (N, 5, F). Gradients are matrices too, G = ∂E/∂X, kept
// in the same way, so that a change of X changes E by ⟨G, ΔX⟩ = Σ G_xy ΔX_xy.
#include "lanes.h"

namespace {

constexpr index_t TILE = 16;  // atoms that pass through the atom-wise networks together

template <typename T>
struct Block {  // weights as (in, out); those with a trailing t are the transposes, for the backward pass
  const T* table;                                // (nodes, 3, 3 F): derivatives times powers of the step
  const T *y0, *y0t, *y1, *y1t, *y2, *y2t;       // mixes of X for the messages
  const T *d0, *d0t, *d1, *d1t, *d2, *d2t;       // mixes of the product
};

template <typename T>
struct Network {  // the other side is TensorNetWeights in models/tensornet.py
  index_t features, blocks, nodes, own, symmetric;
  double cutoff;
  const T *table, *of_neighbor, *of_center;      // as that of a block; (elements, F) twice
  const T *s0, *s0t, *s0b, *s1, *s1t, *s1b;      // scales, the norm before them taken in
  const T *m0, *m0t, *m1, *m1t, *m2, *m2t;       // mixes of the embedding
  const T *h, *ht, *hb;                          // from 3 F to F, the norm before it taken in
  const T *v0, *v0t, *v0b, *v1, *v1t, *v1b, *v2, *v2t, *v2b, *v3;
  const T *g0, *g0t, *g0b, *g1, *g1t, *g1b, *g2, *g2t, *g2b, *g3;
  double v3b, g3b;
  const Block<T>* block;
};

// --- matrices -------------------------------------------------------------------------------------------------------

template <typename T>
struct Tensor {
  T *i, *a, *s;
  Tensor() = default;
  Tensor(T* base, index_t count) : i(base), a(base ? base + count : base), s(base ? base + 4 * count : base) {}
  Tensor at(index_t atom, index_t F) const {
    Tensor t;
    t.i = i + atom * F, t.a = a + 3 * atom * F, t.s = s + 5 * atom * F;
    return t;
  }
};

template <typename T>
INLINE void load9(const Tensor<T>& t, index_t F, index_t f, Vec<T> n[9]) {
  n[0] = load(t.i + f);
  for (int k = 0; k < 3; ++k) n[1 + k] = load(t.a + k * F + f);
  for (int k = 0; k < 5; ++k) n[4 + k] = load(t.s + k * F + f);
}

template <typename T>
INLINE void store9(const Tensor<T>& t, index_t F, index_t f, const Vec<T> n[9]) {
  store(t.i + f, n[0]);
  for (int k = 0; k < 3; ++k) store(t.a + k * F + f, n[1 + k]);
  for (int k = 0; k < 5; ++k) store(t.s + k * F + f, n[4 + k]);
}

template <typename T>
INLINE void to_matrix(const Vec<T> n[9], Vec<T> m[9]) {
  m[0] = n[0] + n[4], m[1] = n[6] - n[3], m[2] = n[7] + n[2];
  m[3] = n[6] + n[3], m[4] = n[0] + n[5], m[5] = n[8] - n[1];
  m[6] = n[7] - n[2], m[7] = n[8] + n[1], m[8] = n[0] - n[4] - n[5];
}

template <typename T>
INLINE void from_matrix(const Vec<T> m[9], Vec<T> n[9]) {
  const T half = T(0.5);
  n[0] = (m[0] + m[4] + m[8]) * T(1.0 / 3.0);
  n[1] = half * (m[7] - m[5]), n[2] = half * (m[2] - m[6]), n[3] = half * (m[3] - m[1]);
  n[4] = m[0] - n[0], n[5] = m[4] - n[0];
  n[6] = half * (m[1] + m[3]), n[7] = half * (m[2] + m[6]), n[8] = half * (m[5] + m[7]);
}

// c += a b, with either of them turned over
template <typename T, bool TA, bool TB>
INLINE void multiply(const Vec<T> a[9], const Vec<T> b[9], Vec<T> c[9]) {
  for (int x = 0; x < 3; ++x)
    for (int y = 0; y < 3; ++y)
      for (int k = 0; k < 3; ++k) c[3 * x + y] += a[TA ? 3 * k + x : 3 * x + k] * b[TB ? 3 * y + k : 3 * k + y];
}

template <typename T> INLINE Vec<T> inner_i(const Vec<T> a[9], const Vec<T> b[9]) { return T(3) * a[0] * b[0]; }
template <typename T> INLINE Vec<T> inner_a(const Vec<T> a[9], const Vec<T> b[9]) {
  return T(2) * (a[1] * b[1] + a[2] * b[2] + a[3] * b[3]);
}
template <typename T> INLINE Vec<T> inner_s(const Vec<T> a[9], const Vec<T> b[9]) {
  return a[4] * b[4] + a[5] * b[5] + (a[4] + a[5]) * (b[4] + b[5]) + T(2) * (a[6] * b[6] + a[7] * b[7] + a[8] * b[8]);
}
template <typename T> INLINE Vec<T> inner(const Vec<T> a[9], const Vec<T> b[9]) {
  return inner_i<T>(a, b) + inner_a<T>(a, b) + inner_s<T>(a, b);
}

// The channels of each part of n atoms, mixed
template <typename T>
INLINE void mix(index_t n, index_t F, const Tensor<T>& in, const T* w0, const T* w1, const T* w2, const Tensor<T>& out,
                bool add = false) {
  product(n, F, F, in.i, F, w0, F, out.i, F, nullptr, add);
  product(3 * n, F, F, in.a, F, w1, F, out.a, F, nullptr, add);
  product(5 * n, F, F, in.s, F, w2, F, out.s, F, nullptr, add);
}

// --- what the passes share ------------------------------------------------------------------------------------------

template <typename T>
struct State {  // what the backward pass needs of one block
  Tensor<T> x, y, m, d;
  T* sums;  // (N, 3, F), of filters, for own-feature messages
};

template <typename T>
struct Work {
  index_t atoms, edges;
  const index_t *rows, *neighbors, *numbers;
  const double* vectors;
  Tensor<T> u, v, gx, gy, gm;
  T *normed, *h1, *h2, *inverse, *gd;  // (N, F), (N, 2 F), (N, 3 F), (N), (E)
  double *energies, *gradient;         // (N), (E, 3)
};

constexpr int TERMS = 6;  // numbers that a table holds at the two ends of an interval

// A place in the tables: where the interval begins, and the weights of its numbers for the value and its derivative
template <typename T>
struct Place {
  index_t start;
  T value[TERMS], slope[TERMS], u[3];
  double distance;
};

template <typename T>
INLINE void hermite(double t, double step, T* weights, T* slopes) {
  double value[TERMS], slope[TERMS];
  const double c = t * t * t;
  value[0] = 1 + c * (-10 + t * (15 - 6 * t)), value[3] = c * (10 - t * (15 - 6 * t));
  value[1] = t + c * (-6 + t * (8 - 3 * t)), value[4] = c * (-4 + t * (7 - 3 * t));
  value[2] = 0.5 * t * t + c * (-1.5 + t * (1.5 - 0.5 * t)), value[5] = c * (0.5 - t * (1 - 0.5 * t));
  const double q = t * t;
  slope[0] = q * (-30 + t * (60 - 30 * t)) / step, slope[3] = -slope[0];
  slope[1] = (1 + q * (-18 + t * (32 - 15 * t))) / step, slope[4] = q * (-12 + t * (28 - 15 * t)) / step;
  slope[2] = (t + q * (-4.5 + t * (6 - 2.5 * t))) / step, slope[5] = q * (1.5 - t * (4 - 2.5 * t)) / step;
  for (int k = 0; k < TERMS; ++k) weights[k] = T(value[k]), slopes[k] = T(slope[k]);
}

template <typename T>
INLINE Place<T> place_of(const Network<T>& net, const double* v) {
  Place<T> p;
  const double step = net.cutoff / double(net.nodes - 1);
  p.distance = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
  const double place = p.distance / step;
  const index_t node = place < double(net.nodes - 2) ? index_t(place) : net.nodes - 2;
  p.start = node * (TERMS / 2) * 3 * net.features;
  if (place < double(net.nodes - 1)) hermite(place - double(node), step, p.value, p.slope);
  else for (int k = 0; k < TERMS; ++k) p.value[k] = p.slope[k] = T(0);
  for (int a = 0; a < 3; ++a) p.u[a] = T(v[a] / p.distance);
  return p;
}

template <typename T>
INLINE void find_places(const Network<T>& net, const Work<T>& w, index_t i, std::vector<Place<T>>& places) {
  places.resize(w.rows[i + 1] - w.rows[i]);
  for (index_t e = w.rows[i]; e < w.rows[i + 1]; ++e) places[e - w.rows[i]] = place_of(net, w.vectors + 3 * e);
}

// Filters of the three parts, and their slopes
template <typename T>
INLINE void filters(const T* row, index_t F, const T* c, Vec<T> w[3]) {
  for (int k = 0; k < 3; ++k, row += F) {
    w[k] = c[0] * load(row);
    for (int n = 1; n < TERMS; ++n) w[k] += c[n] * load(row + 3 * n * F);
  }
}
template <typename T>
INLINE void filters_and_slopes(const T* row, index_t F, const Place<T>& p, Vec<T> w[3], Vec<T> s[3]) {
  for (int k = 0; k < 3; ++k, row += F) {
    const Vec<T> first = load(row);
    w[k] = p.value[0] * first, s[k] = p.slope[0] * first;
    for (int n = 1; n < TERMS; ++n) {
      const Vec<T> number = load(row + 3 * n * F);
      w[k] += p.value[n] * number, s[k] += p.slope[n] * number;
    }
  }
}

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

template <typename T>
INLINE void activate(const T* h, T* out, index_t count) {
  for (index_t k = 0; k < count; k += Lanes<T>::count) store(out + k, silu<T>(load(h + k)));
}
template <typename T>
INLINE void activate_back(const T* h, T* g, index_t count) {
  for (index_t k = 0; k < count; k += Lanes<T>::count) store(g + k, load(g + k) * silu_slope<T>(load(h + k)));
}

// --- embedding ------------------------------------------------------------------------------------------------------

// The five numbers of ûûᵀ − 1/3
template <typename T>
INLINE void traceless(const T u[3], T s[5]) {
  s[0] = u[0] * u[0] - T(1.0 / 3.0), s[1] = u[1] * u[1] - T(1.0 / 3.0);
  s[2] = u[0] * u[1], s[3] = u[0] * u[2], s[4] = u[1] * u[2];
}

template <typename T>
INLINE void embed_edges(const Network<T>& net, const Work<T>& w, index_t i) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  const Tensor<T> u = w.u.at(i, F);
  const T* own = net.of_center + w.numbers[i] * F;
  Vec<T> zero[9] = {};
  for (index_t f = 0; f < F; f += L) store9(u, F, f, zero);
  for (index_t e = w.rows[i]; e < w.rows[i + 1]; ++e) {
    const Place<T> p = place_of(net, w.vectors + 3 * e);
    const T *row = net.table + p.start, *other = net.of_neighbor + w.numbers[w.neighbors[e]] * F;
    T s[5];
    traceless(p.u, s);
    for (index_t f = 0; f < F; f += L) {
      Vec<T> t[3], n[9];
      filters(row + f, F, p.value, t);
      const Vec<T> z = load(other + f) + load(own + f);
      load9(u, F, f, n);
      n[0] += t[0] * z;
      const Vec<T> skew = t[1] * z, rest = t[2] * z;
      for (int k = 0; k < 3; ++k) n[1 + k] -= skew * p.u[k];  // directions point to the atom
      for (int k = 0; k < 5; ++k) n[4 + k] += rest * s[k];
      store9(u, F, f, n);
    }
  }
}

template <typename T>
INLINE void embed(const Network<T>& net, const Work<T>& w, const Tensor<T>& x, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> activated(TILE * 2 * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = i; j < i + n; ++j) {
      embed_edges(net, w, j);
      for (index_t f = 0; f < F; f += L) {
        Vec<T> u[9];
        load9(w.u.at(j, F), F, f, u);
        store(w.normed + j * F + f, inner<T>(u, u));
      }
      w.inverse[j] = normalise(w.normed + j * F, F);
    }
    product(n, 2 * F, F, w.normed + i * F, F, net.s0, 2 * F, w.h1 + 2 * i * F, 2 * F, net.s0b);
    activate(w.h1 + 2 * i * F, activated.data(), 2 * n * F);
    product(n, 3 * F, 2 * F, activated.data(), 2 * F, net.s1, 3 * F, w.h2 + 3 * i * F, 3 * F, net.s1b);
    mix(n, F, w.u.at(i, F), net.m0, net.m1, net.m2, w.v.at(i, F));
    for (index_t j = i; j < i + n; ++j) {
      const T* h = w.h2 + 3 * j * F;
      for (index_t f = 0; f < F; f += L) {
        const Vec<T> q[3] = {silu<T>(load(h + f)), silu<T>(load(h + F + f)), silu<T>(load(h + 2 * F + f))};
        Vec<T> v[9];
        load9(w.v.at(j, F), F, f, v);
        for (int k = 0; k < 9; ++k) v[k] *= q[k == 0 ? 0 : k < 4 ? 1 : 2];
        store9(x.at(j, F), F, f, v);
      }
    }
  }
}

// gradient of the edges of an atom from that of its U
template <typename T>
INLINE void embed_edges_back(const Network<T>& net, const Work<T>& w, index_t i, const Tensor<T>& g) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  const T* own = net.of_center + w.numbers[i] * F;
  for (index_t e = w.rows[i]; e < w.rows[i + 1]; ++e) {
    const Place<T> p = place_of(net, w.vectors + 3 * e);
    const T *row = net.table + p.start, *other = net.of_neighbor + w.numbers[w.neighbors[e]] * F;
    const T u[3] = {-p.u[0], -p.u[1], -p.u[2]};
    Vec<T> slope = {}, turn[3] = {};
    for (index_t f = 0; f < F; f += L) {
      Vec<T> t[3], s[3], n[9];
      filters_and_slopes(row + f, F, p, t, s);
      load9(g, F, f, n);
      const Vec<T> z = load(other + f) + load(own + f);
      const Vec<T> su[3] = {n[4] * u[0] + n[6] * u[1] + n[7] * u[2], n[6] * u[0] + n[5] * u[1] + n[8] * u[2],
                            n[7] * u[0] + n[8] * u[1] - (n[4] + n[5]) * u[2]};
      const Vec<T> au = n[1] * u[0] + n[2] * u[1] + n[3] * u[2], uu = su[0] * u[0] + su[1] * u[1] + su[2] * u[2];
      slope += z * (T(3) * s[0] * n[0] + T(2) * s[1] * au + s[2] * uu);
      const Vec<T> skew = t[1] * z, rest = t[2] * z;
      for (int a = 0; a < 3; ++a) turn[a] += skew * n[1 + a] + rest * su[a];
    }
    const double gd = double(w.gd[e]) + double(sum<T>(slope));
    double gu[3], along = 0;
    for (int a = 0; a < 3; ++a) gu[a] = 2.0 * double(sum<T>(turn[a])), along += gu[a] * double(p.u[a]);
    for (int a = 0; a < 3; ++a)
      w.gradient[3 * e + a] = gd * double(p.u[a]) - (gu[a] - along * double(p.u[a])) / p.distance;
  }
}

template <typename T>
INLINE void embed_back(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> gq(TILE * 3 * F), gh(TILE * 2 * F), gn(TILE * F), mixed(TILE * 9 * F), gu(TILE * 9 * F);
  const Tensor<T> gv(mixed.data(), TILE * F), g(gu.data(), TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      const T* h = w.h2 + 3 * (i + j) * F;
      for (index_t f = 0; f < F; f += L) {
        Vec<T> v[9], x[9];
        load9(w.v.at(i + j, F), F, f, v);
        load9(w.gx.at(i + j, F), F, f, x);
        const Vec<T> by[3] = {inner_i<T>(v, x), inner_a<T>(v, x), inner_s<T>(v, x)};
        for (int k = 0; k < 3; ++k) store(gq.data() + (3 * j + k) * F + f, by[k] * silu_slope<T>(load(h + k * F + f)));
        for (int k = 0; k < 9; ++k) x[k] *= silu<T>(load(h + (k == 0 ? 0 : k < 4 ? F : 2 * F) + f));
        store9(gv.at(j, F), F, f, x);
      }
    }
    product(n, 2 * F, 3 * F, gq.data(), 3 * F, net.s1t, 2 * F, gh.data(), 2 * F);
    activate_back(w.h1 + 2 * i * F, gh.data(), 2 * n * F);
    product(n, F, 2 * F, gh.data(), 2 * F, net.s0t, F, gn.data(), F);
    mix(n, F, gv, net.m0t, net.m1t, net.m2t, g);
    for (index_t j = 0; j < n; ++j) {
      normalise_back(gn.data() + j * F, w.normed + (i + j) * F, w.inverse[i + j], F);
      for (index_t f = 0; f < F; f += L) {
        Vec<T> u[9], d[9];
        load9(w.u.at(i + j, F), F, f, u);
        load9(g.at(j, F), F, f, d);
        const Vec<T> twice = T(2) * load(gn.data() + j * F + f);
        for (int k = 0; k < 9; ++k) d[k] += twice * u[k];
        store9(g.at(j, F), F, f, d);
      }
      embed_edges_back(net, w, i + j, g.at(j, F));
    }
  }
}

// --- blocks ---------------------------------------------------------------------------------------------------------

// X/(‖X‖² + 1)
template <typename T>
INLINE void bound(Vec<T> x[9]) {
  const Vec<T> factor = T(1) / (inner<T>(x, x) + T(1));
  for (int k = 0; k < 9; ++k) x[k] *= factor;
}

// Gradient by X from g, that by X/(‖X‖² + 1)
template <typename T>
INLINE void bound_back(const Vec<T> x[9], Vec<T> g[9]) {
  const Vec<T> factor = T(1) / (inner<T>(x, x) + T(1)), along = T(2) * inner<T>(x, g) * factor;
  for (int k = 0; k < 9; ++k) g[k] = factor * (g[k] - along * x[k]);
}

template <typename T>
INLINE void project(const Network<T>& net, const Block<T>& b, const State<T>& s, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> buffer(TILE * 9 * F);
  const Tensor<T> bounded(buffer.data(), TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j)
      for (index_t f = 0; f < F; f += L) {
        Vec<T> x[9];
        load9(s.x.at(i + j, F), F, f, x);
        bound<T>(x);
        store9(bounded.at(j, F), F, f, x);
      }
    mix(n, F, bounded, b.y0, b.y1, b.y2, s.y.at(i, F));
  }
}

// gx, that by the bounded X, plus what comes through Y; then through the bound
template <typename T>
INLINE void project_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t first,
                         index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    mix(n, F, w.gy.at(i, F), b.y0t, b.y1t, b.y2t, w.gx.at(i, F), true);
    for (index_t j = i; j < i + n; ++j)
      for (index_t f = 0; f < F; f += L) {
        Vec<T> x[9], g[9];
        load9(s.x.at(j, F), F, f, x);
        load9(w.gx.at(j, F), F, f, g);
        bound_back<T>(x, g);
        store9(w.gx.at(j, F), F, f, g);
      }
  }
}

template <typename T>
INLINE void gather(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s,
                   std::vector<Place<T>>& places, index_t i) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, edges = w.rows[i + 1] - w.rows[i];
  const index_t* neighbors = w.neighbors + w.rows[i];
  find_places(net, w, i, places);
  for (index_t f = 0; f < F; f += L) {
    Vec<T> total[9] = {};
    for (index_t e = 0; e < edges; ++e) {
      Vec<T> t[3], from[9];
      filters(b.table + places[e].start + f, F, places[e].value, t);
      load9(s.y.at(neighbors[e], F), F, f, from);
      for (int k = 0; k < 9; ++k) total[k] += t[k == 0 ? 0 : k < 4 ? 1 : 2] * from[k];
    }
    store9(s.m.at(i, F), F, f, total);
  }
}

template <typename T>
INLINE void gather_own(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t i) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  T* sums = s.sums + 3 * i * F;
  for (index_t f = 0; f < 3 * F; ++f) sums[f] = 0;
  for (index_t e = w.rows[i]; e < w.rows[i + 1]; ++e) {
    const Place<T> p = place_of(net, w.vectors + 3 * e);
    for (index_t f = 0; f < F; f += L) {
      Vec<T> t[3];
      filters(b.table + p.start + f, F, p.value, t);
      for (int k = 0; k < 3; ++k) store(sums + k * F + f, load(sums + k * F + f) + t[k]);
    }
  }
  for (index_t f = 0; f < F; f += L) {
    Vec<T> n[9];
    load9(s.y.at(i, F), F, f, n);
    for (int k = 0; k < 9; ++k) n[k] *= load(sums + (k == 0 ? 0 : k < 4 ? F : 2 * F) + f);
    store9(s.m.at(i, F), F, f, n);
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

template <typename T>
INLINE void convolve(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s,
                     const Tensor<T>& next, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> buffer(TILE * 9 * F);
  std::vector<Place<T>> places;
  const Tensor<T> bounded(buffer.data(), TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      if (net.own) gather_own(net, w, b, s, i + j);
      else gather(net, w, b, s, places, i + j);
      for (index_t f = 0; f < F; f += L) {
        Vec<T> y[9], m[9], p[9];
        load9(s.y.at(i + j, F), F, f, y);
        load9(s.m.at(i + j, F), F, f, m);
        multiplied<T>(net.symmetric, y, m, p);
        bound<T>(p);
        store9(bounded.at(j, F), F, f, p);
      }
    }
    mix(n, F, bounded, b.d0, b.d1, b.d2, s.d.at(i, F));
    for (index_t j = i; j < i + n; ++j)
      for (index_t f = 0; f < F; f += L) {
        Vec<T> x[9], d[9], full[9], square[9] = {}, dd[9];
        load9(s.x.at(j, F), F, f, x);
        load9(s.d.at(j, F), F, f, d);
        bound<T>(x);
        to_matrix<T>(d, full);
        multiply<T, false, false>(full, full, square);
        from_matrix<T>(square, dd);
        for (int k = 0; k < 9; ++k) x[k] += d[k] + dd[k];
        store9(next.at(j, F), F, f, x);
      }
  }
}

// gm, and the part of gy that does not come from neighbours, from gx, which stays: it is also that by the bounded X
template <typename T>
INLINE void update_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t first,
                        index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> buffer(TILE * 9 * F), other(TILE * 9 * F);
  const Tensor<T> gd(buffer.data(), TILE * F), gp(other.data(), TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j)
      for (index_t f = 0; f < F; f += L) {
        Vec<T> g[9], d[9], gm[9], dm[9], found[9];
        load9(w.gx.at(i + j, F), F, f, g);
        load9(s.d.at(i + j, F), F, f, d);
        to_matrix<T>(g, gm);
        to_matrix<T>(d, dm);
        for (int k = 0; k < 9; ++k) found[k] = gm[k];
        multiply<T, false, true>(gm, dm, found);
        multiply<T, true, false>(dm, gm, found);
        from_matrix<T>(found, g);
        store9(gd.at(j, F), F, f, g);
      }
    mix(n, F, gd, b.d0t, b.d1t, b.d2t, gp);
    for (index_t j = 0; j < n; ++j)
      for (index_t f = 0; f < F; f += L) {
        Vec<T> y[9], m[9], p[9], g[9], gfull[9], yfull[9], mfull[9], gy[9] = {}, gm[9] = {};
        load9(s.y.at(i + j, F), F, f, y);
        load9(s.m.at(i + j, F), F, f, m);
        load9(gp.at(j, F), F, f, g);
        multiplied<T>(net.symmetric, y, m, p);
        bound_back<T>(p, g);
        to_matrix<T>(g, gfull);
        to_matrix<T>(y, yfull);
        to_matrix<T>(m, mfull);
        multiply<T, false, true>(gfull, mfull, gy);
        multiply<T, true, false>(yfull, gfull, gm);
        if (net.symmetric) {
          multiply<T, true, false>(mfull, gfull, gy);
          multiply<T, false, true>(gfull, yfull, gm);
        } else {
          for (int k = 0; k < 9; ++k) gy[k] *= T(2), gm[k] *= T(2);
        }
        from_matrix<T>(gy, y);
        from_matrix<T>(gm, m);
        store9(w.gy.at(i + j, F), F, f, y);
        store9(w.gm.at(i + j, F), F, f, m);
      }
  }
}

// gy of atom a from gm of those that hear it, and the slopes of its edges
template <typename T>
INLINE void gather_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s,
                        std::vector<Place<T>>& places, std::vector<T>& slopes, index_t a) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, first = w.rows[a], edges = w.rows[a + 1] - first;
  find_places(net, w, a, places);
  slopes.assign(edges * L, T(0));
  for (index_t f = 0; f < F; f += L) {
    Vec<T> own[9], total[9];
    load9(s.y.at(a, F), F, f, own);
    load9(w.gy.at(a, F), F, f, total);
    for (index_t e = 0; e < edges; ++e) {
      Vec<T> t[3], d[3], g[9];
      filters_and_slopes(b.table + places[e].start + f, F, places[e], t, d);
      load9(w.gm.at(w.neighbors[first + e], F), F, f, g);
      for (int k = 0; k < 9; ++k) total[k] += t[k == 0 ? 0 : k < 4 ? 1 : 2] * g[k];
      store(slopes.data() + e * L, load(slopes.data() + e * L) + d[0] * inner_i<T>(own, g) +
                                       d[1] * inner_a<T>(own, g) + d[2] * inner_s<T>(own, g));
    }
    store9(w.gy.at(a, F), F, f, total);
  }
  for (index_t e = 0; e < edges; ++e) w.gd[first + e] += sum<T>(load(slopes.data() + e * L));
}

template <typename T>
INLINE void gather_own_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t a) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> by(3 * F);
  const T* sums = s.sums + 3 * a * F;
  for (index_t f = 0; f < F; f += L) {
    Vec<T> y[9], g[9], gy[9];
    load9(s.y.at(a, F), F, f, y);
    load9(w.gm.at(a, F), F, f, g);
    load9(w.gy.at(a, F), F, f, gy);
    store(by.data() + f, inner_i<T>(y, g));
    store(by.data() + F + f, inner_a<T>(y, g));
    store(by.data() + 2 * F + f, inner_s<T>(y, g));
    for (int k = 0; k < 9; ++k) gy[k] += load(sums + (k == 0 ? 0 : k < 4 ? F : 2 * F) + f) * g[k];
    store9(w.gy.at(a, F), F, f, gy);
  }
  for (index_t e = w.rows[a]; e < w.rows[a + 1]; ++e) {
    const Place<T> p = place_of(net, w.vectors + 3 * e);
    Vec<T> slope = {};
    for (index_t f = 0; f < F; f += L) {
      Vec<T> d[3];
      filters(b.table + p.start + f, F, p.slope, d);
      for (int k = 0; k < 3; ++k) slope += d[k] * load(by.data() + k * F + f);
    }
    w.gd[e] += sum<T>(slope);
  }
}

// --- readout --------------------------------------------------------------------------------------------------------

// One of the two stacks of dense layers: h1, h2, h3 keep what comes before each non-linearity.
template <typename T>
struct Stack {
  const T *w0, *w0t, *b0, *w1, *w1t, *b1, *w2, *w2t, *b2, *last;
  T *h0, *h1, *h2, *buffer;

  INLINE void forward(index_t n, index_t F, const T* x) {
    product(n, F, F, x, F, w0, F, h0, F, b0);
    activate(h0, buffer, n * F);
    product(n, F, F, buffer, F, w1, F, h1, F, b1);
    activate(h1, buffer, n * F);
    product(n, F, F, buffer, F, w2, F, h2, F, b2);
  }
  // The number of atom j, and in h2 its derivative by h2
  INLINE T number(index_t j, index_t F) { return silu_row(h2 + j * F, last, F / Lanes<T>::count); }
  // From the derivative in h2, times factors that are in it already
  INLINE void backward(index_t n, index_t F, T* gx, bool add) {
    product(n, F, F, h2, F, w2t, F, buffer, F);
    activate_back(h1, buffer, n * F);
    product(n, F, F, buffer, F, w1t, F, h2, F);
    activate_back(h0, h2, n * F);
    product(n, F, F, h2, F, w0t, F, gx, F, nullptr, add);
  }
};

// Energies from the X in gx, and in their place the gradient by them
template <typename T>
INLINE void read_out(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> space(TILE * F * 14);
  T *invariants = space.data(), *gi = invariants + 3 * TILE * F, *h = gi + 3 * TILE * F, *at = h + TILE * F;
  const auto next = [&]() { T* piece = at; at += TILE * F; return piece; };
  T* shared = next();
  Stack<T> value{net.v0, net.v0t, net.v0b, net.v1, net.v1t, net.v1b, net.v2, net.v2t, net.v2b, net.v3,
                 next(), next(), next(), shared};
  Stack<T> gate{net.g0, net.g0t, net.g0b, net.g1, net.g1t, net.g1b, net.g2, net.g2t, net.g2b, net.g3,
                next(), next(), next(), shared};
  T inverse[TILE];
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      T* row = invariants + 3 * j * F;
      for (index_t f = 0; f < F; f += L) {
        Vec<T> x[9];
        load9(w.gx.at(i + j, F), F, f, x);
        store(row + f, inner_i<T>(x, x));
        store(row + F + f, inner_a<T>(x, x));
        store(row + 2 * F + f, inner_s<T>(x, x));
      }
      inverse[j] = normalise(row, 3 * F);
    }
    product(n, F, 3 * F, invariants, 3 * F, net.h, F, h, F, net.hb);
    value.forward(n, F, h);
    gate.forward(n, F, h);
    for (index_t j = 0; j < n; ++j) {
      const T a = value.number(j, F) + T(net.v3b), raw = gate.number(j, F) + T(net.g3b);
      const T open = T(1) / (T(1) + std::exp(-raw)), slope = a * open * (T(1) - open);
      w.energies[i + j] = double(a) * double(open);
      for (index_t f = j * F; f < (j + 1) * F; f += L) {
        store(value.h2 + f, load(value.h2 + f) * open);
        store(gate.h2 + f, load(gate.h2 + f) * slope);
      }
    }
    if (!w.gradient) continue;
    value.backward(n, F, h, false);
    gate.backward(n, F, h, true);
    product(n, 3 * F, F, h, F, net.ht, 3 * F, gi, 3 * F);
    for (index_t j = 0; j < n; ++j) {
      normalise_back(gi + 3 * j * F, invariants + 3 * j * F, inverse[j], 3 * F);
      for (index_t f = 0; f < F; f += L) {
        Vec<T> x[9];
        load9(w.gx.at(i + j, F), F, f, x);
        for (int k = 0; k < 9; ++k) x[k] *= T(2) * load(gi + (3 * j + (k == 0 ? 0 : k < 4 ? 1 : 2)) * F + f);
        store9(w.gx.at(i + j, F), F, f, x);
      }
    }
  }
}

// --- the whole ------------------------------------------------------------------------------------------------------

enum Phase { EMBED, PROJECT, CONVOLVE, READ_OUT, UPDATE_BACK, GATHER_BACK, EMBED_BACK };

template <typename T>
INLINE void run_phase(const Network<T>& net, const Work<T>& w, const State<T>* states, Phase phase, index_t k,
                      index_t first, index_t last) {
  const Block<T>& block = net.block[k];
  const State<T>& s = states[k];
  switch (phase) {
    case EMBED:
      for (index_t e = w.rows[first]; e < w.rows[last]; ++e) w.gd[e] = 0;
      embed(net, w, s.x, first, last);
      break;
    case PROJECT: project(net, block, s, first, last); break;
    case CONVOLVE: convolve(net, w, block, s, k + 1 == net.blocks ? w.gx : states[k + 1].x, first, last); break;
    case READ_OUT: read_out(net, w, first, last); break;
    case UPDATE_BACK: update_back(net, w, block, s, first, last); break;
    case GATHER_BACK: {
      std::vector<Place<T>> places;
      std::vector<T> slopes;
      for (index_t i = first; i < last; ++i) {
        if (net.own) gather_own_back(net, w, block, s, i);
        else gather_back(net, w, block, s, places, slopes, i);
      }
      project_back(net, w, block, s, first, last);
      break;
    }
    case EMBED_BACK: embed_back(net, w, first, last); break;
  }
}

DISPATCH void phase_of(const Network<float>& net, const Work<float>& w, const State<float>* s, Phase p, index_t k,
                       index_t first, index_t last) {
  run_phase<float>(net, w, s, p, k, first, last);
}
DISPATCH void phase_of(const Network<double>& net, const Work<double>& w, const State<double>* s, Phase p, index_t k,
                       index_t first, index_t last) {
  run_phase<double>(net, w, s, p, k, first, last);
}

template <typename T>
void lay_out(Arena<T>& arena, Work<T>& w, std::vector<State<T>>& states, index_t F, index_t N, index_t E, bool own) {
  const auto tensor = [&]() { return Tensor<T>(arena.take(9 * N * F), N * F); };
  w.gd = arena.take(E);
  w.normed = arena.take(N * F);
  w.h1 = arena.take(2 * N * F);
  w.h2 = arena.take(3 * N * F);
  w.inverse = arena.take(N);
  w.u = tensor(), w.v = tensor(), w.gx = tensor(), w.gy = tensor(), w.gm = tensor();
  for (State<T>& s : states) {
    s.x = tensor(), s.y = tensor(), s.m = tensor(), s.d = tensor();
    s.sums = own ? arena.take(3 * N * F) : nullptr;
  }
}

index_t workspace(const Network<float>& net, const Graph& graph) {
  Arena<float> arena{nullptr};
  Work<float> w{};
  std::vector<State<float>> states(net.blocks);
  lay_out(arena, w, states, net.features, graph.atoms, graph.edges, net.own != 0);
  return arena.used;
}

template <typename T>
void evaluate(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient) {
  Work<T> w{};
  w.atoms = graph.atoms, w.edges = graph.edges;
  w.rows = graph.rows, w.neighbors = graph.neighbors, w.numbers = graph.numbers, w.vectors = graph.vectors;
  w.energies = energies, w.gradient = gradient;
  std::vector<State<T>> states(net.blocks);
  Arena<T> arena{buffer};
  lay_out(arena, w, states, net.features, graph.atoms, graph.edges, net.own != 0);
  const auto run = [&](Phase phase, index_t k) {
    share(graph.rows, graph.atoms, graph.threads,
          [&, phase, k](index_t a, index_t b) { phase_of(net, w, states.data(), phase, k, a, b); });
  };
  run(EMBED, 0);
  for (index_t k = 0; k < net.blocks; ++k) {
    run(PROJECT, k);
    run(CONVOLVE, k);
  }
  run(READ_OUT, 0);
  if (!gradient) return;
  for (index_t k = net.blocks - 1; k >= 0; --k) {
    run(UPDATE_BACK, k);
    run(GATHER_BACK, k);
  }
  run(EMBED_BACK, 0);
}

}  // namespace

ASECALC_KERNEL(tensornet)
ASECALC_EVALUATE(tensornet, float, f32)
ASECALC_EVALUATE(tensornet, double, f64)
