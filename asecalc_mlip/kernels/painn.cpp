// A trained PaiNN on the CPU in one call: energies of all atoms and the gradient along every edge.
//
// The radial filter of an edge, w = Σ_k c_k(d) W_k, is made in registers where it is used, so nothing of size edges ×
// features is stored. Rows of edges are contiguous (sorted by centre) and hold both directions of every pair. That makes
// the backward pass a gather too: the edges that end in atom a are the edges of row a, turned round. So every sum is
// owned by one atom, threads need no locks, and the result does not depend on their number.
//
// Names as in models/painn.py. Per block: x = A2 silu(A1 q), convolution, then mixing (V, U) = C μ,
// (a, b, c) = M2 silu(M1 (q, |V|)), q += a + c ⟨V, U⟩, μ += b U.
#include "lanes.h"

namespace {

constexpr index_t TILE = 32;  // atoms that pass through the atom-wise networks together

template <typename T>
struct Block {  // weights as (in, out); those with a trailing t are the transposes, for the backward pass, b is a bias
  const T *filters;  // (K, P F)
  const T *a1, *a1t, *a1b, *a2, *a2t, *a2b;
  const T *c, *ct;
  const T *m1, *m1t, *m1b, *m2, *m2t, *m2b;
};

template <typename T>
struct Network {  // the other side is PaiNNWeights in models/painn.py
  index_t features, blocks, radial, basis;  // F, number of blocks, K = n_rbf + 1, 0 Gaussian or 1 Bessel
  index_t hidden;                           // width of the readout, padded to whole registers
  double cutoff;
  const T *embedding, *r1, *r1t, *r1b, *r2;
  double r2b;
  const Block<T>* block;
};

template <typename T>
struct State {  // values of one block for the backward pass
  T *h, *x, *mu, *vu, *n, *h2, *o;
};

template <typename T>
struct Work {
  index_t atoms, edges, threads;
  const index_t *rows, *neighbors, *numbers;
  const double* vectors;
  T *values, *slopes, *u, *inverse;  // (E, K) twice, (E, 3), (E)
  T *q, *m, *gq, *gm, *gx, *gmu;     // (N, F), (N, 3, F), …
  T *gd, *gu;                        // (E), (E, 3)
  double *energies, *gradient;       // (N), (E, 3)
};

// --- radial functions -----------------------------------------------------------------------------------------------

template <typename T>
INLINE void radial_edge(const Network<T>& net, double d, T* values, T* slopes) {
  constexpr index_t L = Lanes<T>::count;
  const index_t R = net.radial - 1;
  const double pi = 3.14159265358979323846, angle = pi * d / net.cutoff;
  const double sine = std::sin(angle), cosine = std::cos(angle);
  const bool inside = d < net.cutoff;
  const T envelope = inside ? T(0.5 * (cosine + 1.0)) : T(0), bend = inside ? T(-0.5 * pi / net.cutoff * sine) : T(0);
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
    // sin and cos of kθ by their addition theorem, in double, where 20 steps lose nothing that matters.
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
INLINE void prepare(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  for (index_t i = first; i < last; ++i) {
    for (index_t e = w.rows[i]; e < w.rows[i + 1]; ++e) {
      const double* v = w.vectors + 3 * e;
      const double d = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
      w.inverse[e] = T(1.0 / d);
      for (int a = 0; a < 3; ++a) w.u[3 * e + a] = T(v[a] / d);
      radial_edge(net, d, w.values + e * net.radial, w.slopes + e * net.radial);
      w.gd[e] = 0;
      for (int a = 0; a < 3; ++a) w.gu[3 * e + a] = 0;
    }
    const T* row = net.embedding + w.numbers[i] * net.features;
    for (index_t f = 0; f < net.features; ++f) w.q[i * net.features + f] = row[f];
  }
}

// --- convolution ----------------------------------------------------------------------------------------------------

template <typename T, bool MU, int B>
INLINE void convolve_edges(const Network<T>& net, const Work<T>& w, const T* weights, const State<T>& s, index_t e,
                           index_t f, Vec<T> (&sum)[4]) {
  constexpr index_t P = MU ? 3 : 2;
  const index_t F = net.features, K = net.radial;
  Vec<T> w1[B] = {}, w2[B] = {}, w3[B] = {};
  for (index_t k = 0; k < K; ++k) {
    const T* row = weights + k * P * F + f;
    const Vec<T> a1 = load(row), a2 = load(row + F), a3 = MU ? load(row + 2 * F) : Vec<T>{};
#pragma GCC unroll 4
    for (int b = 0; b < B; ++b) {
      const T c = w.values[(e + b) * K + k];
      w1[b] += c * a1;
      w2[b] += c * a2;
      if (MU) w3[b] += c * a3;
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
    const index_t j = w.neighbors[e + b];
    const T *x = s.x + j * P * F + f, *u = w.u + 3 * (e + b);
    const Vec<T> t = w2[b] * load(x + F);
    sum[0] += w1[b] * load(x);
    for (int a = 0; a < 3; ++a) sum[a + 1] += t * u[a];
    if (MU) {
      const T* mu = s.mu + 3 * j * F + f;
      const Vec<T> r = w3[b] * load(x + 2 * F);
      for (int a = 0; a < 3; ++a) sum[a + 1] += r * load(mu + a * F);
    }
  }
}

// q += Σ …, and m = μ + Σ … for the atoms of a range
template <typename T, bool MU>
INLINE void convolve(const Network<T>& net, const Work<T>& w, const T* weights, const State<T>& s, index_t first,
                     index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  for (index_t i = first; i < last; ++i) {
    for (index_t f = 0; f < F; f += L) {
      Vec<T> sum[4] = {load(w.q + i * F + f), Vec<T>{}, Vec<T>{}, Vec<T>{}};
      if (MU)
        for (int a = 0; a < 3; ++a) sum[a + 1] = load(s.mu + (3 * i + a) * F + f);
      index_t e = w.rows[i];
      for (; e + 4 <= w.rows[i + 1]; e += 4) convolve_edges<T, MU, 4>(net, w, weights, s, e, f, sum);
      for (; e < w.rows[i + 1]; ++e) convolve_edges<T, MU, 1>(net, w, weights, s, e, f, sum);
      store(w.q + i * F + f, sum[0]);
      for (int a = 0; a < 3; ++a) store(w.m + (3 * i + a) * F + f, sum[a + 1]);
    }
  }
}

template <typename T, bool MU, int B>
INLINE void convolve_back_edges(const Network<T>& net, const Work<T>& w, const T* weights, const State<T>& s,
                                index_t atom, index_t e) {
  constexpr index_t P = MU ? 3 : 2, L = Lanes<T>::count;
  const index_t F = net.features, K = net.radial;
  Vec<T> sd[B] = {}, su[B][3] = {};
  for (index_t f = 0; f < F; f += L) {
    Vec<T> w1[B] = {}, w2[B] = {}, w3[B] = {}, s1[B] = {}, s2[B] = {}, s3[B] = {};
    for (index_t k = 0; k < K; ++k) {
      const T* row = weights + k * P * F + f;
      const Vec<T> a1 = load(row), a2 = load(row + F), a3 = MU ? load(row + 2 * F) : Vec<T>{};
#pragma GCC unroll 2
      for (int b = 0; b < B; ++b) {
        const T c = w.values[(e + b) * K + k], d = w.slopes[(e + b) * K + k];
        w1[b] += c * a1;
        w2[b] += c * a2;
        s1[b] += d * a1;
        s2[b] += d * a2;
        if (MU) {
          w3[b] += c * a3;
          s3[b] += d * a3;
        }
      }
    }
    const T* x = s.x + atom * P * F + f;
    T* gx = w.gx + atom * P * F + f;
    const Vec<T> x1 = load(x), x2 = load(x + F), x3 = MU ? load(x + 2 * F) : Vec<T>{};
    Vec<T> g1 = load(gx), g2 = load(gx + F), g3 = MU ? load(gx + 2 * F) : Vec<T>{};
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) {
      const index_t i = w.neighbors[e + b];  // the centre of the edge turned round
      const T *u = w.u + 3 * (e + b), *gm = w.gm + 3 * i * F + f;
      const Vec<T> q = load(w.gq + i * F + f), ax = load(gm), ay = load(gm + F), az = load(gm + 2 * F);
      const Vec<T> ug = -(u[0] * ax + u[1] * ay + u[2] * az), t = w2[b] * x2;
      g1 += w1[b] * q;
      g2 += w2[b] * ug;
      sd[b] += s1[b] * (x1 * q) + s2[b] * (x2 * ug);
      su[b][0] += t * ax;
      su[b][1] += t * ay;
      su[b][2] += t * az;
      if (MU) {
        const T* mu = s.mu + 3 * atom * F + f;
        T* gmu = w.gmu + 3 * atom * F + f;
        const Vec<T> mg = load(mu) * ax + load(mu + F) * ay + load(mu + 2 * F) * az, r = w3[b] * x3;
        g3 += w3[b] * mg;
        sd[b] += s3[b] * (x3 * mg);
        store(gmu, load(gmu) + r * ax);
        store(gmu + F, load(gmu + F) + r * ay);
        store(gmu + 2 * F, load(gmu + 2 * F) + r * az);
      }
    }
    store(gx, g1);
    store(gx + F, g2);
    if (MU) store(gx + 2 * F, g3);
  }
  for (int b = 0; b < B; ++b) {
    w.gd[e + b] += sum<T>(sd[b]);
    for (int a = 0; a < 3; ++a) w.gu[3 * (e + b) + a] -= sum<T>(su[b][a]);
  }
}

// gx and gmu of the atoms of a range, gd and gu of their edges; gmu starts as the gradient that passes by
template <typename T, bool MU>
INLINE void convolve_back(const Network<T>& net, const Work<T>& w, const T* weights, const State<T>& s, index_t first,
                          index_t last) {
  constexpr index_t P = MU ? 3 : 2;
  const index_t F = net.features;
  for (index_t i = first; i < last; ++i) {
    for (index_t f = 0; f < P * F; ++f) w.gx[i * P * F + f] = 0;
    if (MU)
      for (index_t f = 0; f < 3 * F; ++f) w.gmu[3 * i * F + f] = w.gm[3 * i * F + f];
    index_t e = w.rows[i];
    for (; e + 2 <= w.rows[i + 1]; e += 2) convolve_back_edges<T, MU, 2>(net, w, weights, s, i, e);
    for (; e < w.rows[i + 1]; ++e) convolve_back_edges<T, MU, 1>(net, w, weights, s, i, e);
  }
}

// --- atom-wise networks ---------------------------------------------------------------------------------------------

// x = A2 silu(A1 q) for the atoms of a range
template <typename T>
INLINE void messages(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t P,
                     index_t first, index_t last) {
  const index_t F = net.features;
  std::vector<T> activated(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    product(n, F, F, w.q + i * F, F, b.a1, F, s.h + i * F, F, b.a1b);
    for (index_t k = 0; k < n * F; k += Lanes<T>::count) store(activated.data() + k, silu<T>(load(s.h + i * F + k)));
    product(n, P * F, F, activated.data(), F, b.a2, P * F, s.x + i * P * F, P * F, b.a2b);
  }
}

// gq += A1ᵀ (silu'(h) · A2ᵀ gx)
template <typename T>
INLINE void messages_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, index_t P,
                          index_t first, index_t last) {
  const index_t F = net.features;
  std::vector<T> g(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    product(n, F, P * F, w.gx + i * P * F, P * F, b.a2t, F, g.data(), F);
    for (index_t k = 0; k < n * F; k += Lanes<T>::count)
      store(g.data() + k, load(g.data() + k) * silu_slope<T>(load(s.h + i * F + k)));
    product(n, F, F, g.data(), F, b.a1t, F, w.gq + i * F, F, nullptr, true);
  }
}

template <typename T>
INLINE void mix(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, T* next_mu, index_t first,
                index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> context(TILE * 2 * F), activated(TILE * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    product(3 * n, 2 * F, F, w.m + 3 * i * F, F, b.c, 2 * F, s.vu + 6 * i * F, 2 * F);
    for (index_t j = 0; j < n; ++j) {
      const T* v = s.vu + 6 * (i + j) * F;
      for (index_t f = 0; f < F; f += L) {
        const Vec<T> x = load(v + f), y = load(v + 2 * F + f), z = load(v + 4 * F + f);
        Vec<T> norm = x * x + y * y + z * z + T(1e-8);
        for (index_t l = 0; l < L; ++l) norm[l] = std::sqrt(norm[l]);
        store(s.n + (i + j) * F + f, norm);
        store(context.data() + 2 * j * F + f, load(w.q + (i + j) * F + f));
        store(context.data() + (2 * j + 1) * F + f, norm);
      }
    }
    product(n, F, 2 * F, context.data(), 2 * F, b.m1, F, s.h2 + i * F, F, b.m1b);
    for (index_t k = 0; k < n * F; k += L) store(activated.data() + k, silu<T>(load(s.h2 + i * F + k)));
    product(n, 3 * F, F, activated.data(), F, b.m2, 3 * F, s.o + 3 * i * F, 3 * F, b.m2b);
    for (index_t j = i; j < i + n; ++j) {
      const T *v = s.vu + 6 * j * F, *o = s.o + 3 * j * F;
      for (index_t f = 0; f < F; f += L) {
        Vec<T> dot = {};
        for (int a = 0; a < 3; ++a) dot += load(v + 2 * a * F + f) * load(v + (2 * a + 1) * F + f);
        store(w.q + j * F + f, load(w.q + j * F + f) + load(o + f) + load(o + 2 * F + f) * dot);
        if (next_mu)
          for (int a = 0; a < 3; ++a)
            store(next_mu + (3 * j + a) * F + f,
                  load(w.m + (3 * j + a) * F + f) + load(o + F + f) * load(v + (2 * a + 1) * F + f));
      }
    }
  }
}

// gq and gm before the mixing from those after it; gm after the last block is zero
template <typename T>
INLINE void mix_back(const Network<T>& net, const Work<T>& w, const Block<T>& b, const State<T>& s, bool last_block,
                     index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features;
  std::vector<T> go(TILE * 3 * F), gh(TILE * F), gc(TILE * 2 * F), gvu(TILE * 6 * F);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    for (index_t j = 0; j < n; ++j) {
      const T *v = s.vu + 6 * (i + j) * F, *gq = w.gq + (i + j) * F, *gm = w.gm + 3 * (i + j) * F;
      for (index_t f = 0; f < F; f += L) {
        Vec<T> dot = {}, gb = {};
        for (int a = 0; a < 3; ++a) {
          const Vec<T> u = load(v + (2 * a + 1) * F + f);
          dot += load(v + 2 * a * F + f) * u;
          if (!last_block) gb += load(gm + a * F + f) * u;
        }
        store(go.data() + 3 * j * F + f, load(gq + f));
        store(go.data() + (3 * j + 1) * F + f, gb);
        store(go.data() + (3 * j + 2) * F + f, load(gq + f) * dot);
      }
    }
    product(n, F, 3 * F, go.data(), 3 * F, b.m2t, F, gh.data(), F);
    for (index_t k = 0; k < n * F; k += L)
      store(gh.data() + k, load(gh.data() + k) * silu_slope<T>(load(s.h2 + i * F + k)));
    product(n, 2 * F, F, gh.data(), F, b.m1t, 2 * F, gc.data(), 2 * F);
    for (index_t j = 0; j < n; ++j) {
      const T *v = s.vu + 6 * (i + j) * F, *o = s.o + 3 * (i + j) * F, *gm = w.gm + 3 * (i + j) * F;
      T* gq = w.gq + (i + j) * F;
      for (index_t f = 0; f < F; f += L) {
        const Vec<T> gdot = load(gq + f) * load(o + 2 * F + f);
        const Vec<T> gnorm = load(gc.data() + (2 * j + 1) * F + f) / load(s.n + (i + j) * F + f);
        for (int a = 0; a < 3; ++a) {
          const Vec<T> va = load(v + 2 * a * F + f), ua = load(v + (2 * a + 1) * F + f);
          Vec<T> gu = gdot * va;
          if (!last_block) gu += load(o + F + f) * load(gm + a * F + f);
          store(gvu.data() + (6 * j + 2 * a) * F + f, gnorm * va + gdot * ua);
          store(gvu.data() + (6 * j + 2 * a + 1) * F + f, gu);
        }
        store(gq + f, load(gq + f) + load(gc.data() + 2 * j * F + f));
      }
    }
    product(3 * n, F, 2 * F, gvu.data(), 2 * F, b.ct, F, w.gm + 3 * i * F, F, nullptr,
            !last_block);
  }
}

// Energy of each atom, and the start of the backward pass: gq
template <typename T>
INLINE void read_out(const Network<T>& net, const Work<T>& w, index_t first, index_t last) {
  constexpr index_t L = Lanes<T>::count;
  const index_t F = net.features, H = net.hidden;
  std::vector<T> h(TILE * H);
  for (index_t i = first; i < last; i += TILE) {
    const index_t n = i + TILE < last ? TILE : last - i;
    product(n, H, F, w.q + i * F, F, net.r1, H, h.data(), H, net.r1b);
    for (index_t j = 0; j < n; ++j) w.energies[i + j] = net.r2b + double(silu_row(h.data() + j * H, net.r2, H / L));
    product(n, F, H, h.data(), H, net.r1t, F, w.gq + i * F, F);
  }
}

template <typename T>
INLINE void edge_gradient(const Work<T>& w, index_t first, index_t last) {
  for (index_t e = w.rows[first]; e < w.rows[last]; ++e) {
    const T *u = w.u + 3 * e, *g = w.gu + 3 * e;
    const T along = g[0] * u[0] + g[1] * u[1] + g[2] * u[2];
    for (int a = 0; a < 3; ++a) w.gradient[3 * e + a] = double(w.gd[e] * u[a] + (g[a] - along * u[a]) * w.inverse[e]);
  }
}

enum Phase { PREPARE, MESSAGES, CONVOLVE, READ_OUT, MIX_BACK, CONVOLVE_BACK, MESSAGES_BACK, GRADIENT };

template <typename T>
INLINE void run_phase(const Network<T>& net, const Work<T>& w, const State<T>* states, Phase phase, index_t k,
                      index_t first, index_t last) {
  const Block<T>& block = net.block[k];
  const State<T>& s = states[k];
  const bool final_block = k + 1 == net.blocks;
  switch (phase) {
    case PREPARE: prepare(net, w, first, last); break;
    case MESSAGES: messages(net, w, block, s, k ? 3 : 2, first, last); break;
    case CONVOLVE:
      if (k) convolve<T, true>(net, w, block.filters, s, first, last);
      else convolve<T, false>(net, w, block.filters, s, first, last);
      mix(net, w, block, s, final_block ? nullptr : states[k + 1].mu, first, last);
      break;
    case READ_OUT: read_out(net, w, first, last); break;
    case MIX_BACK: mix_back(net, w, block, s, final_block, first, last); break;
    case CONVOLVE_BACK:
      if (k) convolve_back<T, true>(net, w, block.filters, s, first, last);
      else convolve_back<T, false>(net, w, block.filters, s, first, last);
      break;
    case MESSAGES_BACK: messages_back(net, w, block, s, k ? 3 : 2, first, last); break;
    case GRADIENT: edge_gradient(w, first, last); break;
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
void lay_out(Arena<T>& arena, Work<T>& w, std::vector<State<T>>& states, index_t F, index_t K, index_t N, index_t E) {
  w.values = arena.take(E * K);
  w.slopes = arena.take(E * K);
  w.u = arena.take(3 * E);
  w.inverse = arena.take(E);
  w.gd = arena.take(E);
  w.gu = arena.take(3 * E);
  w.q = arena.take(N * F);
  w.m = arena.take(3 * N * F);
  w.gq = arena.take(N * F);
  w.gm = arena.take(3 * N * F);
  w.gx = arena.take(3 * N * F);
  w.gmu = arena.take(3 * N * F);
  for (State<T>& s : states) {
    s.h = arena.take(N * F);
    s.x = arena.take(3 * N * F);
    s.mu = arena.take(3 * N * F);
    s.vu = arena.take(6 * N * F);
    s.n = arena.take(N * F);
    s.h2 = arena.take(N * F);
    s.o = arena.take(3 * N * F);
  }
}

index_t workspace(const Network<float>& net, const Graph& graph) {
  Arena<float> arena{nullptr};
  Work<float> w{};
  std::vector<State<float>> states(net.blocks);
  lay_out(arena, w, states, net.features, net.radial, graph.atoms, graph.edges);
  return arena.used;
}

template <typename T>
void evaluate(const Network<T>& net, const Graph& graph, T* buffer, double* energies, double* gradient) {
  const index_t blocks = net.blocks;
  Work<T> w{};
  w.atoms = graph.atoms, w.edges = graph.edges, w.threads = graph.threads;
  w.rows = graph.rows, w.neighbors = graph.neighbors, w.numbers = graph.numbers, w.vectors = graph.vectors;
  w.energies = energies, w.gradient = gradient;
  std::vector<State<T>> states(blocks);
  Arena<T> arena{buffer};
  lay_out(arena, w, states, net.features, net.radial, graph.atoms, graph.edges);
  const auto run = [&](Phase phase, index_t k) {
    share(graph.rows, graph.atoms, graph.threads,
          [&, phase, k](index_t a, index_t b) { phase_of(net, w, states.data(), phase, k, a, b); });
  };
  run(PREPARE, 0);
  for (index_t k = 0; k < blocks; ++k) {
    run(MESSAGES, k);
    run(CONVOLVE, k);
  }
  run(READ_OUT, 0);
  if (!gradient) return;
  for (index_t k = blocks - 1; k >= 0; --k) {
    run(MIX_BACK, k);
    run(CONVOLVE_BACK, k);
    if (k > 0) {
      run(MESSAGES_BACK, k);
      std::swap(w.gm, w.gmu);
    }
  }
  run(GRADIENT, 0);
}

}  // namespace

ASECALC_KERNEL(painn)
ASECALC_EVALUATE(painn, float, f32)
ASECALC_EVALUATE(painn, double, f64)
